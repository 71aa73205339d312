"""Test the real clients of datasets and huggingface_hub against a hub on the loopback.

Importing the clients takes seconds, and they read their settings on import. One separate process therefore runs every
case; it records the waits between retries instead of sleeping.
"""

import gzip
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import pytest
from tests.data.fetch.sources.hub_server import COMMIT, Fault, Hub, Repo, serve

from speciate.data.fetch.passages import read_origin, read_passages
from speciate.data.fetch.sources.hub import Options

SOURCE = pathlib.Path(__file__).parents[4] / "src"
DRIVER = """
import json, pathlib, sys, time
slept = []
time.sleep = slept.append
from speciate.data.shard import Shard
from speciate.data.fetch.sources import hub
for name, shard, settings in json.load(sys.stdin):
    slept.clear()
    try:
        options = hub.Options(kind="hub", **settings)
        hub.fetch(options, "s", pathlib.Path(name), Shard(*shard))
        said = ""
    except ValueError as error:
        said = str(error)
    print(json.dumps({"name": name, "said": said, "slept": slept}), flush=True)
"""
CARD = b"---\nlicense: cc-by-4.0\n---\n"
CONFIGURED = b"---\nconfigs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n---\n"


def parquet(rows: dict[str, list[Any]], **settings: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(rows), sink, **settings)
    return bytes(sink.getvalue())


def numbered(first: int, count: int) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "text": [f"text {number} ä" for number in numbers],
        "key": [f"k{number}" for number in numbers],
        "topic": [number % 3 for number in numbers],
    }


