"""Test that Speciate's own format comes back as it was written, in whatever order others write its rows."""

import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.traces.expected import assert_holds, draw, kinds

from speciate.selection.text import Text
from speciate.traces import write
from speciate.traces.contract import ReadOptions
from speciate.traces.format import parquet
from speciate.traces.read import read_trace
from speciate.traces.write import TraceWriter, write_trace

TOKENS, LAYERS, EXPERTS, K = 90, 3, 7, 3
CHOICES = draw(1, TOKENS, LAYERS, EXPERTS, K)
DOCUMENTS = [f"text {number}" for number in np.repeat([0, 1, 2], [20, 30, 40])]
POSITION = np.r_[0:20, 0:30, 0:40]
TOKEN = np.random.default_rng(2).integers(0, 1000, TOKENS)
WEIGHT = np.random.default_rng(3).random((TOKENS, LAYERS, K)).astype(np.float32)
BY_DOCUMENT = {(f"text {number}", ""): CHOICES[[n == f"text {number}" for n in DOCUMENTS]] for number in range(3)}


def rows() -> pd.DataFrame:
    """Return the trace as anybody may write it: one row a choice."""
    token, layer, rank = np.indices((TOKENS, LAYERS, K)).reshape(3, -1)
    return pd.DataFrame(
        {
            "document": np.array(DOCUMENTS)[token],
            "position": POSITION[token],
            "token": TOKEN[token],
            "layer": layer,
            "rank": rank,
            "expert": CHOICES[token, layer, rank],
            "weight": WEIGHT[token, layer, rank],
            "label": np.where(token < 20, "a", "b"),
        }
    )


def save(path: pathlib.Path, table: pd.DataFrame, row_group_size: int = 10_000) -> pathlib.Path:
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("at_once", [1, 25, 10_000])
@pytest.mark.parametrize("batch", [13, TOKENS])
@pytest.mark.parametrize("layer_major", [True, False])
def test_what_a_recorder_writes_comes_back(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, at_once: int, batch: int, layer_major: bool
) -> None:
    monkeypatch.setattr(write, "TOKENS_AT_ONCE", at_once)
    path = tmp_path / "trace.parquet"
    parts = [(layer, start) for layer in range(LAYERS) for start in range(0, TOKENS, batch)]
    with TraceWriter(path, num_experts=EXPERTS, num_chosen=K, paths={1: "model.layers.1.gate"}) as trace:
        for layer, start in parts if layer_major else sorted(parts, key=lambda part: (part[1], part[0])):
            part = slice(start, start + batch)
            trace.add(
                layer,
                CHOICES[part, layer],
                document=DOCUMENTS[part],
                position=POSITION[part],
                token=TOKEN[part],
                weight=WEIGHT[part, layer],
                label=["a" if name == "text 0" else "b" for name in DOCUMENTS[part]],
            )
    record = read_trace(path)
    assert_holds(record, BY_DOCUMENT, EXPERTS)
    assert record.documents["label"].tolist() == ["a", "b", "b"]
    assert [selector.path for selector in record.selectors] == ["layer 0", "model.layers.1.gate", "layer 2"]
    assert record.sample is not None and record.sample.weight_LPK is not None
    np.testing.assert_array_equal(record.sample.token_P, TOKEN)
    np.testing.assert_array_equal(record.sample.weight_LPK, WEIGHT.transpose(1, 0, 2))
    assert not record.notes


def test_only_the_first_layer_of_a_block_reads_its_tokens(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trace.parquet"
    with TraceWriter(path, num_experts=EXPERTS, num_chosen=K) as trace:
        for layer in range(LAYERS):
            trace.add(layer, CHOICES[:, layer], document=DOCUMENTS, position=POSITION, token=TOKEN)
    asked: list[list[str]] = []
    table = parquet._File._table
    monkeypatch.setattr(
        parquet._File, "_table", lambda self, group, names: asked.append(names) or table(self, group, names)
    )
    assert_holds(read_trace(path), BY_DOCUMENT, EXPERTS)
    assert asked == [["expert", "document", "position", "token"], ["expert"], ["expert"]]


@pytest.mark.parametrize("row_group_size", [10_000, 50, 7])
@pytest.mark.parametrize("shuffled", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_rows_in_any_order_give_the_same(
    tmp_path: pathlib.Path, row_group_size: int, shuffled: bool, told: bool
) -> None:
    table = rows().sample(frac=1, random_state=4) if shuffled else rows()
    path = save(tmp_path / "trace.parquet", table, row_group_size)
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, num_chosen=K) if told else None)
    order = [list(record.documents["document"]).index(name) for name in ("text 0", "text 1", "text 2")]
    assert [record.documents["label"][row] for row in order] == ["a", "b", "b"]
    assert_holds(record, BY_DOCUMENT, EXPERTS)
    assert kinds(record) == (set() if told else {"num_experts_guessed"})


