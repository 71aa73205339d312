"""Test what needs single tokens: against the package's own slower functions, and against planted effects."""

import numpy as np
import pytest
from tests.analysis.routing.planted import router, selectors_of, texts

from speciate.analysis import information
from speciate.analysis.routing.grouping import group_rows
from speciate.analysis.routing.judge import judge
from speciate.analysis.routing.settings import JudgeSettings
from speciate.analysis.routing.single_tokens import by_token, token_types, within
from speciate.analysis.routing.single_tokens.by_token import TokenTables
from speciate.analysis.routing.single_tokens.sample import sampled_tokens
from speciate.selection.routing_record import RoutingRecord

QUICK = JudgeSettings(permutations=199, resamples=99)


def tables_of(record: RoutingRecord, settings: JudgeSettings = QUICK) -> TokenTables:
    groups = group_rows(record, settings)
    tokens = sampled_tokens(record, groups)
    assert tokens is not None
    return TokenTables(tokens, groups)


def one_hot(choice_NK: np.ndarray, slots: int) -> np.ndarray:
    chosen_NS = np.zeros((len(choice_NK), slots))
    np.put_along_axis(chosen_NS, choice_NK, 1 / choice_NK.shape[1], axis=1)
    return chosen_NS


@pytest.mark.parametrize("k", [1, 2])
def test_the_part_that_tokens_explain_is_that_of_the_studys_own_function(k: int) -> None:
    draw = np.random.default_rng(0)
    given = texts(draw, documents=6, tokens=60)
    choice_NK = router("token", draw, given, 8, k)
    tables = tables_of(selectors_of(given, {"token": choice_NK}, 8))
    found = by_token.expected_choices(tables, tables.tokens.choices(0, 8))
    expected = information.token_explained(given.token_N, given.document_N, one_hot(choice_NK, 8), tables.second_G)
    assert found == pytest.approx(expected)


def test_a_router_of_tokens_is_explained_and_a_router_of_labels_is_not() -> None:
    draw = np.random.default_rng(1)
    given = texts(draw)
    record = selectors_of(given, {kind: router(kind, draw, given) for kind in ("token", "label")}, 8)
    layers = judge(record, QUICK).tables["layers"]
    token, label = layers.to_dict("records")
    assert token["token_explained_bits"] == pytest.approx(token["excess_bits"], rel=0.35)
    assert token["beyond_token_p"] > 0.05 and abs(token["beyond_token_bits"]) < 0.02
    assert label["beyond_token_q"] <= 0.05 and label["beyond_token_bits"] > 0.05
    assert label["token_explained_bits"] < label["excess_bits"] / 2


def test_top_tokens_are_those_that_the_expert_takes() -> None:
    draw = np.random.default_rng(2)
    given = texts(draw)
    choice_NK = (given.token_N % 8)[:, None]
    table = judge(selectors_of(given, {"hash": choice_NK}, 8), QUICK).tables["tokens"]
    assert (table["token"] % 8 == table["expert"]).all() and (table["share"] == 1).all()
    row = table.iloc[0]
    assert row["count"] == (given.token_N == row["token"]).sum()
    assert row["lift"] == pytest.approx(len(given.token_N) / (given.token_N % 8 == row["expert"]).sum())
    assert row["piece"] == (f" word{row['token']}" if row["token"] % 3 else str(row["token"]))


def test_an_effect_of_position_is_found_and_no_other() -> None:
    draw = np.random.default_rng(3)
    given = texts(draw, documents=40)
    record = selectors_of(given, {kind: router(kind, draw, given) for kind in ("position", "indifferent")}, 8)
    judgement = judge(record, JudgeSettings(permutations=999, resamples=99))
    by_position, indifferent = judgement.tables["layers"].to_dict("records")
    assert by_position["position_p"] == 0.001 and by_position["position_bits"] > 0.005
    assert indifferent["position_p"] > 0.01 and abs(indifferent["position_bits"]) < 0.005
    shares = judgement.tables["positions"]
    first = shares[(shares["layer"] == 0) & (shares["position"] == 0) & (shares["expert"] == 0)]["share"].item()
    assert first == pytest.approx((record.sample.choice_LPK[0, given.position_N == 0, 0] == 0).mean())


