"""Test that a finished run's files are kept until they are seen, and put back bit for bit."""

import errno
import json
import os
import pathlib
from collections.abc import Callable

import pytest

from speciate import cli
from speciate.config.run import RunSpec, canonical_json
from speciate.io import sha256
from speciate.stages import train as verb

ALWAYS = {"model.safetensors", "metrics.jsonl", "telemetry.safetensors", "run.json", "timing.json", "spec.json"}


def digests(folder: pathlib.Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def command(mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]) -> list[str]:
    spec = run_spec(training={"num_steps": 3})
    (tmp_path / "spec.json").write_text(canonical_json(spec))
    return [
        *("train", "--spec", str(tmp_path / "spec.json"), "--mixture-folder", str(mixture), "--adopt"),
        *("--output-folder", str(tmp_path / "run"), "--checkpoint-folder", str(tmp_path / "kept")),
    ]


def kept(folder: pathlib.Path) -> pathlib.Path:
    (found,) = (folder / "kept").glob("*/*/finished")
    return found


def test_what_a_finished_run_wrote_is_put_back(
    command: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.execute(command)
    before = digests(tmp_path / "run")
    assert set(before) == ALWAYS
    assert json.loads((tmp_path / "run/run.json").read_text())["job"] == {"attempt": 1}
    assert not list(kept(tmp_path).parent.glob("step*"))
    # the workflow has died, and removes the files of the job that it had started
    for path in before:
        (tmp_path / "run" / path).unlink()
    (tmp_path / "run" / "failure.json").write_text("{}")  # of an earlier failure
    monkeypatch.setattr(verb, "train", None)  # nothing is trained
    cli.execute(command)
    assert digests(tmp_path / "run") == before
    assert "an earlier attempt has finished it; its files are put back" in capsys.readouterr().err


def test_no_links_are_needed(command: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    cli.execute(command)
    first = digests(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    cli.execute(command)
    assert digests(tmp_path / "run") == first
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("harm", ["model.safetensors", "finished.json", "spec.json"])
def test_a_damaged_or_other_result_is_trained_again(
    command: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], harm: str
) -> None:
    cli.execute(command)
    before = {
        name: digest for name, digest in digests(tmp_path / "run").items() if name not in ("timing.json", "run.json")
    }
    file = kept(tmp_path) / harm
    content = file.read_bytes()
    file.unlink()  # it may be the very file in the run's folder
    file.write_bytes(b"?" + content[1:])
    cli.execute(command)
    said = capsys.readouterr().err
    assert "its files are put back" not in said
    assert ("damaged (" in said) == (harm != "spec.json")
    after = {name: digest for name, digest in digests(tmp_path / "run").items() if name in before}
    assert after == before
    assert json.loads((tmp_path / "run/run.json").read_text())["job"] == {"attempt": 2}


def test_by_hand_nothing_is_kept(command: list[str], tmp_path: pathlib.Path) -> None:
    cli.execute([word for word in command if word != "--adopt"])
    assert set(digests(tmp_path / "run")) == ALWAYS
    assert not list((tmp_path / "kept").iterdir())
