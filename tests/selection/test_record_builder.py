"""Test that parts in any order and size add up to the same record, and that its sample holds whole texts."""

import numpy as np
import pytest

from speciate.selection.record_builder import UNKNOWN, RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, RoutingRecord
from speciate.selection.tally import Tally

LAYERS = [SelectorShape(f"model.layers.{layer}.mlp.gate", layer, 6, 2) for layer in range(3)]
RNG = np.random.default_rng(0)
NUM_DOCUMENTS, LENGTH = 40, 25
CHOICE_LPK = np.stack([RNG.permuted(np.tile(np.arange(6), (NUM_DOCUMENTS * LENGTH, 1)), axis=1)[:, :2] for _ in LAYERS])
TOKEN_P = RNG.integers(0, 50, NUM_DOCUMENTS * LENGTH)
DOCUMENT_P = np.repeat(np.arange(NUM_DOCUMENTS), LENGTH)
POSITION_P = np.tile(np.arange(LENGTH), NUM_DOCUMENTS)


def build(parts: list[np.ndarray], *, layer_major: bool, positions: bool, **limits: int) -> RoutingRecord:
    builder = RecordBuilder("made up", **limits)
    row_G = np.array([builder.row(f"text {n}", label="ab"[n % 2]) for n in range(NUM_DOCUMENTS)])
    pairs = [(layer, part) for layer in range(3) for part in parts]
    for layer, part in pairs if layer_major else sorted(pairs, key=lambda pair: pair[1][0]):
        builder.add(
            LAYERS[layer],
            row_G[DOCUMENT_P[part]],
            CHOICE_LPK[layer, part],
            position_N=POSITION_P[part] if positions else None,
            token_N=TOKEN_P[part],
        )
    return builder.build()


EVERYTHING = np.arange(NUM_DOCUMENTS * LENGTH)


@pytest.mark.parametrize("layer_major", [True, False])
@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("most_sampled", [10_000, 300])
def test_parts_in_any_order_give_the_counts_of_the_whole(layer_major: bool, positions: bool, most_sampled: int) -> None:
    parts = np.array_split(EVERYTHING, 7)
    if positions:
        parts = [parts[place] for place in (3, 0, 6, 1, 5, 2, 4)]
    record = build(parts, layer_major=layer_major, positions=positions, most_sampled=most_sampled)
    for layer, selector in enumerate(record.selectors):
        for document in range(NUM_DOCUMENTS):
            choices = CHOICE_LPK[layer, document == DOCUMENT_P]
            expected = np.bincount(choices.ravel(), minlength=6) / 2
            np.testing.assert_array_equal(selector.tally.chosen_GS[document], expected)
            assert selector.first_GS is not None
            np.testing.assert_array_equal(selector.first_GS[document], np.bincount(choices[:, 0], minlength=6))
    np.testing.assert_array_equal(record.selectors[0].tally.decisions_G, LENGTH)

    sample = record.sample
    assert sample is not None
    assert len(sample.token_P) == len(np.unique(sample.document_P)) * LENGTH
    assert (len(sample.token_P) == len(EVERYTHING)) == (most_sampled > len(EVERYTHING))
    assert 0 < len(sample.token_P) <= most_sampled
    place_P = sample.document_P * LENGTH + sample.position_P
    np.testing.assert_array_equal(sample.token_P, TOKEN_P[place_P])
    np.testing.assert_array_equal(sample.choice_LPK, CHOICE_LPK[:, place_P])


def test_a_token_without_a_decision_in_a_layer_is_marked() -> None:
    builder = RecordBuilder("made up")
    row = builder.row("text")
    builder.add(LAYERS[0], np.array([row, row]), np.array([[0, 1], [2, 3]]), position_N=np.array([0, 1]))
    builder.add(LAYERS[1], np.array([row]), np.array([[4, NOT_CHOSEN]]), position_N=np.array([1]))
    record = builder.build()
    assert record.sample is not None
    np.testing.assert_array_equal(record.sample.choice_LPK[1], [[-1, -1], [4, -1]])
    np.testing.assert_array_equal(record.selectors[1].tally.chosen_GS, [[0, 0, 0, 0, 1, 0]])


def test_probabilities_give_the_entropy_and_the_divergence_from_an_even_router() -> None:
    builder = RecordBuilder("made up")
    row = builder.row("text")
    probs_NS = np.array([[0.5, 0.5, 0, 0, 0, 0], [1 / 6] * 6])
    builder.add(LAYERS[0], np.array([row, row]), np.array([[0, 1], [2, 3]]), probs_NS=probs_NS)
    tally = builder.build().selectors[0].tally
    np.testing.assert_allclose(tally.entropy_G, np.log(2) + np.log(6))
    np.testing.assert_allclose(tally.divergence_G, np.log(6) - np.log(2))
    np.testing.assert_allclose(tally.commitment().committed, (np.log(6) - np.log(2)) / 2)


def test_documents_beyond_the_limit_share_rows_of_their_label() -> None:
    record = build([EVERYTHING], layer_major=True, positions=True, most_documents=8)
    assert 4 <= len(record.documents) <= 8
    shares = [sum(CHOICE_LPK[0, label == DOCUMENT_P % 2].ravel() == 5) / 2 for label in (0, 1)]
    of_label = (record.documents["label"] == "a").to_numpy()
    assert [record.selectors[0].tally.chosen_GS[kept, 5].sum() for kept in (of_label, ~of_label)] == shares


