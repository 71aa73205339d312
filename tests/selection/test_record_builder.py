"""Test that parts in any order and size add up to the same record, and that its sample holds whole texts."""

import numpy as np
import pytest

from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, RoutingRecord

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
    assert len(record.documents) == 8
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
