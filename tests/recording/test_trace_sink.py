"""Test that what is recorded can be written as a trace, and is the same when it is read."""

import functools
import pathlib

import numpy as np
import pytest
from tests.recording.families import BLOCK_LENGTH, TEXTS, LetterTokenizer
from tests.recording.tiny import tiny_model

from speciate.recording.record_model import record_model
from speciate.recording.sites import find_sites
from speciate.recording.trace_sink import TraceSink
from speciate.traces.read import read_trace
from speciate.traces.write import TraceWriter


@pytest.mark.parametrize("generate", [0, 3])
def test_a_written_trace_is_the_record(tmp_path: pathlib.Path, generate: int) -> None:
    model, path = tiny_model("mixtral"), tmp_path / "trace.parquet"
    with TraceSink(functools.partial(TraceWriter, path), find_sites(model)) as sink:
        record = record_model(
            model, LetterTokenizer(), TEXTS, block_length=BLOCK_LENGTH, generate=generate, sinks=[sink]
        )
    read = read_trace([path])
    assert [one.path for one in read.selectors] == [one.path for one in record.selectors]
    order = ["document", "phase"]
    rows = read.documents.merge(record.documents, on=order, suffixes=("", " recorded"))
    assert list(rows["label"]) == list(rows["label recorded"])
    assert list(rows["num_tokens"]) == list(rows["num_tokens recorded"])
    assert len(rows) == len(record.documents) == len(read.documents)
    at = record.documents.reset_index().set_index(order)["index"][
        list(zip(read.documents["document"], read.documents["phase"], strict=True))
    ]
    for one, other in zip(read.selectors, record.selectors, strict=True):
        assert (one.num_slots, one.num_chosen) == (other.num_slots, other.num_chosen)
        np.testing.assert_allclose(one.tally.chosen_GS, other.tally.chosen_GS[at])


def test_two_routers_of_one_layer_are_no_trace(tmp_path: pathlib.Path) -> None:
    model = tiny_model("jetmoe")
    with (
        pytest.raises(ValueError, match=r"is in layer 0, too; a trace has one router a layer"),
        TraceSink(functools.partial(TraceWriter, tmp_path / "trace.parquet"), find_sites(model)) as sink,
    ):
        record_model(model, LetterTokenizer(), TEXTS, block_length=BLOCK_LENGTH, sinks=[sink])
    assert not (tmp_path / "trace.parquet").exists()
