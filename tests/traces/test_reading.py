"""Test how a trace's format is found, and how the user's texts are read and joined."""

import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from tests.traces.expected import draw, write_lines

from speciate.selection.text import Text
from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, format_names, load_format, read_trace
from speciate.traces.token_ids import read_token_ids
from speciate.traces.write import TraceWriter

ROOT = pathlib.Path(__file__).parents[2]


def test_every_format_has_what_the_contract_names() -> None:
    for name in format_names():
        module = load_format(name)
        assert module.SUMMARY and module.FILES and module.LOOKS_FOR and module.CONTENTS is not None
        assert callable(module.matches) and callable(module.read)


def test_each_format_matches_its_own_files_alone(tmp_path: pathlib.Path) -> None:
    """The content tells, not the suffix: every file here is called `trace`."""
    megatron = {"step": 0, "layer": 0, "num_tokens": 1, "topk": 1, "top_indices": [[0]]}
    files = {
        "counts": "layer,label,expert,count\n0,a,0,1\n",
        "layer_expert": "0,1\n",
        "megatron": json.dumps(megatron) + "\n",
        "megatron_counts": json.dumps({"iter": 0, "block": "decoder", "layer": 0, "tpe": [[1]]}) + "\n",
        "vllm": json.dumps({"choices": [{"routed_experts": "abc"}]}) + "\n",
        "jsonl": json.dumps({"layer": 0, "indices": [1]}) + "\n",
    }
    for name, text in files.items():
        path = tmp_path / name / "trace"
        path.parent.mkdir()
        path.write_text(text)
        assert find_format([path]) == (name, [path])
    path = tmp_path / "trace"
    with TraceWriter(path, num_experts=2, num_chosen=1) as trace:
        trace.add(0, np.array([[0]]), document="a", position=np.array([0]))
    assert find_format([path]) == ("parquet", [path])


def test_a_line_that_is_very_long_is_recognised_by_its_start(tmp_path: pathlib.Path) -> None:
    choices = draw(0, 700_000, 1, 9, 2)[:, 0].tolist()
    line = {"step": 0, "stage": "pre_dispatch", "block": "decoder", "layer": 0, "rank": 0}
    line |= {"num_tokens": len(choices), "topk": 2, "top_indices": choices}
    assert find_format([write_lines(tmp_path / "t.jsonl", [line])])[0] == "megatron"


def test_what_is_no_trace_is_refused_with_what_was_looked_for(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n")
    with pytest.raises(ValueError, match=r"notes\.txt: is no trace that can be read\. What was looked for:") as caught:
        read_trace(path)
    assert [line.split(":")[0].strip() for line in str(caught.value).splitlines()[1:]] == format_names()
    path.write_text("")
    with pytest.raises(ValueError, match=r"notes\.txt: is empty"):
        read_trace(path)
    path.write_bytes(pickle.dumps({"records": []}))
    with pytest.raises(ValueError, match=r"notes\.txt: is a pickle, which is never loaded since it can run code"):
        read_trace(path)
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(ValueError, match=r"notes\.txt: is damaged or cut off: it begins as torch's files and npz do"):
        read_trace(path)
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "absent")
    with pytest.raises(ValueError, match="'csv' is not a format of traces; there are counts, jsonl"):
        read_trace(path, format="csv")


def test_files_of_two_formats_are_not_one_trace(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("layer,expert,count\n0,0,1\n")
    (tmp_path / "b.csv").write_text("layer,expert\n0,0\n")
    with pytest.raises(ValueError, match="the files are of different formats, so they are not one trace: counts: "):
        read_trace([tmp_path / "a.csv", tmp_path / "b.csv"])
    with pytest.raises(ValueError, match="may be of the formats counts, layer_expert; name the one that it is"):
        read_trace(tmp_path)
    assert len(read_trace(tmp_path, format="counts").selectors) == 1


def test_options_that_make_no_sense_are_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="num_chosen is 0, but must be at least 1"):
        read_trace(tmp_path, options=ReadOptions(num_chosen=0))


def test_token_ids_are_read_by_document(tmp_path: pathlib.Path) -> None:
    lines = [{"id": "a", "text": "x", "tokens": [1, 2]}, {"document": 3, "input_ids": []}]
    found = read_token_ids([write_lines(tmp_path / "t.jsonl", lines)])
    assert {name: ids.tolist() for name, ids in found.items()} == {"a": [1, 2], "3": []}
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: the document 'a' is there twice"):
        read_token_ids([write_lines(tmp_path / "t.jsonl", [lines[0], lines[0]])])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 1: has no document's name: none of the keys id, document"):
        read_token_ids([write_lines(tmp_path / "t.jsonl", [{"tokens": []}])])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 1: has no token ids: none of the keys token_ids, tokens"):
        read_token_ids([write_lines(tmp_path / "t.jsonl", [{"id": "a"}])])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 1: its token ids are not a list of whole numbers"):
        read_token_ids([write_lines(tmp_path / "t.jsonl", [{"id": "a", "tokens": ["x"]}])])


def test_fewer_token_ids_than_positions_are_noted(tmp_path: pathlib.Path) -> None:
    lines = [{"id": "a", "position": n, "layer": 0, "indices": [n % 3]} for n in range(5)]
    options = ReadOptions(
        num_experts=3, texts=[Text("a", "text", "x", "g")], token_ids={"a": np.array([7, 8, 9], dtype=np.int64)}
    )
    record = read_trace(write_lines(tmp_path / "r.jsonl", lines), options=options)
    (note,) = record.notes
    assert note.kind == "tokens_differ" and "for a;" in note.text
    assert record.documents[["label", "group"]].to_numpy().tolist() == [["x", "g"]]


def test_traces_are_read_without_torch(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("layer,expert,count\n0,0,1\n0,1,1\n")
    script = (
        "import sys, pathlib\nsys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "from speciate.traces.read import read_trace\n"
        f"assert len(read_trace(pathlib.Path({str(tmp_path / 'a.csv')!r})).selectors) == 1\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
