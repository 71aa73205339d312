"""Test a tokenizer's files, from a hub on the loopback by the real client, and from a folder.

The client reads its settings when it is imported, so one separate process runs all of its cases.
"""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pydantic
import pytest
from tests.data.fetch.sources.hub_server import COMMIT, Fault, Repo, serve
from tests.data.tokens.tokenizer import published

from speciate.data.fetch.passages import read_origin
from speciate.data.fetch.sources.tokenizer_files import Options, fetch, read
from speciate.data.shard import Shard

SOURCE = pathlib.Path(__file__).parents[4] / "src"
DRIVER = """
import json, pathlib, sys, time
time.sleep = lambda seconds: None
from speciate.data.shard import Shard
from speciate.data.fetch.sources import tokenizer_files
for name, settings in json.load(sys.stdin):
    try:
        options = tokenizer_files.Options(kind="tokenizer_files", **settings)
        tokenizer_files.fetch(options, "tokenizer", pathlib.Path(name), Shard())
        said = ""
    except ValueError as error:
        said = str(error)
    print(json.dumps(said), flush=True)
"""
LLAMA, CONFIG = published.llama(), json.dumps({"eos_token": "</s>"})
BOTH = {"tokenizer.json": LLAMA.encode(), "tokenizer_config.json": CONFIG.encode(), "model.safetensors": b"weights"}
REPOS = {
    "models/me/llama": Repo(BOTH),
    "models/me/bare": Repo({"tokenizer.json": LLAMA.encode()}),
    "models/me/slow": Repo({"tokenizer.model": b"a SentencePiece model"}),
    "models/me/gated": Repo(BOTH, gated=True),
    "models/me/busy": Repo(BOTH),
    "models/me/broken": Repo(BOTH),
    "models/me/binary": Repo({"tokenizer.json": b"\xff\xfe"}),
}
FAULTS = (
    Fault("GET*/busy/*/tokenizer.json", status=429, headers={"Retry-After": "3"}, times=2),
    Fault("GET*/broken/*/tokenizer.json", drop=7, times=-1),
)
PINNED = {"revision": COMMIT}
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"repository": "me/llama", **PINNED}, ""),
    ("bare", {"repository": "me/bare", **PINNED}, ""),
    ("busy", {"repository": "me/busy", **PINNED}, ""),
    ("slow", {"repository": "me/slow", **PINNED}, f"has no tokenizer.json at {COMMIT[:10]}, the file of transformers'"),
    ("other", {"repository": "me/llama", "revision": "f" * 40}, f"revision: {{hub}} has no {'f' * 40} of it"),
    ("unpinned", {"repository": "me/llama", "revision": "unpinned"}, f"is not pinned; its newest commit is {COMMIT}"),
    ("nowhere", {"repository": "me/nowhere", **PINNED}, "{hub} has none of that name, or it is private"),
    ("gated", {"repository": "me/gated", **PINNED}, "is gated: accept its terms on {hub}"),
    ("broken", {"repository": "me/broken", **PINNED}, "cannot reach {hub}, or the connection kept breaking"),
    ("binary", {"repository": "me/binary", **PINNED}, "tokenizer.json is not UTF-8"),
]


def files(archive: pathlib.Path) -> dict[str, str | None]:
    options = Options(kind="tokenizer_files", path="unread")
    return {passage.id: passage.text for passage in read(options, "tokenizer", archive)}


def test_a_models_files_on_a_hub(tmp_path: pathlib.Path) -> None:
    with serve(REPOS, *FAULTS) as hub:
        inputs = json.dumps([(str(tmp_path / name), settings) for name, settings, _ in CASES])
        environment = os.environ | hub.environment(tmp_path) | {"PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], input=inputs, env=environment, capture_output=True, text=True, check=True
        )
    reported = [json.loads(line) for line in done.stdout.splitlines()]
    for (name, settings, expected), message in zip(CASES, reported, strict=True):
        if expected:
            assert message.startswith(f"source tokenizer: repository {settings['repository']}: "), (name, message)
            assert expected.format(hub=hub.endpoint) in message, (name, message)
            assert not (tmp_path / name).exists()
        else:
            assert message == "", name
    assert files(tmp_path / "llama") == {"tokenizer.json": LLAMA, "tokenizer_config.json": CONFIG}
    assert files(tmp_path / "busy") == files(tmp_path / "llama")
    assert files(tmp_path / "bare") == {"tokenizer.json": LLAMA}
    assert read_origin(tmp_path / "llama") == {"repository": "me/llama", "commit": COMMIT}
    assert not any("safetensors" in path for _, path, _ in hub.log)


def test_a_folder_and_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "tokenizer.json").write_text(LLAMA)
    (tmp_path / "mine" / "tokenizer_config.json").write_text(CONFIG)
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "llama.json").write_text(LLAMA)
    both = {"tokenizer.json": LLAMA, "tokenizer_config.json": CONFIG}
    for path, expected in [
        ("mine", both),
        ("mine/tokenizer.json", both),
        ("alone/llama.json", {"tokenizer.json": LLAMA}),
    ]:
        options = Options(kind="tokenizer_files", path=str(tmp_path / path))
        fetch(options, "tokenizer", tmp_path / "archive", Shard())
        assert files(tmp_path / "archive") == expected
    with pytest.raises(ValueError, match=r"^source tokenizer: path .*/alone: there is no tokenizer.json"):
        fetch(Options(kind="tokenizer_files", path=str(tmp_path / "alone")), "tokenizer", tmp_path / "x", Shard())
    with pytest.raises(ValueError, match=r"^source tokenizer: path nowhere: there is no tokenizer.json"):
        fetch(Options(kind="tokenizer_files", path="nowhere"), "tokenizer", tmp_path / "x", Shard())


def test_the_users_own_files_are_named_for_the_workflow() -> None:
    assert Options(kind="tokenizer_files", path="mine/").local_globs() == (
        "mine/tokenizer.json",
        "mine/tokenizer_config.json",
    )
    assert Options(kind="tokenizer_files", path="mine/own.json").local_globs() == (
        "mine/own.json",
        "mine/tokenizer_config.json",
    )
    assert Options(kind="tokenizer_files", repository="me/llama", revision=COMMIT).local_globs() == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs a repository with its revision, or a path"),
        ({"repository": "a/b", "revision": COMMIT, "path": "c"}, "needs a repository with its revision, or a path"),
        ({"repository": "a/b"}, "a repository needs one"),
        ({"path": "c", "revision": COMMIT}, "revision: goes with a repository"),
        ({"repository": "a/b", "revision": "main"}, "should match pattern"),
        ({"repository": "../b", "revision": COMMIT}, "should match pattern"),
    ],
)
def test_options(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Options(kind="tokenizer_files", **settings)
