"""Test the commitment identity and the Tally's sums against scipy, enumeration and cases computed by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from speciate.selection.selection import Selection
from speciate.selection.tally import Tally, commitment, tally

LN2 = math.log(2)


def selection(probs: torch.Tensor, null: torch.Tensor, chosen: torch.Tensor | None = None) -> Selection:
    if chosen is None:
        chosen = torch.nn.functional.one_hot(probs.argmax(-1), probs.shape[1]).to(probs.dtype)
    return Selection(probs, chosen, null, torch.arange(len(probs)), torch.zeros(()))


def random_selection(seed: int, num_decisions: int = 40, num_slots: int = 6) -> Selection:
    draw = torch.Generator().manual_seed(seed)
    probs = torch.softmax(3 * torch.randn(num_decisions, num_slots, generator=draw, dtype=torch.float64), -1)
    null = torch.softmax(torch.randn(num_decisions, num_slots, generator=draw, dtype=torch.float64), -1)
    # some slots are impossible for some decisions under both distributions: an indexer behind a causal mask
    probs[: num_decisions // 2, 0] = 0
    null[: num_decisions // 2, 0] = 0
    return selection(probs / probs.sum(-1, keepdim=True), null / null.sum(-1, keepdim=True))


def all_in_one(chosen: Selection) -> Tally:
    return tally(chosen, torch.zeros(len(chosen.probs_NS), dtype=torch.long), 1)


@pytest.mark.parametrize("seed", range(5))
def test_identity_against_scipy_with_a_null_that_differs_by_decision(seed: int) -> None:
    chosen = random_selection(seed)
    result = all_in_one(chosen).commitment()
    p, q = chosen.probs_NS.numpy(), chosen.null_NS.numpy()
    assert result.committed == pytest.approx(np.mean([stats.entropy(*pair) for pair in zip(p, q, strict=True)]))
    assert result.drift == pytest.approx(stats.entropy(p.mean(0), q.mean(0)))
    assert result.committed == pytest.approx(result.drift + result.information)
    assert min(result.committed, result.drift, result.information) >= 0


@pytest.mark.parametrize("seed", range(3))
def test_information_is_mutual_information_under_a_constant_null(seed: int) -> None:
    probs = random_selection(seed).probs_NS
    result = all_in_one(selection(probs, torch.full((1, probs.shape[1]), 1 / probs.shape[1], dtype=torch.float64)))
    p = probs.numpy()
    joint, slot = p / len(p), p.mean(0)
    by_enumeration = sum(
        joint[n, s] * math.log(joint[n, s] / (slot[s] / len(p)))
        for n in range(len(p))
        for s in range(p.shape[1])
        if joint[n, s] > 0
    )
    assert result.commitment().information == pytest.approx(by_enumeration)


@pytest.mark.parametrize(
    ("probs", "null", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]], (LN2, 0.0, LN2)),  # specialised
        ([[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.5]], (LN2, LN2, 0.0)),  # collapsed
        ([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5]], (0.0, 0.0, 0.0)),  # indifferent
        # does what its null does, so it is indifferent
        ([[1.0, 0.0], [0.5, 0.5]], [[1.0, 0.0], [0.5, 0.5]], (0.0, 0.0, 0.0)),
        # a Mixture-of-Depths of capacity 1/4 that runs every token: 0 nats of information, ln 4 of drift
        ([[0.0, 1.0], [0.0, 1.0]], [[0.75, 0.25]], (math.log(4), math.log(4), 0.0)),
        # half the decisions certain, half not: I = H(3/4, 1/4) - (0 + ln 2) / 2
        (
            [[1.0, 0.0], [0.5, 0.5]],
            [[0.5, 0.5]],
            (LN2 / 2, LN2 - stats.entropy([0.75, 0.25]), stats.entropy([0.75, 0.25]) - LN2 / 2),
        ),
    ],
)
def test_commitment_by_hand(probs: list, null: list, expected: tuple[float, float, float]) -> None:
    result = all_in_one(selection(torch.tensor(probs), torch.tensor(null))).commitment()
    assert (result.committed, result.drift, result.information) == pytest.approx(expected, abs=1e-7)


def test_a_choice_that_the_null_forbids_is_infinitely_far_from_it() -> None:
    result = all_in_one(selection(torch.tensor([[0.5, 0.5], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])))
    assert result.divergence_G[0] == math.inf


def test_sums_by_group_by_hand() -> None:
    probs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    chosen = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    null = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    result = tally(selection(probs, null, chosen), torch.tensor([2, 0, 2]), num_groups=4)
    assert result.decisions_G.tolist() == [1, 0, 2, 0]
    assert result.chosen_GS.tolist() == [[0.5, 0, 0.5], [0, 0, 0], [0.5, 1, 0.5], [0, 0, 0]]
    assert result.probs_GS.tolist() == [[1, 0, 0], [0, 0, 0], [0.5, 0.75, 0.75], [0, 0, 0]]
    np.testing.assert_allclose(result.null_GS, result.decisions_G[:, None] / 3 * np.ones(3))
    np.testing.assert_allclose(result.entropy_G, [0, 0, 1.5 * LN2 + LN2, 0], atol=1e-12)
    np.testing.assert_allclose(result.divergence_G, [math.log(3), 0, 2 * math.log(3) - 2.5 * LN2, 0], atol=1e-12)


def test_tallies_add_over_shards_and_groups() -> None:
    chosen = random_selection(1)
    group_N = torch.arange(40) % 7
    together = tally(chosen, group_N, 7)
    parts = []
    for kept in (slice(0, 13), slice(13, 40)):
        part = Selection(
            chosen.probs_NS[kept], chosen.chosen_NS[kept], chosen.null_NS[kept], chosen.token_N[kept], chosen.loss
        )
        parts.append(tally(part, group_N[kept], 7))
    summed, one = parts[0] + parts[1], all_in_one(chosen)
    for name in Tally.__dataclass_fields__:
        np.testing.assert_allclose(getattr(summed, name), getattr(together, name), rtol=1e-13)
        np.testing.assert_allclose(getattr(together.total(), name), getattr(one, name), rtol=1e-13)
    assert together.commitment().committed == pytest.approx(one.commitment().committed)


def test_a_broadcast_null_is_the_same_null() -> None:
    probs = random_selection(2).probs_NS
    row = torch.full((1, 6), 1 / 6, dtype=torch.float64)
    broadcast, together = all_in_one(selection(probs, row)), all_in_one(selection(probs, row.repeat(40, 1)))
    # other memory layouts: sums over 40 decisions of 6 float64 terms, each rounded on its own
    np.testing.assert_allclose(broadcast.null_GS, together.null_GS, rtol=1e-13)
    np.testing.assert_allclose(broadcast.divergence_G, together.divergence_G, rtol=1e-13)


def test_float32_probabilities_are_summed_in_float64() -> None:
    probs = torch.full((100_000, 2), 0.5) + torch.tensor([1e-4, -1e-4])
    result = all_in_one(selection(probs, torch.tensor([[0.5, 0.5]])))
    assert result.probs_GS.dtype == np.float64
    assert result.probs_GS[0, 0] == pytest.approx(100_000 * float(probs[0, 0]), rel=1e-12)


def test_a_tally_keeps_no_gradient() -> None:
    probs = torch.full((2, 2), 0.5, requires_grad=True)
    assert isinstance(all_in_one(selection(probs, torch.tensor([[0.5, 0.5]]))).probs_GS, np.ndarray)


def test_commitment_refuses_no_decisions_and_several_groups() -> None:
    chosen = random_selection(3)
    with pytest.raises(ValueError, match="one group with decisions"):
        commitment(tally(chosen, torch.arange(40) % 2, 2))
    empty = Selection(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), torch.zeros(()))
    with pytest.raises(ValueError, match="one group with decisions"):
        commitment(tally(empty, torch.zeros(0, dtype=torch.long), 1))
