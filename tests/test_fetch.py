"""The verb fetch, as the workflow runs it."""

import hashlib
import json
import os
import pathlib
import subprocess
import sys
import zipfile

import pytest

SOURCE = pathlib.Path(__file__).parents[1] / "src"
FILE = "tiny-1.0-py3-none-any.whl"


def run(folder: pathlib.Path, sha256: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m speciate.fetch` with pip shown one folder and no network."""
    pin = {"kind": "package", "name": "tiny", "version": "1.0", "file": FILE, "sha256": sha256}
    spec = {"name": "words", "source": {**pin, "include": ["*"], "exclude": [], "reader": {"kind": "text"}}}
    (folder / "spec.json").write_text(json.dumps(spec))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "links")}
    command = [sys.executable, "-m", "speciate.fetch", "--spec", str(folder / "spec.json")]
    command += ["--output", str(folder / "out" / "archive")]
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


def test_other_bytes_end_in_one_line_and_leave_nothing(tmp_path: pathlib.Path, sha256: str) -> None:
    done = run(tmp_path, "0" * 64)
    pin = f"tiny==1.0 ({FILE})"
    expected = f"speciate fetch: error: source words: {pin}: expected sha256 {'0' * 64}, got {sha256}\n"
    assert (done.returncode, done.stderr) == (1, expected)
    assert list((tmp_path / "out").iterdir()) == []


def test_no_network_ends_in_one_line_and_leaves_nothing(tmp_path: pathlib.Path, sha256: str) -> None:
    network = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_NO_INDEX": "0"}
    done = run(tmp_path, "0" * 64, **network, PIP_FIND_LINKS="")
    assert done.returncode == 1
    assert done.stderr.startswith("speciate fetch: error: source words: tiny==1.0")
    assert "cannot reach its package index" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []
