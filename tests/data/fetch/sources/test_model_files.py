"""Test that the real client fetches a model from a hub on the loopback, and that a run starts from its files."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

from tests.data.fetch.sources.hub_server import COMMIT, Repo, serve

SOURCE = pathlib.Path(__file__).parents[4] / "src"
FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 999, "pytorch_model.bin": b"pickle", "a/b.onnx": b""}
DRIVER = """
import json, pathlib, sys, time
time.sleep = lambda seconds: None
from speciate.data.shard import Shard
from speciate.data.fetch.sources import model_files
for name, settings in json.load(sys.stdin):
    try:
        options = model_files.Options(kind="model_files", **settings)
        model_files.fetch(options, "s", pathlib.Path(name), Shard())
        said = ""
    except ValueError as error:
        said = str(error)
    print(json.dumps(said), flush=True)
"""


def test_what_the_hub_gives_and_what_it_refuses(tmp_path: pathlib.Path) -> None:
    cases: dict[str, tuple[dict[str, object], str]] = {
        "whole": ({"repository": "me/tiny", "revision": COMMIT}, ""),
        "again": ({"repository": "me/tiny", "revision": COMMIT}, ""),
        "unpinned": ({"repository": "me/tiny", "revision": "unpinned"}, f"its newest commit is {COMMIT}: write that"),
        "gone": ({"repository": "me/gone", "revision": COMMIT}, "has none of that name, or it is private"),
        "commit": ({"repository": "me/tiny", "revision": "f" * 40}, f"has no {'f' * 40} of it"),
        "none": ({"repository": "me/tiny", "revision": COMMIT, "include": ["*.gguf"]}, "none of its files matches"),
        "gated": ({"repository": "me/gated", "revision": COMMIT}, "is gated: accept its terms on"),
    }
    repos = {"models/me/tiny": Repo(FILES), "models/me/gated": Repo(FILES, gated=True)}
    with serve(repos) as hub:
        requests = json.dumps([(str(tmp_path / name), settings) for name, (settings, _) in cases.items()])
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(
            [sys.executable, "-c", DRIVER], input=requests, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    for (name, (_, message)), line in zip(cases.items(), done.stdout.splitlines(), strict=True):
        said = json.loads(line)
        assert message in said and bool(message) == bool(said), (name, said)
    with tarfile.open(tmp_path / "whole") as archive:
        actual = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    assert actual == {name: FILES[name] for name in ("config.json", "model.safetensors")}
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "again").read_bytes()