TINY = {f"data/train-{file:05d}-of-00004.parquet": parquet(numbered(10 * file, 10)) for file in range(4)}
TWO = {f"data/train-{file:05d}-of-00002.parquet": parquet(numbered(10 * file, 10)) for file in range(2)}
ONE = "data/train-00000-of-00001.parquet"
GOOD = parquet(numbered(0, 10))
LARGE = parquet({"text": [random.Random(0).randbytes(6 << 20).hex()]}, compression="none", use_dictionary=False)
LINES = b"".join(json.dumps({"text": f"text {number}"}).encode() + b"\n" for number in range(3000))
TURN: dict[str, list[Any]] = {"question": ["2+2?", "3+3?"], "answer": ["4", None]}
REPOS = {
    "tiny": Repo({**TINY, "README.md": CARD}, license="cc-by-4.0"),
    "two": Repo(TWO),
    "turns": Repo({ONE: parquet(TURN)}),
    "configured": Repo({"README.md": CONFIGURED, "a.jsonl": b'{"text": "1"}\n', "b.jsonl": b'{"text": "2"}\n'}),
    "converted": Repo({"default/partial-train/0000.parquet": GOOD}, revisions=("main", "refs/convert/parquet")),
    "gated": Repo(TINY, gated=True),
    "script": Repo(
        {"script.py": b"raise SystemExit('it ran')", "README.md": CARD, "raw/a.json.gz": gzip.compress(LINES)}
    ),
    "cut": Repo({ONE: GOOD[:-30]}),
    "garbage": Repo({ONE: bytes(100) + b"PAR1"}),
    "half_line": Repo({"train.jsonl": b'{"text": "a"}\n{"text": "b"'}),
    "empty": Repo({"README.md": CARD}),
    "odd": Repo({"train.jsonl": b'{"text": "a"}\n{"text": "\\ud83d"}\n'}),
    "dropped": Repo({ONE: LARGE}),
    "dropped_stream": Repo({ONE: GOOD}),
    "dropped_lines": Repo({"train.jsonl.gz": gzip.compress(LINES)}),
    "busy": Repo({ONE: GOOD}),
    "busy_always": Repo({ONE: GOOD}),
    "busy_file": Repo({ONE: GOOD}),
    "broken_always": Repo({ONE: GOOD}),
}
FAULTS = (
    Fault(f"GET*/dropped/*/{ONE}", drop=11 << 20),
    Fault(f"GET*/dropped_stream/*/{ONE}", drop=7),
    Fault("GET*/dropped_lines/*.gz", drop=2000),
    Fault("GET /api/datasets/me/busy/*", status=429, headers={"Retry-After": "7"}),
    Fault("GET /api/datasets/me/busy_always/*", status=429, headers={"Retry-After": "7"}, times=-1),
    Fault(f"GET*/busy_file/*/{ONE}", status=429, headers={"Retry-After": "5"}, times=2),
    Fault(f"GET*/broken_always/*/{ONE}", drop=7, times=-1),
)
PARTS = {"data_files": ["*/partial-train/*.parquet"], "revision": "refs/convert/parquet"}
Case = tuple[str, tuple[int, int], dict[str, Any]]
CASES: list[Case] = [
    ("tiny", (0, 1), {}),
    ("tiny again", (0, 1), {}),
    ("tiny whole", (0, 1), {"streaming": False}),
    *((f"tiny {index}", (index, 3), {}) for index in range(3)),
    *((f"tiny whole {index}", (index, 3), {"streaming": False}) for index in range(3)),
    ("two", (0, 1), {}),
    *((f"two {index}", (index, 3), {}) for index in range(3)),
    ("tiny keys", (0, 1), {"id": "key", "group": "topic"}),
    ("tiny bytes", (0, 1), {"max_bytes": 50}),
    ("tiny documents", (0, 1), {"max_documents": 15}),
    ("turns", (0, 1), {"text": "Problem: {question}\n\nSolution: {answer}"}),
    ("configured", (0, 1), {"name": "b"}),
    ("converted", (0, 1), PARTS),
    ("script files", (0, 1), {"data_files": ["raw/*.json.gz"], "max_documents": 2}),
    ("script files whole", (0, 1), {"data_files": ["raw/*.json.gz"], "max_documents": 2, "streaming": False}),
    ("dropped", (0, 1), {"streaming": False}),
    ("dropped_stream", (0, 1), {}),
    ("dropped_lines", (0, 1), {}),
    ("busy", (0, 1), {}),
    ("busy_file", (0, 1), {}),
]
FAILS: list[tuple[Case, str]] = [
    (("nowhere", (0, 1), {}), "{hub} has none of that name, or it is private: log in with `hf auth login` or set HF_"),
    (("tiny", (0, 1), {"revision": "f" * 40}), f"revision: {{hub}} has no {'f' * 40} of it"),
    (("tiny", (0, 1), {"revision": "unpinned"}), f"revision: is not pinned; its newest commit is {COMMIT}: write that"),
    (("tiny", (0, 1), {"split": "dev"}), "split: there is no split 'dev'; available: ['train']"),
    (("tiny", (0, 1), {"text": "content"}), "there is no column 'content'; available: text, key, topic"),
    (("tiny", (0, 1), {"data_files": ["x/*.parquet"]}), "data_files: none of its 5 files matches x/*.parquet"),
    (("configured", (0, 1), {}), "name: it has several configurations, so one must be named"),
    (("configured", (0, 1), {"name": "c"}), "name: there is no configuration 'c'; available: ['a', 'b']"),
    (("gated", (0, 1), {}), "is gated: accept its terms on {hub}, then log in with `hf auth login` or set HF_TOKEN"),
    (("script", (0, 1), {}), "needs its own script, which is never run; try revision: refs/convert/parquet"),
    (("cut", (0, 1), {}), "a data file is damaged or cut off: Parquet magic bytes not found"),
    (("garbage", (0, 1), {}), "a data file is damaged or cut off: Couldn't deserialize thrift"),
    (("half_line", (0, 1), {}), "a data file is damaged or cut off: JSON parse error"),
    (("empty", (0, 1), {}), "has no data file that can be read"),
    (("odd", (0, 1), {}), "a data file is damaged or cut off: JSON parse error"),
    (("busy_always", (0, 1), {}), "{hub} limits the rate of requests, and still does after several tries"),
    (("broken_always", (0, 1), {}), "cannot reach {hub}, or the connection kept breaking: "),
]


