"""Test how explorers are filled from records, checked, packed and kept small."""

import dataclasses
import gzip
import json
import pathlib
import struct

import numpy as np
import pytest
from tests.reporting.doctor import planted as doctor
from tests.reporting.explorer import planted

from speciate.config.contracts.slots import EXPERTS
from speciate.reporting.explorer.data import Check, Document, ExplorerData, Layer, Model
from speciate.reporting.explorer.from_record import from_record
from speciate.reporting.explorer.write import pack, write_explorer


def head_of(block: bytes) -> dict[str, object]:
    content = gzip.decompress(block)
    (length,) = struct.unpack("<I", content[:4])
    return json.loads(content[4 : 4 + length])  # type: ignore[no-any-return]


def test_the_sample_of_a_record_is_shown_token_by_token() -> None:
    record = doctor.record()
    data = from_record(record, doctor.judgement(record))
    assert data is not None and record.sample is not None
    np.testing.assert_array_equal(data.token_P, record.sample.token_P)
    assert [document.label for document in data.documents[:3]] == list(doctor.LABELS)
    (model,) = data.models
    for place, layer in enumerate(model.layers):
        np.testing.assert_array_equal(layer.checks[0].choice_MK, record.sample.choice_LPK[place])
        assert layer.ordered and layer.sentence == f"Layer {place} <so>."
    lifts = model.layers[1].lifts
    assert lifts is not None
    assert lifts.set_index(["slot", "label"]).loc[(0, "code"), ["lift", "q"]].tolist() == [2.5, 0.002]
    assert data.left_out == ()


def test_documents_that_do_not_fit_are_left_out_in_turn_from_each_label() -> None:
    record = doctor.record()
    # four layers, two choices, four documents of 120 tokens
    data = from_record(record, doctor.judgement(record), most_choices=4 * 2 * 120 * 4)
    assert data is not None
    assert [document.label for document in data.documents] == [*doctor.LABELS, doctor.LABELS[0]]
    assert data.left_out[0].startswith("The explorer shows 480 of 1,440 tokens, in 4 of 12 documents")
    # one text that is too long for the page is cut
    cut = from_record(record, doctor.judgement(record), most_choices=4 * 2 * 50)
    assert cut is not None and len(cut.token_P) == 50


def test_another_record_is_shown_where_it_has_the_same_tokens() -> None:
    one, two = doctor.record(), doctor.record("other", seed=3, num_documents=9)
    assert two.sample is not None
    changed = two.sample.token_P.copy()
    changed[5] += 100
    two = dataclasses.replace(two, sample=dataclasses.replace(two.sample, token_P=changed))
    data = from_record(one, doctor.judgement(one, "other"), other=two)
    assert data is not None and two.sample is not None
    check = data.models[1].layers[2].checks[0]
    assert check.token_M is not None
    expected = [index for index in range(9 * doctor.LENGTH) if index != 5]
    assert check.token_M.tolist() == expected
    np.testing.assert_array_equal(check.choice_MK, two.sample.choice_LPK[2][expected])
    assert any(note.startswith("1 tokens have other ids in other") for note in data.notes)


def test_a_record_without_single_tokens_has_no_explorer() -> None:
    record = dataclasses.replace(doctor.record(), sample=None)
    assert from_record(record, doctor.judgement(record)) is None


def test_knock_outs_stand_beside_shares_and_lifts() -> None:
    record = doctor.record()
    costs = doctor.knock_out(record)
    data = from_record(record, doctor.judgement(record), knock_out=costs)
    assert data is not None
    layer = data.models[0].layers[3]
    assert layer.experts is not None and layer.lifts is not None
    of_layer = costs[(costs["layer"] == 3) & (costs["expert"] == 6)].set_index("label")
    row = layer.experts.set_index("slot").loc[6]
    assert row["cost"] == of_layer.loc["", "cost_nats"] and row["control"] == of_layer.loc["", "control_nats"]
    assert layer.lifts.set_index(["slot", "label"]).loc[(6, "math"), "cost"] == of_layer.loc["math", "cost_nats"]


def test_the_same_data_are_the_same_bytes_and_equal_arrays_are_kept_once() -> None:
    data = planted.data()
    assert pack(data) == pack(planted.data())
    head = head_of(pack(data))
    at = {json.dumps(check[1]) for model in head["models"] for layer in model["layers"] for check in layer["checks"]}
    assert len(at) == 2  # all tokens, and one prefix
    assert head["token"][0] == "u1" and len(head["pieces"]) == len(planted.WORDS + planted.HOSTILE)


def test_the_page_of_a_full_study_is_below_fifteen_megabytes(tmp_path: pathlib.Path) -> None:
    """Take as many choices as a page may have, single keys included, of too many experts to be compressed."""
    rng = np.random.default_rng(0)
    count = 90_000
    checks = tuple(
        Check(step, None, rng.integers(0, 250, (count, 1)).astype(np.int16)) for step in range(10_000_000 // count)
    )
    layer = Layer("blocks.0.ffn.router", EXPERTS, planted.experts(250), checks)
    data = ExplorerData(
        "full", (Document("text", "a", count),), rng.integers(0, 1000, count), {}, (Model("run", "", (layer,)),)
    )
    write_explorer(data, tmp_path / "explorer.html")
    assert (tmp_path / "explorer.html").stat().st_size < 15_000_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": (Document("a", "x", 3),)}, "the documents have 3 tokens, and there are 1200"),
        ({"order_P": np.zeros(4, dtype=np.int64)}, "1200 tokens, but an order of 4"),
        ({"documents": (Document("a", "x", 1200, "nobody"),)}, "a: there is no model nobody"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(planted.data(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "kind other is none of experts"),
        ({"checks": ()}, "has no check"),
        ({"slots": ("one",)}, "a slot is out of range; there are 1"),
        ({"margin_M": np.zeros(3, dtype=np.float32)}, "margin_M has 3 tokens, not 1200"),
    ],
)
def test_a_layer_that_does_not_fit_is_named(change: dict[str, object], message: str) -> None:
    data = planted.data()
    model = data.models[0]
    layer = dataclasses.replace(model.layers[0], **change)
    with pytest.raises(ValueError, match=f"arm, seed 0, blocks.0.ffn.router.*{message}"):
        dataclasses.replace(data, models=(dataclasses.replace(model, layers=(layer,)),))
