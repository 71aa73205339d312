"""Test that this package's own models are recorded by the same code, and come out as its observer has them."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.every_kind import CONTEXT, VOCABULARY, allowed_in, model_settings

from speciate.config.run import ModelSpec
from speciate.evaluation.interventions import INTERVENTIONS
from speciate.evaluation.overrides import Call, override
from speciate.model.hf.auto_classes import SpeciateConfig, SpeciateForCausalLM
from speciate.model.moe.top_k_router import TopK
from speciate.recording.recorder import record_routing
from speciate.recording.rerouting.reroute import altered_logits, without_slots
from speciate.recording.sites import find_sites
from speciate.selection.selection import record_selections, selectors
from speciate.selection.tally import tally
from speciate.selection.text import Text

MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none"}
MODELS: dict[str, dict[str, Any]] = {
    "experts": {"ffn": MOE},
    "sigmoid": {"ffn": {**MOE, "router": {"kind": "learned", "gate": "sigmoid"}, "balance": "bias", "top_k": 2}},
    "hashed": {"ffn": {**MOE, "router": "hash"}},
    "experts choose": {"ffn": {**MOE, "choice": {"kind": "expert", "non_causal": True}}},
    "keys": {"mixer": next(value for name, value in allowed_in("mixer").items() if name.startswith("gsa("))},
    "depth": {"depth": {"kind": "mod"}, "ffn": MOE},
}


def build(settings: dict[str, Any]) -> SpeciateForCausalLM:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate(model_settings(**settings))
    return SpeciateForCausalLM(SpeciateConfig(spec.model_dump(mode="json"), VOCABULARY)).eval()


def padded() -> tuple[torch.Tensor, torch.Tensor]:
    token_BT = torch.from_numpy(np.random.default_rng(0).integers(0, VOCABULARY - 1, (3, CONTEXT)))
    mask_BT = torch.ones_like(token_BT)
    mask_BT[1, CONTEXT - 5 :] = 0
    return token_BT, mask_BT


@pytest.mark.parametrize("name", MODELS)
def test_its_record_is_the_tally_of_its_selections(name: str) -> None:
    model, (token_BT, mask_BT) = build(MODELS[name]), padded()
    with torch.no_grad():
        with record_selections(model) as selections:
            model(token_BT, attention_mask=mask_BT, use_cache=False)
        with record_routing(model) as recording:
            recording.texts = [Text(f"text {row}", "", "ab"[row % 2]) for row in range(3)]
            model(input_ids=token_BT, attention_mask=mask_BT, use_cache=False)
    record = recording.build()
    assert {selector.path for selector in record.selectors} == set(selections)
    for selector in record.selectors:
        selection = selections[selector.path]
        expected = tally(selection, selection.token_N // CONTEXT, 3)
        np.testing.assert_allclose(selector.tally.decisions_G, expected.decisions_G)
        for part in ("chosen_GS", "null_GS", "probs_GS", "entropy_G", "divergence_G"):
            value, other = getattr(selector.tally, part), getattr(expected, part)
            if np.isfinite(other).all():  # a hash's probabilities may leave the null's support
                np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-4, err_msg=f"{selector.path} {part}")


@pytest.mark.parametrize("name", ["experts", "sigmoid"])
def test_a_masked_expert_is_the_one_that_an_intervention_masks(name: str) -> None:
    model, (token_BT, _) = build(MODELS[name]), padded()
    (site, *_) = (site for site in find_sites(model) if site.reroutes)
    router = selectors(model)[site.path]
    assert isinstance(router, TopK)
    change = INTERVENTIONS["masked_slot"].change_of(router)
    load_DS = torch.full((1, 4), 0.25)

    def masked(args: Any, output: Any) -> Any:
        return change(Call(router, args, output, torch.Generator(), load_DS, 2))

    gone_NS = (torch.arange(4) == 2).expand(token_BT.numel(), 4)
    with torch.no_grad():
        plain = model(token_BT, use_cache=False).logits
        with override(router, masked):
            expected = model(token_BT, use_cache=False).logits
        with altered_logits(site.routers[0], token_BT.numel(), 4, alter=without_slots(gone_NS)):
            rerouted = model(token_BT, use_cache=False).logits
    assert not torch.allclose(plain, expected)
    torch.testing.assert_close(rerouted, expected, rtol=1e-4, atol=1e-5)