def test_an_expert_out_of_range_is_refused_by_layer() -> None:
    builder = RecordBuilder("made up")
    row = builder.row("text")
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.gate: expert 6 is out of range: it has 6 experts"):
        builder.add(LAYERS[0], np.array([row]), np.array([[6, 0]]))
    with pytest.raises(ValueError, match=r"there is no routing decision in it"):
        builder.build()


def many_documents(labels: list[str], most_documents: int) -> RoutingRecord:
    builder = RecordBuilder("made up", most_documents=most_documents)
    for number, label in enumerate(labels):
        row = builder.row(f"text {number}", label=label)
        # expert 5 tells the document's number modulo 3 by how often it is chosen
        choice_NK = np.array([[0, 5]] * (number % 3) + [[0, 1]] * (5 - number % 3))
        builder.add(LAYERS[0], np.full(5, row), choice_NK, position_N=np.arange(5), token_N=np.full(5, number))
    return builder.build()


def test_a_label_that_comes_last_has_as_many_rows_as_the_first() -> None:
    labels = ["first"] * 3000 + ["last"] * 3000 + ["rare"] * 20
    record = many_documents(labels, 512)
    rows = record.documents["label"].value_counts()
    assert len(record.documents) <= 512
    assert rows["rare"] == 20  # a label with few documents keeps a row for each
    assert rows["first"] >= 100 and rows["last"] >= 100
    assert max(rows["first"], rows["last"]) < 1.5 * min(rows["first"], rows["last"])
    for label in ("first", "last", "rare"):
        expected = sum(number % 3 for number, name in enumerate(labels) if name == label) / 2
        kept = (record.documents["label"] == label).to_numpy()
        assert record.selectors[0].tally.chosen_GS[kept, 5].sum() == expected


def test_documents_of_a_group_share_a_row_before_others_do() -> None:
    builder = RecordBuilder("made up", most_documents=512)
    for number in range(4000):
        row = builder.row(f"text {number}", label="one label", group=f"group {number // 4}")
        builder.add(LAYERS[0], np.array([row]), np.array([[number % 4, 5]]))
    record = builder.build()
    assert record.sample is not None
    alone = np.bincount(record.sample.document_P, minlength=len(record.documents)) > 0
    assert 0 < alone.sum() < len(record.documents) <= 512
    shared = record.selectors[0].tally.chosen_GS[~alone]
    # each group has chosen experts 0 to 3 once, so a row that has whole groups has chosen them alike
    assert (shared[:, :4] == shared[:, :1]).all() and shared.sum() > 0


def test_the_sample_still_holds_whole_documents_where_others_share_rows() -> None:
    record = many_documents(["one label"] * 5000, 256)
    sample = record.sample
    assert sample is not None
    documents, counts = np.unique(sample.document_P, return_counts=True)
    assert len(documents) >= 16 and (counts == 5).all()
    for row in documents:
        number = int(record.documents["document"][row].split()[1])
        assert (sample.token_P[sample.document_P == row] == number).all()
        chose_5 = (sample.choice_LPK[0, sample.document_P == row] == 5).sum()
        assert chose_5 == number % 3 == round(record.selectors[0].tally.chosen_GS[row, 5] * 2)


def test_without_a_number_of_experts_the_largest_choice_of_any_layer_tells_it() -> None:
    builder = RecordBuilder("made up")
    row = builder.row("text")
    for layer, largest in enumerate((3, 6)):
        shape = SelectorShape(f"layer {layer}", layer, UNKNOWN, 2)
        builder.add(shape, np.array([row, row]), np.array([[0, 1], [2, largest]]))
    record = builder.build()
    assert [selector.num_slots for selector in record.selectors] == [7, 7]
    np.testing.assert_array_equal(record.selectors[0].tally.null_GS, [[2 / 7] * 7])
    np.testing.assert_array_equal(record.selectors[0].tally.chosen_GS, [[0.5, 0.5, 0.5, 0.5, 0, 0, 0]])


def test_sums_that_the_source_made_keep_their_own_null() -> None:
    null_GS = np.array([[3.0, 1.0], [6.0, 2.0]])
    given = Tally(np.array([4.0, 8.0]), null_GS + 1, null_GS + 2, null_GS, np.array([0.1, 0.2]), np.array([1.0, 2.0]))
    builder = RecordBuilder("made up")
    rows = np.array([builder.row("b"), builder.row("a")])
    shape = SelectorShape("blocks.0.depth", 0, 2, 1.5)
    builder.add_tally(shape, rows, given)
    builder.add_to_sample(shape, rows, np.array([[1], [0]]))
    record = builder.build()
    for name in Tally.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(record.selectors[0].tally, name), getattr(given, name))
    assert record.sample is not None
    np.testing.assert_array_equal(record.sample.choice_LPK, [[[1], [0]]])


def test_tokens_that_are_there_twice_are_noted() -> None:
    builder = RecordBuilder("made up")
    row = builder.row("text")
    for _ in range(2):
        builder.add(LAYERS[0], np.array([row, row]), np.array([[0, 1], [2, 3]]), position_N=np.array([0, 1]))
    (found,) = builder.build().notes
    assert found.kind == "duplicated_tokens"
    assert found.text.startswith("50% of the tokens of model.layers.0.mlp.gate are there more than once")
