"""What the tests of readers compare with: counts made from the choices that a fixture was written from."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.routing_record import RoutingRecord

Choices = npt.NDArray[np.int64]


def draw(seed: int, tokens: int, layers: int, experts: int, k: int) -> Choices:
    """Return choices [tokens, layers, k] without replacement, in no order of their numbers."""
    rng = np.random.default_rng(seed)
    every = np.tile(np.arange(experts), (tokens, layers, 1))
    return rng.permuted(every, axis=-1)[..., :k]


def kinds(record: RoutingRecord) -> set[str]:
    return {note.kind for note in record.notes}


def assert_holds(
    record: RoutingRecord, of_document: Mapping[tuple[str, str], Choices], experts: int, first: bool = True
) -> None:
    """Assert that a record has these choices [tokens, layers, k] of each (document, phase), and no others."""
    rows = list(zip(record.documents["document"], record.documents["phase"], strict=True))
    assert sorted(rows) == sorted(of_document)
    for number, key in enumerate(rows):
        choices = of_document[key]
        for layer, selector in enumerate(record.selectors):
            assert selector.num_slots == experts
            count = np.bincount(choices[:, layer].ravel(), minlength=experts)
            np.testing.assert_allclose(selector.tally.chosen_GS[number] * choices.shape[2], count, atol=1e-9)
            assert selector.tally.decisions_G[number] == len(choices)
            if first:
                assert selector.first_GS is not None
                expected = np.bincount(choices[:, layer, 0], minlength=experts)
                np.testing.assert_array_equal(selector.first_GS[number], expected)
            else:
                assert selector.first_GS is None
        assert record.sample is not None
        sampled = record.sample.choice_LPK[:, record.sample.document_P == number]
        expected_LPK = choices.transpose(1, 0, 2)
        if not first:
            sampled, expected_LPK = np.sort(sampled, axis=-1), np.sort(expected_LPK, axis=-1)
        np.testing.assert_array_equal(sampled, expected_LPK)


def write_lines(path: pathlib.Path, lines: Sequence[Mapping[str, Any]], cut: int = 0) -> pathlib.Path:
    """Write json lines, the last of them without its last `cut` characters and its newline."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text[: -1 - cut] if cut else text)
    return path
