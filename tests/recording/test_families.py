"""Test every family of transformers that has routed experts, at a tiny random size.

Each is checked against something that does not look at the recorded choices: which weights change a token's output, the
family's own weights of the chosen experts, the same texts alone, and the same tokens in one forward pass.
"""

import re

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.recording.families import BLOCK_LENGTH, TEXTS, inputs, record, recorded, served
from tests.recording.tiny import MODELS, NUM_CHOSEN, NUM_EXPERTS, model_class, tiny_model

from speciate.recording.families import READ, REFUSED
from speciate.recording.recorder import record_routing
from speciate.recording.rerouting.reroute import altered_logits, without_slots
from speciate.recording.sites import UnreadableModel, find_sites
from speciate.selection.text import Text

NOT_ROUTED = {
    "bamba": "its number of experts is 1",
    "cosmos3_omni": "its expert is the tower that makes pictures",
    "decision_transformer": "its expert is the player that it learns from",
    "evolla": "its expert is a word of the prompt",
    "gemma3n": "its router mixes copies of the hidden states, and chooses none",
    "gemma4_unified": "names router logits of the models that it may hold, and has no expert itself",
    "granite_docling": "its router scores whole pictures",
    "vitpose": "its experts are those of vitpose_backbone",
}
"""Family whose source names experts, routers or indexers -> why it has none that chooses."""
NAMES = re.compile(r"\b\w*(Experts?|Router|Indexer)\b|\b(experts?|router|indexer)\b|router_logits|num_experts")

SLOTS = {"longcat_flash": NUM_EXPERTS + 4, "zaya": NUM_EXPERTS + 1}
"""Family -> its number of slots, where that is not the number of experts."""
CHOSEN = {"phimoe": 2, "switch_transformers": 1, "zaya": 1}
"""Family -> its k, where its tiny model cannot choose as many as the others."""
OWN_WEIGHTS = {"phimoe"}
"""Families whose weights are in no proportion to the probabilities: SparseMixer drops what is far below the best."""
SHIFTING = {"ernie4_5_moe", "ernie4_5_vl_moe", "longcat_flash", "switch_transformers"}
"""Families in which a token may leave its other experts, too: a bias is added to a softmax, which is now larger; or the
next best is full."""
FAMILIES = sorted(READ)
CLOSE = 1e-4
"""A choice whose margin is smaller may fall out otherwise where sums are made in another order."""


def routers(family: str) -> list[str]:
    """Return the paths of a family's recorded routers of experts."""
    return [path for path, shape in recorded(family).decisions.shapes.items()]


def test_every_family_with_routers_has_been_looked_at() -> None:
    """A version of transformers with a family that nobody has looked at fails here, by name."""
    named = {file.parent.name for file in MODELS.glob("*/modeling_*.py") if NAMES.search(file.read_text())}
    unknown = named - set(READ) - set(REFUSED) - set(NOT_ROUTED)
    assert not unknown, f"look at the routing of {sorted(unknown)}, and list it in recording/families.py"
    gone = (set(READ) | set(REFUSED) | set(NOT_ROUTED)) - {file.parent.name for file in MODELS.glob("*/modeling_*.py")}
    assert not gone, f"transformers has no longer {sorted(gone)}"


@pytest.mark.parametrize("family", FAMILIES)
def test_choices_are_those_that_the_experts_serve(family: str) -> None:
    model = tiny_model(family)
    assert routers(family)
    for path in routers(family):
        choice_NK = recorded(family).decisions.all(path, "choice_NK")
        chosen_NS = np.zeros((len(choice_NK), 1 + SLOTS.get(family, NUM_EXPERTS)), dtype=bool)
        np.put_along_axis(chosen_NS, choice_NK, True, axis=1)
        np.testing.assert_array_equal(chosen_NS[:, :NUM_EXPERTS], served(model, path), err_msg=path)


@pytest.mark.parametrize("family", FAMILIES)
def test_probabilities_are_the_familys_own(family: str) -> None:
    """A family's weights of the chosen experts are their probabilities times what is the same for all of them."""
    for path in routers(family):
        decisions = recorded(family).decisions
        probs_NS, choice_NK = decisions.all(path, "probs_NS"), decisions.all(path, "choice_NK")
        np.testing.assert_allclose(probs_NS.sum(axis=1), 1, rtol=1e-5)
        assert probs_NS.std(axis=1).max() > 0.02  # far from uniform, where every score function would agree
        weight_NK, kept_N = decisions.all(path, "weight_NK"), (choice_NK >= 0).all(axis=1)
        skipped_N = choice_NK[:, 0] == NUM_EXPERTS if family == "zaya" else np.zeros(len(kept_N), dtype=bool)
        ratio_NK = (weight_NK / np.take_along_axis(probs_NS, choice_NK, axis=1))[kept_N & ~skipped_N]
        if family in OWN_WEIGHTS:
            continue
        np.testing.assert_allclose(ratio_NK, np.broadcast_to(ratio_NK[:, :1], ratio_NK.shape), rtol=1e-3, err_msg=path)