def test_a_file_that_was_filtered_is_not_read_by_its_old_layout(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "trace.parquet"
    with TraceWriter(path, num_experts=EXPERTS, num_chosen=K) as trace:
        for layer in range(LAYERS):
            trace.add(layer, CHOICES[:, layer], document=DOCUMENTS, position=POSITION)
    table = pq.read_table(path)  # keeps the metadata
    kept = table.filter(pa.compute.equal(table["document"], "text 1"))
    pq.write_table(kept, tmp_path / "part.parquet")
    record = read_trace(tmp_path / "part.parquet")
    assert_holds(record, {("text 1", ""): BY_DOCUMENT["text 1", ""]}, EXPERTS)


def test_without_ranks_the_order_is_lost(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows().drop(columns=["rank", "weight"]))
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS))
    assert_holds(record, BY_DOCUMENT, EXPERTS, first=False)
    assert kinds(record) == {"order_lost"}


def test_without_documents_there_are_windows(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows()[["layer", "rank", "expert"]])
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, document_length=40))
    assert not record.has_documents
    windows = {(f"window {number}", ""): CHOICES[40 * number : 40 * number + 40] for number in range(3)}
    assert_holds(record, windows, EXPERTS)


def test_windows_go_on_in_the_next_file(tmp_path: pathlib.Path) -> None:
    table = rows()[["layer", "rank", "expert"]]
    first = save(tmp_path / "a.parquet", table.iloc[: 50 * LAYERS * K])
    second = save(tmp_path / "b.parquet", table.iloc[50 * LAYERS * K :])
    record = read_trace([first, second], options=ReadOptions(num_experts=EXPERTS, document_length=40))
    windows = {(f"window {number}", ""): CHOICES[40 * number : 40 * number + 40] for number in range(3)}
    assert_holds(record, windows, EXPERTS)
    assert not record.notes


def test_labels_and_tokens_come_from_the_texts(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows().drop(columns=["label", "token"]))
    tokens = {"text 0": TOKEN[:20], "text 1": TOKEN[20:50]}
    texts = [Text("text 0", "", "x"), Text("text 1", "", "y")]
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, texts=texts, token_ids=tokens))
    assert dict(zip(record.documents["document"], record.documents["label"], strict=True)) == {
        "text 0": "x",
        "text 1": "y",
        "text 2": "",
    }
    assert record.sample is not None
    np.testing.assert_array_equal(record.sample.token_P, np.r_[TOKEN[:50], np.full(40, -1)])
    assert kinds(record) == {"texts_not_found"}


def test_another_column_may_hold_the_labels(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows().rename(columns={"label": "domain"}))
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, label="domain"))
    assert record.documents["label"].tolist() == ["a", "b", "b"]
    with pytest.raises(
        ValueError, match=r"trace\.parquet: has no column 'topic' for the label; it has document, domain"
    ):
        read_trace(path, options=ReadOptions(label="topic"))


def test_a_record_s_sample_is_a_trace_again(tmp_path: pathlib.Path) -> None:
    first = read_trace(save(tmp_path / "a.parquet", rows()), options=ReadOptions(num_experts=EXPERTS))
    write_trace(first, tmp_path / "b.parquet")
    second = read_trace(tmp_path / "b.parquet")
    assert_holds(second, BY_DOCUMENT, EXPERTS)
    assert second.documents["label"].tolist() == ["a", "b", "b"]


def test_choices_that_were_not_made_are_null(tmp_path: pathlib.Path) -> None:
    choices = np.array([[3, -1], [2, 1]])
    with TraceWriter(tmp_path / "a.parquet", num_experts=4, num_chosen=2) as trace:
        trace.add(0, choices, document="a", position=np.arange(2))
    record = read_trace(tmp_path / "a.parquet")
    assert record.sample is not None
    np.testing.assert_array_equal(record.sample.choice_LPK, [choices])
    np.testing.assert_allclose(record.selectors[0].tally.chosen_GS, [[0, 2 / 3, 2 / 3, 2 / 3]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: pd.concat([t, t]), "document 'text 0', position 0 has 6 choices, but k is 3: the same tokens were"),
        (lambda t: t.assign(rank=t["rank"] % 2), "position 0 has 3 choices, but k is 2"),
        (lambda t: t.assign(expert=t["expert"] * 10_000), "is out of range: no router has 8192 experts; a number"),
        (lambda t: t.assign(expert=-7), "expert -7 of layer 0 is out of range"),
        (lambda t: t.assign(expert=t["rank"] // 2), r"a token of layer 0 chooses an expert twice \(0, 0, 1\)"),
        (
            lambda t: t.assign(expert=t["expert"] + 0.5),
            "column expert has the type double, but must be of whole numbers",
        ),
        (lambda t: t.drop(columns=["position", "rank"]), "has neither `position` nor `rank`"),
        (lambda t: t.head(0), "has no rows"),
    ],
)
def test_what_cannot_be_judged_is_refused(tmp_path: pathlib.Path, change: object, message: str) -> None:
    assert callable(change)
    path = save(tmp_path / "trace.parquet", change(rows()))
    with pytest.raises(ValueError, match=r"trace\.parquet.*" + message):
        read_trace(path)


def test_a_file_that_is_cut_off_is_refused(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows())
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"trace\.parquet: is damaged or cut off"):
        read_trace(path)


def test_decisions_that_lack_choices_are_noted(tmp_path: pathlib.Path) -> None:
    path = save(tmp_path / "trace.parquet", rows().iloc[:-1])
    assert "incomplete_decisions" in kinds(read_trace(path))
