"""Test shadow routers: they choose by the same rule on the same hidden states, and touch nothing."""

import numpy as np
import pytest
import torch
from tests.recording.families import BLOCK_LENGTH, TEXTS, LetterTokenizer, calls, inputs, record
from tests.recording.tiny import NUM_CHOSEN, NUM_EXPERTS, tiny_model

from speciate.recording.record_model import record_model
from speciate.recording.router_call import Rule
from speciate.recording.scores import FUNCTIONS
from speciate.recording.shadows import HASH, choose, hashed_slots, seed_of, spread
from speciate.selection.record_sums import SelectorShape

PATH = "model.layers.1.mlp.gate"


def test_random_routers_choose_by_a_random_matrix_on_what_the_router_sees() -> None:
    model = tiny_model("mixtral")
    made = record_model(model, LetterTokenizer(), TEXTS, block_length=BLOCK_LENGTH, shadows=3, seed=7)
    assert list(made.shadows) == ["random 1", "random 2", "random 3", HASH]
    gate = model.get_submodule(PATH)
    (((hidden_ND,), _),) = calls(model, gate)
    real_N = inputs(model)["attention_mask"].flatten().bool()
    hidden_ND = hidden_ND[real_N]
    # by hand: the matrices of this seed, scaled so that their logits spread as the router's do
    draw = torch.Generator().manual_seed(seed_of(7, PATH))
    drawn = torch.randn(3 * NUM_EXPERTS, 32, generator=draw).view(3, NUM_EXPERTS, 32)
    own_NS = hidden_ND @ gate.weight.detach().T
    logits_RNS = torch.stack([hidden_ND @ matrix.T for matrix in drawn])
    logits_RNS *= (own_NS.var(-1, unbiased=False).mean() / logits_RNS.var(-1, unbiased=False).mean()).sqrt()
    rows = np.repeat(np.arange(len(TEXTS)), [len(text.text) for text in TEXTS])
    for number in range(3):
        (shadow,) = (one for one in made.shadows[f"random {number + 1}"] if one.path == PATH)
        probs_NS = logits_RNS[number].softmax(-1).detach().numpy()
        chosen_NS = np.zeros_like(probs_NS)
        np.put_along_axis(chosen_NS, np.argsort(-probs_NS, axis=1)[:, :NUM_CHOSEN], 1 / NUM_CHOSEN, axis=1)
        for row in range(len(TEXTS)):
            np.testing.assert_allclose(shadow.tally.probs_GS[row], probs_NS[rows == row].sum(0), rtol=1e-4)
            np.testing.assert_allclose(shadow.tally.chosen_GS[row], chosen_NS[rows == row].sum(0), atol=1e-9)
    # as committed as the router that it shadows, roughly: that is what the scale is for
    own = next(one for one in made.selectors if one.path == PATH).tally
    assert 0.3 < shadow.tally.divergence_G.sum() / own.divergence_G.sum() < 3


def test_shadows_stand_beside_every_router_and_document_of_the_record() -> None:
    made = record("deepseek_v2", shadows=2).record
    for selectors in made.shadows.values():
        assert [one.path for one in selectors] == [one.path for one in made.selectors]
        for one, own in zip(selectors, made.selectors, strict=True):
            assert (one.num_slots, one.num_chosen) == (own.num_slots, own.num_chosen)
            np.testing.assert_array_equal(one.tally.decisions_G, own.tally.decisions_G)


def test_a_hash_sends_a_token_to_the_same_experts_in_every_text() -> None:
    shape = SelectorShape("layer 3", 3, 6, 3)
    token_N = np.arange(3000)
    slot_NK = hashed_slots(token_N, shape, seed=0)
    np.testing.assert_array_equal(slot_NK, hashed_slots(token_N, shape, seed=0))
    assert (np.sort(slot_NK, axis=1)[:, 1:] > np.sort(slot_NK, axis=1)[:, :-1]).all()  # k different ones
    counts = np.bincount(slot_NK.ravel(), minlength=6)
    assert abs(counts / counts.mean() - 1).max() < 0.05
    assert (hashed_slots(token_N, SelectorShape("layer 4", 4, 6, 3), seed=0) != slot_NK).any()
    assert (hashed_slots(token_N, shape, seed=1) != slot_NK).any()


@pytest.mark.parametrize("best_in_group", [1, 2])
def test_a_shadow_is_limited_to_as_many_groups_as_its_router(best_in_group: int) -> None:
    logits_NS = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    slot_NK = choose(logits_NS, 3, Rule("sigmoid", num_groups=4, kept_groups=2, best_in_group=best_in_group))
    for logits_S, slots in zip(logits_NS, slot_NK.tolist(), strict=True):
        score = FUNCTIONS["sigmoid"](logits_S).view(4, 3)
        value = score.sort(descending=True).values[:, :best_in_group].sum(1)
        kept = set(value.argsort(descending=True)[:2].tolist())
        allowed = [slot for slot in range(12) if slot // 3 in kept]
        assert slots == sorted(allowed, key=lambda slot: -float(logits_S[slot]))[:3]


def test_a_routers_groups_are_those_of_its_shadows() -> None:
    from tests.recording.tiny import model_class, tiny_config

    from speciate.recording.sites import find_sites

    for family, best in (("deepseek_v3", 2), ("deepseek_v2", 1)):
        settings = {"n_group": 4, "topk_group": 2} | ({"topk_method": "group_limited_greedy"} if best == 1 else {})
        (site,) = find_sites(model_class(family)(tiny_config(family, **settings)))
        assert (site.rule.num_groups, site.rule.kept_groups, site.rule.best_in_group) == (4, 2, best)
    assert spread(torch.tensor([[1.0, 3.0], [0.0, 0.0]])) == pytest.approx(0.5**0.5)
