"""Test the stage fetch as the workflow runs it."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest
from tests.data.fetch.sources.hub_server import COMMIT, Repo, serve

from speciate.cli import FAILED, FAILED_FOR_NOW, MAY_PASS
from speciate.config.components import kinds_in
from speciate.graph.provenance import closure

SOURCE = pathlib.Path(__file__).parents[2] / "src"
FILE = "tiny-1.0-py3-none-any.whl"


def run(folder: pathlib.Path, sha256: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m speciate fetch` with a pip that sees one folder and no network."""
    pin = {"kind": "package", "name": "tiny", "version": "1.0", "file": FILE, "sha256": sha256}
    spec = {"name": "words", "source": {**pin, "include": ["*"], "exclude": [], "reader": {"kind": "text"}}}
    (folder / "spec.json").write_text(json.dumps(spec))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "links")}
    command = [sys.executable, "-m", "speciate", "fetch", "--spec", str(folder / "spec.json")]
    command += ["--output", str(folder / "out" / "archive"), *arguments]
    environment = clean | offline | {"PYTHONPATH": str(SOURCE)} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def sha256(tmp_path: pathlib.Path) -> str:
    (tmp_path / "links").mkdir()
    with zipfile.ZipFile(tmp_path / "links" / FILE, "w") as wheel:
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    return hashlib.sha256((tmp_path / "links" / FILE).read_bytes()).hexdigest()


def test_it_brings_the_pinned_file(tmp_path: pathlib.Path, sha256: str) -> None:
    done = run(tmp_path, sha256)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "archive").read_bytes() == (tmp_path / "links" / FILE).read_bytes()
    assert "source words: 0.0 MB" in done.stderr


def test_of_the_users_own_files_it_says_that_they_are_listed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    spec = {"name": "words", "source": {"kind": "files", "paths": ["*.txt"]}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "speciate", "fetch", "--spec", "spec.json", "--output", "out"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "of your own files, as they are now" in done.stderr and "pinned" not in done.stderr
    assert [entry["path"] for entry in json.loads((tmp_path / "out").read_text())["files"]] == ["a.txt"]


def test_other_bytes_end_in_one_line_and_leave_nothing(tmp_path: pathlib.Path, sha256: str) -> None:
    done = run(tmp_path, "0" * 64)
    pin = f"tiny==1.0 ({FILE})"
    expected = f"speciate fetch: error: source words: {pin}: expected sha256 {'0' * 64}, got {sha256}\n"
    assert (done.returncode, done.stderr) == (FAILED, expected)
    assert list((tmp_path / "out").iterdir()) == []


def test_no_network_ends_in_one_line_and_leaves_nothing(tmp_path: pathlib.Path, sha256: str) -> None:
    network = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_INDEX": "0"}
    done = run(tmp_path, "0" * 64, **network, PIP_FIND_LINKS="")
    assert done.returncode == FAILED_FOR_NOW
    assert done.stderr.startswith("speciate fetch: error: source words: tiny==1.0")
    assert "cannot reach its package index" in done.stderr
    assert done.stderr.splitlines()[1:] == [f"speciate fetch: {MAY_PASS}"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_source_that_is_fetched_whole_has_no_shards(tmp_path: pathlib.Path, sha256: str) -> None:
    done = run(tmp_path, sha256, "--shard", "0-of-2")
    expected = "speciate fetch: error: --shard: source words: kind package is fetched whole, not in 2\n"
    assert (done.returncode, done.stderr) == (FAILED, expected)
    assert run(tmp_path, sha256, "--shard", "0-of-1").returncode == 0
    assert "--shard: '2-of-2' is not a shard" in run(tmp_path, sha256, "--shard", "2-of-2").stderr


def test_shards_of_the_users_own_files(tmp_path: pathlib.Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    source = {"kind": "files", "paths": [f"{tmp_path}/*.txt"]}
    (tmp_path / "spec.json").write_text(json.dumps({"name": "mine", "source": source}))
    command = [sys.executable, "-m", "speciate", "fetch", "--spec", str(tmp_path / "spec.json")]
    command += ["--output", str(tmp_path / "archive"), "--shard", "1-of-2"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.split(":")[1]) == (0, " source mine, shard 1-of-2")
    assert [each["path"] for each in json.loads((tmp_path / "archive").read_text())["files"]] == [f"{tmp_path}/b.txt"]


def test_a_hub_that_refuses_ends_in_one_line_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    source = {"kind": "hub", "dataset": "me/gated", "revision": COMMIT}
    (tmp_path / "spec.json").write_text(json.dumps({"name": "words", "source": source}))
    command = [sys.executable, "-m", "speciate", "fetch", "--spec", str(tmp_path / "spec.json")]
    command += ["--output", str(tmp_path / "out" / "archive")]
    with serve({"datasets/me/gated": Repo({"train.jsonl": b""}, gated=True)}) as hub:
        environment = {**os.environ, **hub.environment(tmp_path), "PYTHONPATH": str(SOURCE)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        requests = f"is gated: accept its terms on {hub.endpoint}, then log in with `hf auth login` or set HF_TOKEN\n"
    assert (done.returncode, done.stderr) == (
        FAILED,
        f"speciate fetch: error: source words: dataset me/gated: {requests}",
    )
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", kinds_in("data/fetch/sources"))
def test_editing_the_writer_of_documents_leaves_every_archive_fresh(kind: str) -> None:
    modules = closure(["speciate.stages.fetch", f"speciate.data.fetch.sources.{kind}"])
    assert "speciate.data.shard" in modules
    assert "speciate.data.documents" not in modules
    assert not [module for module in modules if module.startswith(("speciate.data.clean", "speciate.data.dedup"))]