@pytest.mark.parametrize("effect", ["position_p", "document_p", "type_p"])
def test_the_tests_within_and_between_documents_hold_their_level(effect: str) -> None:
    rejected, number = 0, 60
    for seed in range(number):
        draw = np.random.default_rng(seed)
        given = texts(draw, documents=5, tokens=80)
        # documents have tastes, unless the test asks whether they have; position and type never matter
        score = (
            np.zeros((len(given.token_N), 4)) if effect == "document_p" else draw.gumbel(size=(15, 4))[given.document_N]
        )
        choice_NK = np.argmax(score + draw.gumbel(size=score.shape), axis=1)[:, None]
        record = selectors_of(given, {"x": choice_NK}, 4)
        rejected += judge(record, JudgeSettings(permutations=99, resamples=9)).tables["layers"][effect].item() <= 0.05
    assert rejected <= 8  # binomial of 60 with .05: P(> 8) = .002


def test_documents_that_differ_are_found_and_the_bits_are_right() -> None:
    draw = np.random.default_rng(5)
    given = texts(draw, labels=1, documents=60, tokens=200)
    score = 0.7 * draw.standard_normal((60, 4))[given.document_N]
    probability = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
    choice_NK = np.argmax(score + draw.gumbel(size=score.shape), axis=1)[:, None]
    row = judge(selectors_of(given, {"x": choice_NK}, 4, labels=False), QUICK).tables["layers"].iloc[0]
    of_document = np.stack([probability[given.document_N == document][0] for document in range(60)])
    mean = of_document.mean(axis=0)
    true = ((of_document - mean) ** 2 / mean).sum(axis=1).mean() / (2 * np.log(2))
    assert row["document_p"] == 1 / 200
    assert row["document_bits"] == pytest.approx(true, rel=0.15)


def test_position_bins_double_and_join_what_is_rare() -> None:
    position = np.repeat([0, 1, 2, 3, 4, 7, 8], [100, 100, 60, 60, 60, 60, 20])
    of_each, start = within.position_bins(position)
    assert start.tolist() == [0, 1, 2, 4]
    assert [int(of_each[position == value][0]) for value in (0, 1, 2, 3, 4, 7, 8)] == [0, 1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        (" the", "word"),
        ("▁the", "word"),
        ("Ġthe", "word"),
        (" Paris", "capitalised word"),
        ("ing", "part of a word"),
        (" 2024", "number"),
        ("3.14", "number"),
        (",", "punctuation"),
        (' "', "punctuation"),
        ("()", "bracket"),
        (" +=", "symbol"),
        ("Ċ", "space"),
        ("   ", "space"),
        ("<|endoftext|>", "special"),
        ("</s>", "special"),
        (" слово", "other script"),
        (" für", "other script"),
        ("a+b", "other"),
        ("", ""),
    ],
)
def test_types_of_tokens(piece: str, name: str) -> None:
    place = token_types.type_of(piece)
    assert ("" if place < 0 else token_types.NAMES[place]) == name


def test_documents_are_left_out_whole_and_alike_by_label() -> None:
    draw = np.random.default_rng(6)
    given = texts(draw, documents=20, tokens=100)
    record = selectors_of(given, {"x": router("indifferent", draw, given)}, 8)
    tables = tables_of(record, JudgeSettings(most_tokens=2000))
    tokens = tables.tokens
    assert tokens.is_cut and 1500 < tokens.num_tokens <= 2000
    size_G = np.bincount(tokens.group_P, minlength=60)
    whole_G = np.bincount(given.document_N)
    assert ((size_G == 0) | (size_G == whole_G)).all()
    kept_D = np.bincount(given.label_D[size_G > 0], minlength=3)
    assert kept_D.max() - kept_D.min() <= 1
    assert tokens.second_half_P.mean() == pytest.approx(0.5, abs=0.01)
    judgement = judge(record, JudgeSettings(permutations=19, resamples=19, most_tokens=2000))
    assert "sampled" in {note.kind for note in judgement.unsaid}
    assert judgement.facts["sampled_tokens"] == tokens.num_tokens
