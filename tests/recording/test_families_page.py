"""Test that docs/recorded_families.md lists the families that are recorded and refused, and that refusals are right."""

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.recording.tiny import tiny_model

from speciate.recording.families import READ
from speciate.recording.families_page import ATTENTION_EXPERTS, KEYS, page
from speciate.recording.sites import UnreadableModel, find_sites

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "recorded_families.md"


def test_the_page_is_what_the_package_reads() -> None:
    """To write it anew: PYTHONPATH=src python -m speciate.recording.families_page > docs/recorded_families.md."""
    assert PAGE.read_text(encoding="utf-8") == page(transformers.__version__)


@pytest.mark.parametrize("family", sorted(READ))
def test_the_page_says_what_each_family_records(family: str) -> None:
    paths = [site.path for site in find_sites(tiny_model(family))]
    assert any(path.endswith("indexer") for path in paths) == (family in KEYS)
    assert any("attention" in path and path.endswith("router") for path in paths) == (family in ATTENTION_EXPERTS)


def test_no_expert_of_nllb_is_called_but_the_first_two() -> None:
    """If this fails, the family's experts are called with indices now, and it can be read: see families.py."""

    model, called = tiny_model("nllb_moe"), set()
    layer = next(module for module in model.modules() if type(module).__name__ == "NllbMoeSparseMLP")
    assert isinstance(layer.experts, torch.nn.ModuleDict)
    handles = [
        expert.register_forward_pre_hook(lambda module, args, name=name: called.add(name))
        for name, expert in layer.experts.items()
        if name.startswith("expert_")
    ]
    with torch.no_grad():
        layer(torch.randn(2, 40, 32, generator=torch.Generator().manual_seed(0)))
    for handle in handles:
        handle.remove()
    assert len(handles) == 8
    assert called == {"expert_0", "expert_1"}


def test_a_token_of_doge_chooses_by_another_tokens_scores() -> None:
    """If this fails, each token has its own scores now, and the family can be read: see families.py."""
    model: Any = tiny_model("doge")
    layer = next(module for module in model.modules() if type(module).__name__ == "DogeCDMoE")
    chosen: list[np.ndarray[Any, Any]] = []
    handle = layer.down_embed.register_forward_pre_hook(lambda module, args: chosen.append(args[0].numpy()))
    hidden = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    other = hidden.clone()
    other[:, 1] += 1  # the second token alone is another one
    with torch.no_grad():
        torch.nn.init.normal_(layer.router_gate.weight, generator=torch.Generator().manual_seed(1))
        layer(hidden)
        layer(other)
    handle.remove()
    differs = (np.sort(chosen[0].reshape(8, -1)) != np.sort(chosen[1].reshape(8, -1))).any(axis=1)
    assert differs.any()
    assert not differs[1]


def test_a_family_that_nobody_has_looked_at_is_refused_by_name() -> None:
    class NewRouter(torch.nn.Module):
        pass

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), NewRouter())
    with pytest.raises(UnreadableModel, match=r"it: the routing of the family .* nobody has looked at 1, a NewRouter"):
        find_sites(model, "it")


def test_an_unknown_family_beside_experts_of_the_usual_kind_is_recorded_without_probabilities() -> None:
    from speciate.recording.recorder import record_routing

    class Gate(torch.nn.Module):
        def forward(self, hidden_ND: torch.Tensor) -> Any:
            weight_NK, slot_NK = hidden_ND.topk(2, dim=-1)
            return hidden_ND, weight_NK, slot_NK

    class Experts(torch.nn.Module):
        def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> Any:
            return hidden_states

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = Gate(), Experts()
            self.embedding = torch.nn.Embedding.from_pretrained(torch.eye(4) * 3 + torch.arange(4) * 0.1)

        def forward(self, input_ids: torch.Tensor) -> Any:
            hidden = self.embedding(input_ids).flatten(0, 1)
            _, weights, indices = self.gate(hidden)
            return self.experts(hidden, indices, weights)

    model = Model()
    with record_routing(model) as recording:
        model(torch.tensor([[0, 1], [2, 2]]))
    record = recording.build()
    assert [note.kind for note in record.notes] == ["no_probabilities"]
    (selector,) = record.selectors
    assert not selector.has_probs
    np.testing.assert_allclose(selector.tally.chosen_GS, [[0.5, 0.5, 0, 1], [0, 0, 1, 1]])