@pytest.mark.parametrize("family", FAMILIES)
def test_k_and_the_number_of_experts_are_those_of_the_config(family: str) -> None:
    for path in routers(family):
        shape = recorded(family).decisions.shapes[path]
        assert (shape.num_slots, shape.num_chosen) == (
            SLOTS.get(family, NUM_EXPERTS),
            CHOSEN.get(family, NUM_CHOSEN),
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_is_left_out(family: str) -> None:
    """A text alone is routed as it is in a batch with longer ones."""
    together = recorded(family).decisions
    alone = record(family, batch_size=1).decisions
    for path in routers(family):
        assert len(together.all(path, "choice_NK")) == sum(len(text.text) for text in TEXTS)
        assert_same_choices(together.all(path, "choice_NK"), alone.all(path, "choice_NK"), margins(family, path))


@pytest.mark.parametrize("family", FAMILIES)
def test_recording_changes_no_bit_of_the_output(family: str) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        before = model(**inputs(model), use_cache=False)[0]
        with record_routing(model, shadows=2):
            during = model(**inputs(model), use_cache=False)[0]
    assert torch.equal(before, during)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_masked_expert_serves_nobody_and_only_its_tokens_are_rerouted(family: str) -> None:
    """Every family reroutes by its own rule, of which nothing is known here but what its experts then serve."""
    model = tiny_model(family)
    for site in find_sites(model):
        if not site.reroutes or site.path not in routers(family):
            continue
        choice_NK = recorded(family).decisions.all(site.path, "choice_NK")
        expert = int(np.bincount(choice_NK[choice_NK >= 0]).argmax())
        num_slots = SLOTS.get(family, NUM_EXPERTS)
        num_tokens = inputs(model)["input_ids"].numel()
        gone_NS = torch.zeros(num_tokens, num_slots, dtype=torch.bool)
        gone_NS[:, expert] = True
        with altered_logits(site.routers[0], num_tokens, num_slots, alter=without_slots(gone_NS)):
            rerouted_NK = record(family).decisions.all(site.path, "choice_NK")
        assert (choice_NK == expert).any()
        assert not (rerouted_NK == expert).any()
        had_N = (choice_NK == expert).any(axis=1)
        np.testing.assert_array_equal(rerouted_NK[~had_N], choice_NK[~had_N])
        if family not in SHIFTING:
            for before, after in zip(choice_NK[had_N], rerouted_NK[had_N], strict=True):
                assert set(before) - {expert} <= set(after)
                assert len(set(after)) == len(after)


GENERATING = [family for family in FAMILIES if model_class(family).can_generate() and family != "switch_transformers"]


@pytest.mark.parametrize("family", GENERATING)
def test_generated_tokens_are_routed_as_the_same_text_read_at_once(family: str) -> None:
    """Prompt and generation are apart, and each token has the choices that it has without a cache."""
    prompt = Text("prompt", TEXTS[2].text[:7])
    run = record(family, [prompt], generate=4)
    documents = run.record.documents
    if list(documents["phase"]) == ["prompt"]:
        pytest.skip("it generated the end of the text at once")
    assert list(documents["phase"]) == ["prompt", "generation"]
    assert documents["num_tokens"][0] == len(prompt.text)
    for path in run.decisions.shapes:
        token_N = run.decisions.all(path, "token_N")
        assert list(run.decisions.all(path, "position_N")) == list(range(len(token_N)))
        letters = "".join(chr(int(token) + 94) for token in token_N)
        at_once = record(family, [Text("at once", letters)]).decisions
        assert list(at_once.all(path, "token_N")) == list(token_N)
        margin_N = at_once.all(path, "margin_N") if "margin_N" in at_once.parts[path][0] else np.ones(len(token_N))
        assert_same_choices(run.decisions.all(path, "choice_NK"), at_once.all(path, "choice_NK"), margin_N)


@pytest.mark.parametrize("family", sorted(set(REFUSED) - {"vitpose_backbone"}))
def test_a_family_that_cannot_be_read_is_refused_by_name(family: str) -> None:
    with pytest.raises(UnreadableModel, match=rf"the family {family} is not recorded: "):
        find_sites(tiny_model(family), "it")


def margins(family: str, path: str) -> npt.NDArray[np.float64]:
    """Return the margin of each decision; 1 where the router has none."""
    decisions = recorded(family).decisions
    if "margin_N" not in decisions.parts[path][0]:
        return np.ones(len(decisions.all(path, "choice_NK")))
    margin_N: npt.NDArray[np.float64] = decisions.all(path, "margin_N")
    return margin_N


def assert_same_choices(
    choice_NK: npt.NDArray[np.int64], other_NK: npt.NDArray[np.int64], margin_N: npt.NDArray[np.float64]
) -> None:
    """Check that choices are the same sets, but where a router hardly preferred what it chose."""
    clear_N = ~(np.abs(margin_N) < CLOSE)
    assert clear_N.mean() > 0.7
    same_N = (np.sort(choice_NK, axis=1) == np.sort(other_NK, axis=1)).all(axis=1)
    # an indexer's tie may change what a token sees, and a bias may make a close choice of a clear one
    assert same_N[clear_N].mean() > 0.95


assert max(len(text.text) for text in TEXTS) <= BLOCK_LENGTH