def run(hub: Hub, folder: pathlib.Path, cases: list[Case], **environment: str) -> dict[str, dict[str, Any]]:
    """Return, by the case's name, what fetch reported and how long it would have slept; archives lie in `folder`."""
    requests = []
    for name, shard, settings in cases:
        requests.append((name, shard, {"dataset": f"me/{name.split()[0]}", "revision": COMMIT, **settings}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**clean, **hub.environment(folder / "home"), "PYTHONPATH": str(SOURCE), **environment}
    command = [sys.executable, "-c", DRIVER]
    done = subprocess.run(
        command, env=environment, cwd=folder, input=json.dumps(requests), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {each["name"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serve({f"datasets/me/{name}": repo for name, repo in REPOS.items()}, *FAULTS) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def results(hub: Hub, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Run every case in one process."""
    failing = [(f"{case[0]} fails {number}", *case[1:]) for number, (case, _) in enumerate(FAILS)]
    reference = [(f"{name} whole", shard, {**settings, "streaming": False}) for name, shard, settings in failing]
    return run(hub, folder, [*CASES, *failing, *reference])


@pytest.fixture
def fetched(results: dict[str, dict[str, Any]], folder: pathlib.Path) -> Any:
    """Return the passages of a case that must not fail."""

    def passages(name: str) -> list[Any]:
        assert results[name]["said"] == ""
        return list(read_passages(folder / name))

    return passages


def test_streaming_and_not_give_the_same_texts_in_order(fetched: Any) -> None:
    texts = [f"text {number} ä" for number in range(40)]
    assert [passage.text for passage in fetched("tiny")] == texts
    assert [passage.text for passage in fetched("tiny whole")] == texts
    assert [fetched("tiny")[10].id, fetched("tiny whole")[10].id] == ["train/1#1", "train#11"]


def test_the_archive_says_where_it_came_from_and_is_the_same_twice(fetched: Any, folder: pathlib.Path) -> None:
    assert fetched("tiny") == fetched("tiny again")
    assert (folder / "tiny").read_bytes() == (folder / "tiny again").read_bytes()
    origin = {"dataset": "me/tiny", "commit": COMMIT, "revision": COMMIT, "licence": "cc-by-4.0"}
    assert read_origin(folder / "tiny") == {**origin, "name": "", "split": "train", "shard": "0-of-1"}


@pytest.mark.parametrize("name", ["tiny", "tiny whole", "two"])
def test_three_shards_hold_what_one_does(fetched: Any, name: str) -> None:
    parts = [fetched(f"{name} {index}") for index in range(3)]
    assert all(parts)
    assert sorted((each for part in parts for each in part), key=lambda each: each.id) == sorted(
        fetched(name), key=lambda each: each.id
    )


def test_shards_take_files_where_there_are_enough_and_records_where_not(fetched: Any, hub: Hub) -> None:
    assert [passage.id for passage in fetched("tiny 1")] == [f"train/1#{row}" for row in range(1, 11)]
    assert [passage.id for passage in fetched("two 1")][:4] == ["train/0#2", "train/0#5", "train/0#8", "train/1#1"]


def test_columns_name_and_group(fetched: Any) -> None:
    assert [(each.id, each.group) for each in fetched("tiny keys")][:4] == [
        ("k0", "0"),
        ("k1", "1"),
        ("k2", "2"),
        ("k3", "0"),
    ]


def test_a_template_joins_columns_and_null_is_no_text(fetched: Any) -> None:
    assert [passage.text for passage in fetched("turns")] == ["Problem: 2+2?\n\nSolution: 4", None]


def test_it_stops_once_the_asked_for_amount_is_there(fetched: Any) -> None:
    assert len(fetched("tiny bytes")) == 6  # 9 bytes each
    assert len(fetched("tiny documents")) == 15


@pytest.mark.parametrize("limit", ["max_bytes", "max_documents"])
def test_a_limit_is_of_the_dataset_and_not_of_a_shard(limit: str) -> None:
    """A source with a limit is fetched whole, so that the number of shards cannot change what it gives."""
    given = {"kind": "hub", "dataset": "me/tiny", "revision": COMMIT}
    assert Options.model_validate(given).sharded
    assert not Options.model_validate({**given, limit: 50}).sharded


def test_a_configuration_and_the_hubs_own_conversion_can_be_named(fetched: Any, folder: pathlib.Path) -> None:
    assert [passage.text for passage in fetched("configured")] == ["2"]
    assert len(fetched("converted")) == 10
    assert read_origin(folder / "converted")["commit"] == COMMIT


def test_files_beside_a_script_can_be_read_and_the_script_never_runs(fetched: Any) -> None:
    assert [passage.text for passage in fetched("script files")] == ["text 0", "text 1"]
    assert [passage.text for passage in fetched("script files whole")] == ["text 0", "text 1"]


def test_a_download_that_breaks_off_goes_on_where_it_was(fetched: Any, hub: Hub) -> None:
    (passage,) = fetched("dropped")
    assert passage.text == random.Random(0).randbytes(6 << 20).hex()
    assert hub.ranges(f"/dropped/resolve/{COMMIT}/{ONE}") == [f"bytes={10 << 20}-"]


def test_a_stream_that_breaks_off_is_read_again_from_there(fetched: Any, hub: Hub) -> None:
    assert [passage.text for passage in fetched("dropped_stream")] == numbered(0, 10)["text"]
    ranges = hub.ranges("/dropped_stream/")
    assert len(ranges) > len(set(ranges))  # the interrupted range was requested twice
    assert [passage.text for passage in fetched("dropped_lines")] == [f"text {number}" for number in range(3000)]


def test_a_rate_limit_is_waited_for_as_long_as_the_hub_asks(fetched: Any, results: dict[str, dict[str, Any]]) -> None:
    assert len(fetched("busy")) == len(fetched("busy_file")) == 10
    assert results["busy"]["slept"] == [7.0]
    assert [round(seconds) for seconds in results["busy_file"]["slept"]] == [6, 6]  # the client adds one second


@pytest.mark.parametrize("mode", ["", " whole"])
@pytest.mark.parametrize("number", range(len(FAILS)))
def test_every_failure_is_one_clear_line(
    results: dict[str, dict[str, Any]], hub: Hub, folder: pathlib.Path, number: int, mode: str
) -> None:
    (name, _, _), problem = FAILS[number]
    called = f"{name} fails {number}{mode}"
    message = results[called]["said"]
    assert message.startswith(f"source s: dataset me/{name}: ")
    assert problem.format(hub=hub.endpoint) in message
    assert "\n" not in message


def test_nothing_but_archives_is_left(results: dict[str, dict[str, Any]], folder: pathlib.Path) -> None:
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not (folder / "home" / "hf" / "datasets").exists()  # Arrow's copies would have stayed there
    assert list((folder / "home" / "hf" / "hub").glob("datasets--me--dropped/blobs/*"))  # a retry continues from these


def test_a_hub_that_is_not_there_is_said(hub: Hub, tmp_path: pathlib.Path) -> None:
    (result,) = run(hub, tmp_path, [("tiny", (0, 1), {})], HF_ENDPOINT="http://127.0.0.1:9").values()
    assert result["said"].startswith("source s: dataset me/tiny: cannot reach http://127.0.0.1:9, or the connection")
    assert result["slept"] == [1.0, 2.0, 4.0]
    (result,) = run(hub, tmp_path, [("tiny", (0, 1), {})], HF_HUB_OFFLINE="1").values()
    assert (
        result["said"] == "source s: dataset me/tiny: cannot be read: HF_HUB_OFFLINE keeps the client off the network"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"revision": "main"},
        {"revision": "abc"},
        {"dataset": "gsm8k"},
        {"dataset": "../etc/passwd"},
        {"split": "train[:10%]"},
        {"trust_remote_code": True},
        {"max_bytes": 0},
        {"data_files": ["a.parquet", "b.jsonl"]},
        {"data_files": ["a.csv"]},
        {"name": "a", "data_files": ["a.jsonl"]},
    ],
)
def test_options_that_are_no_pin_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError, match=next(iter(settings))):
        Options.model_validate({"kind": "hub", "dataset": "me/tiny", "revision": COMMIT, **settings})
