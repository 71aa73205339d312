"""Test the load of a layer: bounds that allow for documents, dead experts, what may be removed."""

import numpy as np
import pytest
from scipy import stats

from speciate.analysis.routing.grouping import group_rows
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.loads import effective_tokens, group_selector, share_upper
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import RoutingRecord

QUICK = JudgeSettings(permutations=19, resamples=199)


def counts_record(counts_GS: np.ndarray, k: int = 1) -> RoutingRecord:
    builder = RecordBuilder("counts")
    for number, count_S in enumerate(counts_GS):
        builder.add_counts(
            SelectorShape("layer 0", 0, counts_GS.shape[1], k), builder.row(f"document {number}"), count_S
        )
    return builder.build()


def tokens_worth(record: RoutingRecord) -> float:
    return effective_tokens(group_selector(record.selectors[0], group_rows(record, QUICK)))


def test_documents_whose_tokens_all_choose_alike_count_as_one_token_each() -> None:
    counts_GS = np.zeros((30, 3), dtype=int)
    counts_GS[np.arange(30), np.arange(30) % 3] = 100
    assert tokens_worth(counts_record(counts_GS)) == pytest.approx(30, rel=0.05)


def test_independent_tokens_are_worth_themselves() -> None:
    counts_GS = np.random.default_rng(0).multinomial(1000, [0.5, 0.3, 0.2], size=200)
    assert 0.8 * 200_000 < tokens_worth(counts_record(counts_GS)) <= 200_000


def test_the_bound_of_a_dead_expert_is_clopper_pearsons() -> None:
    assert share_upper(np.zeros(1), 1, 100, 0.95)[0] == pytest.approx(1 - 0.05 ** (1 / 100))
    expected = stats.binomtest(3, 40).proportion_ci(0.90, method="exact").high
    assert share_upper(np.array([3 / 40 / 2]), 2, 40, 0.95)[0] == pytest.approx(expected / 2)


def test_dead_experts_are_bounded_by_documents_and_not_by_tokens() -> None:
    draw = np.random.default_rng(1)
    counts_GS = np.zeros((40, 5), dtype=int)
    for row in counts_GS:  # a document has two experts of its own; expert 4 none
        row[draw.choice(4, 2, replace=False)] = 500
    judgement = judge(counts_record(counts_GS), QUICK)
    row = judgement.tables["layers"].iloc[0]
    assert row["dead_experts"] == 1
    assert row["dead_share_high"] / 50 > 1 - 0.05 ** (1 / 40_000)
    assert 0.02 < row["dead_share_high"] < 0.15
    experts = judgement.tables["experts"]
    assert experts["is_dead"].to_list() == [False] * 4 + [True]
    assert experts["share_high"][4] == pytest.approx(row["dead_share_high"])
    assert not experts["removable"].any()  # forty documents are too few to say so


def test_an_expert_is_removable_when_its_upper_bound_is_small() -> None:
    counts_GS = np.random.default_rng(2).multinomial(2000, [0.5, 0.2495, 0.2495, 0.001, 0.0], size=100)
    experts = judge(counts_record(counts_GS), QUICK).tables["experts"]
    assert experts["removable"].to_list() == [False, False, False, True, True]
    assert experts["share_high"][3] < 0.0015


def test_an_even_router_is_at_its_noise_floor() -> None:
    counts_GS = np.random.default_rng(3).multinomial(50, np.full(8, 1 / 8), size=40)
    row = judge(counts_record(counts_GS), QUICK).tables["layers"].iloc[0]
    assert row["max_vio"] < 1.5 * row["noise_floor"]
    assert row["state"] == "unlabelled"
    assert row["max_share_low"] < 1 / 8 < row["max_share_high"]


def test_bounds_of_the_largest_share_hold_the_truth() -> None:
    held, number = 0, 100
    for seed in range(number):
        draw = np.random.default_rng(seed)
        tastes = draw.dirichlet([8.0, 4.0, 4.0, 4.0], size=25)
        counts_GS = np.stack([draw.multinomial(200, taste) for taste in tastes])
        row = judge(counts_record(counts_GS), QUICK).tables["layers"].iloc[0]
        held += row["max_share_low"] <= 0.4 <= row["max_share_high"]
    assert held >= stats.binom.ppf(0.001, number, 0.95)


def test_a_load_at_the_limit_is_undecided_and_says_how_much_text_would_settle_it() -> None:
    draw = np.random.default_rng(4)
    first = draw.binomial(300, np.linspace(0.13, 0.97, 12))  # documents between .13 and .97: mean .55, limit .5
    rest = np.stack([draw.multinomial(300 - taken, np.full(7, 1 / 7)) for taken in first])
    counts_GS = np.concatenate([first[:, None], rest], axis=1)
    assert counts_GS[:, 0].sum() > 0.5 * counts_GS.sum()
    judgement = judge(counts_record(counts_GS), QUICK)
    row = judgement.tables["layers"].iloc[0]
    assert row["state"] == "undecided"
    assert row["documents_needed"] > 12
    assert "may have collapsed" in row["sentence"] and f"{int(row['documents_needed']):,}" in row["sentence"]
    assert "more_text" in {note.kind for note in judgement.unsaid}
    assert judgement.headline == "Layer 0 may have collapsed."
