"""Test the comparison of two records: agreement, divergence and flips by hand, and that a difference is no chance."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from tests.analysis.routing.planted import Texts, choose, router, selectors_of, texts

from speciate.analysis.routing.against import judge_against
from speciate.analysis.routing.comparison.choices import rank_overlap
from speciate.analysis.routing.comparison.matching import match_records
from speciate.analysis.routing.judgement import TABLES
from speciate.analysis.routing.settings import JudgeSettings
from speciate.selection.routing_record import RoutingRecord

QUICK = JudgeSettings(permutations=199, resamples=199)


def pair(
    seed: int = 0, flipped: float = 0.1, slots: int = 8, documents: int = 10
) -> tuple[Texts, np.ndarray, np.ndarray]:
    """Return texts, choices of top-2, and the same where some second choices went to one expert."""
    draw = np.random.default_rng(seed)
    given = texts(draw, documents=documents)
    one_NK = router("token", draw, given, slots, 2)
    other_NK = one_NK.copy()
    moved_N = (draw.random(len(one_NK)) < flipped) & (one_NK != 5).all(axis=1)
    other_NK[moved_N, 1] = 5
    return given, one_NK, other_NK


def test_agreement_divergence_and_moves_are_those_counted_by_hand() -> None:
    given, one_NK, other_NK = pair()
    judgement = judge_against(
        selectors_of(given, {"x": one_NK}, 8), replace(selectors_of(given, {"x": other_NK}, 8), source="after"), QUICK
    )
    for name in ("agreement", "moves"):
        assert list(judgement.tables[name].columns) == list(TABLES[name])
    row = judgement.tables["agreement"].iloc[0]
    flipped = (one_NK != other_NK).any(axis=1).mean()
    assert row["tokens"] == len(one_NK) and row["same_first"] == 1
    assert row["overlap"] == pytest.approx(1 - flipped / 2)
    assert row["rank_overlap"] == pytest.approx(1 - flipped / 4)
    loads = [np.bincount(choice_NK.ravel(), minlength=8) / choice_NK.size for choice_NK in (one_NK, other_NK)]
    chance = 2 * (loads[0] * loads[1]).sum()
    assert row["kappa"] == pytest.approx((1 - flipped / 2 - chance) / (1 - chance))
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]
    assert row["divergence_bits"] == pytest.approx(jensenshannon(*loads, base=2) ** 2)
    assert row["divergence_low"] < row["divergence_bits"] < row["divergence_high"]
    assert row["moved_expert"] == 5 and row["moved_share"] == pytest.approx(loads[1][5] - loads[0][5])
    assert row["p_value"] == 1 / 200
    moves = judgement.tables["moves"]
    assert moves["moved"].to_list() == pytest.approx((loads[1] - loads[0]).tolist())
    assert moves["q_value"][5] <= 0.05 and moves["moved_low"][5] > 0
    assert judgement.against == "after"
    assert "tokens keep" in judgement.headline and "1 of 1 layers moved by more than chance" in judgement.headline
    assert "no_margins" in {note.kind for note in judgement.unsaid}
    assert set(judgement.tables) >= {"layers", "experts", "lifts", "pairs", "tokens"}


def test_a_record_agrees_with_itself() -> None:
    given, one_NK, _ = pair()
    record = selectors_of(given, {"x": one_NK}, 8)
    row = judge_against(record, record, QUICK).tables["agreement"].iloc[0]
    assert (row["overlap"], row["rank_overlap"], row["kappa"], row["divergence_bits"]) == (1, 1, 1, 0)
    assert row["p_value"] == 1 and row["null_bits"] > 0


def test_two_draws_of_one_router_do_not_differ_by_more_than_chance() -> None:
    rejected, moved, number = 0, 0, 40
    for seed in range(number):
        draw = np.random.default_rng(seed)
        given = texts(draw, labels=2, documents=10, tokens=60)
        score = 0.7 * draw.standard_normal((20, 4))[given.document_N]
        one, other = (selectors_of(given, {"x": choose(draw, score)}, 4) for _ in range(2))
        tables = judge_against(one, other, JudgeSettings(permutations=99, resamples=19)).tables
        rejected += tables["agreement"]["p_value"].item() <= 0.05
        moved += bool((tables["moves"]["q_value"] <= 0.05).any())
    # binomial of 40 with .05: P(> 7) = .001
    assert rejected <= 7 and moved <= 7


def test_choices_that_agree_by_chance_alone_have_no_kappa() -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=10)
    score = np.tile([2.0, 1, 0, 0], (len(given.token_N), 1))
    one, other = (selectors_of(given, {"x": choose(draw, score)}, 4) for _ in range(2))
    row = judge_against(one, other, QUICK).tables["agreement"].iloc[0]
    assert row["overlap"] > 0.35 and row["kappa_low"] < 0 < row["kappa_high"]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 1, 2], [0, 1, 2], 1.0),
        ([0, 1, 2], [0, 2, 1], (1 + 1 / 2 + 1) / 3),
        ([0, 1, 2], [1, 0, 2], (0 + 1 + 1) / 3),
        ([0, 1, 2], [3, 4, 5], 0.0),
        ([0, 1, -1], [0, 1, -1], 1.0),
    ],
)
def test_rank_overlap_by_hand(one: list[int], other: list[int], expected: float) -> None:
    found = rank_overlap(np.array([one], dtype=np.int16), np.array([other], dtype=np.int16))
    assert found == pytest.approx(expected)


def test_flips_are_counted_by_margin() -> None:
    given, one_NK, other_NK = pair(flipped=0.3)
    record, other = (selectors_of(given, {"x": choice_NK}, 8) for choice_NK in (one_NK, other_NK))
    margin = np.where((one_NK != other_NK).any(axis=1), 0.005, 3.0)
    margin[0] = np.nan
    assert record.sample is not None
    record = replace(record, sample=replace(record.sample, margin_LP=margin[None].astype(np.float32)))
    flips = judge_against(record, other, QUICK).tables["flips"]
    assert flips["margin"].to_list() == [0.01, 5.0]
    assert flips["flipped"].to_list() == [1.0, 0.0]
    assert flips["tokens"].sum() == len(one_NK) - 1


def subset(record: RoutingRecord, rows: list[int]) -> RoutingRecord:
    kept = np.zeros(len(record.documents), dtype=np.bool_)
    kept[rows] = True
    return record.of_documents(kept)


def test_documents_are_matched_by_name_and_not_by_place() -> None:
    given, one_NK, other_NK = pair()
    one, other = (selectors_of(given, {"x": choice_NK}, 8) for choice_NK in (one_NK, other_NK))
    one, other = subset(one, [3, 5, 7, 9, 11, 13, 20]), subset(other, [2, 3, 7, 8, 9, 11, 13, 20, 21])
    shuffled = other.documents.iloc[::-1].reset_index(drop=True)
    assert other.sample is not None
    backwards = replace(
        other,
        documents=shuffled,
        selectors=tuple(
            replace(each, tally=type(each.tally)(*(part[::-1] for part in vars(each.tally).values())), first_GS=None)
            for each in other.selectors
        ),
        sample=replace(other.sample, document_P=len(shuffled) - 1 - other.sample.document_P),
    )
    matched = match_records(one, backwards)
    names = ["document 3", "document 7", "document 9", "document 11", "document 13", "document 20"]
    assert matched.one.documents["document"].to_list() == names
    assert matched.other.documents["document"].to_list() == names
    tokens = np.isin(given.document_N, [3, 7, 9, 11, 13, 20])
    assert len(matched.one_N) == tokens.sum()
    row = judge_against(one, backwards, QUICK).tables["agreement"].iloc[0]
    assert row["overlap"] == pytest.approx(1 - (one_NK != other_NK)[tokens].any(axis=1).mean() / 2)
    assert np.isnan(row["same_first"])  # the second record does not know the order
    assert "documents_unmatched" in {note.kind for note in matched.notes}


def test_layers_are_matched_by_path_and_else_by_number() -> None:
    given, one_NK, other_NK = pair(documents=4)
    one = selectors_of(given, {"x": one_NK, "y": one_NK, "z": one_NK}, 8)
    other = selectors_of(given, {"u": other_NK, "v": other_NK}, 8)
    assert match_records(one, other).layers == [(0, 0), (1, 1)]
    renamed = replace(other, selectors=(replace(other.selectors[1], path="layers.2.z"), other.selectors[0]))
    matched = match_records(one, renamed)
    assert matched.layers == [(2, 0)]
    assert "3 layers are in one" in matched.notes[0].text


def test_records_that_cannot_be_compared_are_refused() -> None:
    given, one_NK, _ = pair(documents=4)
    record = selectors_of(given, {"x": one_NK}, 8)
    larger = replace(selectors_of(given, {"x": one_NK}, 16), source="larger")
    with pytest.raises(ValueError, match=r"layers\.0\.x: planted has 8 experts, larger has 16"):
        judge_against(record, larger, QUICK)
    others = replace(record, documents=record.documents.assign(document=[f"text {row}" for row in range(12)]))
    with pytest.raises(ValueError, match=r"no document in common: document 0, .* and 7 more against text 0"):
        judge_against(record, others, QUICK)
    elsewhere = replace(record, selectors=(replace(record.selectors[0], path="gate", layer=7),))
    with pytest.raises(ValueError, match=r"no layer in common, by path or by number: layers\.0\.x against gate"):
        judge_against(record, elsewhere, QUICK)
    assert record.sample is not None
    retokenised = replace(record, sample=replace(record.sample, token_P=record.sample.token_P + 1))
    with pytest.raises(ValueError, match=r"100\.0 % of the tokens at the same document and position have another id"):
        judge_against(record, retokenised, QUICK)


def test_records_without_tokens_are_compared_by_loads() -> None:
    given, one_NK, other_NK = pair(flipped=0.3)
    one, other = (replace(selectors_of(given, {"x": choice_NK}, 8), sample=None) for choice_NK in (one_NK, other_NK))
    judgement = judge_against(one, other, QUICK)
    row = judgement.tables["agreement"].iloc[0]
    assert row["tokens"] == 0 and np.isnan(row["overlap"]) and row["p_value"] == 1 / 200
    assert "flips" not in judgement.tables
    assert "no_common_tokens" in {note.kind for note in judgement.unsaid}
