"""Test the command line: help without imports, and one clear message and no partial output when a command fails."""

import errno
import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from speciate import cli
from speciate.cli import FAILED, FAILED_FOR_NOW, MAY_PASS, main, overview, run, verb_files, verb_parser
from speciate.io import TemporaryError, atomic_write

SOURCE = pathlib.Path(cli.__file__).parents[1]
HEAVY = {"torch", "numpy", "pandas", "pydantic", "pyarrow", "scipy", "matplotlib", "yaml", "jinja2"}


def speciate(*words: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `python -m speciate WORDS` in a separate process; the last line that it prints names what it imported."""
    lines = f"""
import runpy, sys
{before}
sys.argv = ["speciate", *{words!r}]
try:
    runpy.run_module("speciate", run_name="__main__", alter_sys=True)
finally:
    print(*sys.modules)
"""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE)}
    return subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("--version",), ("trian",), ("train",)])
def test_what_needs_no_work_imports_no_library_and_no_verb(words: tuple[str, ...]) -> None:
    done = speciate(*words)
    imported = set(done.stdout.splitlines()[-1].split())
    assert not imported & HEAVY
    assert {name for name in imported if name.startswith("speciate.")} <= {
        "speciate.cli",
        "speciate.io",
        "speciate.machine",
    }


def test_help_lists_every_verb_once_with_its_first_line() -> None:
    lines = overview().splitlines()
    for name, file in verb_files().items():
        summary = file.read_text().splitlines()[0].lstrip('r"')
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.split(maxsplit=1)[1] == summary
    headings = [line for line in lines if line.endswith(":")]
    assert headings == ["data:", "training:", "analysis:", "report:", "tools:"]


def test_a_new_stage_needs_no_edit_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.GROUPS, "training", "train")
    assert "\nother stages:\n  evaluate " in overview()


@pytest.mark.parametrize("name", verb_files())
def test_a_verb_is_explained_with_an_example(name: str) -> None:
    text = verb_parser(verb_files()[name]).format_help()
    assert f"\nExample:\n    speciate {name} " in text
    summary, options = text.split("\n\n")[1], text.partition("\noptions:\n")[2]
    assert summary.endswith(".") and len(summary) <= 80
    assert "  -h, --help" in options


@pytest.mark.parametrize("name", verb_files())
def test_the_arguments_in_an_example_are_the_verbs(name: str) -> None:
    parser = verb_parser(verb_files()[name])
    example = (parser.description or "").partition("Example:\n")[2].replace("\\\n", " ").replace(" ... ", " ")
    words = example.split()
    assert words[:2] == ["speciate", name]
    options = {action.option_strings[0]: action for action in parser._actions if action.option_strings}
    named = [word for word in words if word.startswith("--")]
    assert set(named) <= set(options)
    if "..." not in (parser.description or ""):
        assert {option for option, action in options.items() if action.required} <= set(named)


def test_a_verb_that_does_not_exist_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for word, hint in (("trian", "did you mean `speciate train`? "), ("xyzzy", "")):
        with pytest.raises(SystemExit, match="2"):
            main([word, "--spec", "x"])
        error = f"speciate: error: '{word}' is not a stage or tool; {hint}`speciate --help` lists them\n"
        assert capsys.readouterr().err == error


def test_no_word_at_all_shows_the_help_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "speciate VERB" in capsys.readouterr().err


def test_log_lines_name_the_verb(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=str(FAILED)):
        main(["draw", "--spec", str(tmp_path / "none"), "--tables", "x", "--output-folder", "x"])
    assert capsys.readouterr().err.startswith(f"speciate draw: error: {tmp_path / 'none'}: is not a spec: ")


@pytest.mark.parametrize(
    ("verb", "module", "extra"),
    [("train", "torch", "torch"), ("fit", "tokenizers", "data"), ("export", "transformers", "torch")],
)
def test_a_library_that_is_not_installed_is_named_with_what_brings_it(verb: str, module: str, extra: str) -> None:
    required = {
        "train": ("--spec", "x"),
        "fit": ("--spec", "x", "--output-folder", "x"),
        "export": ("--run", "x", "--output", "x"),
    }
    done = speciate(verb, *required[verb], before=f"sys.modules[{module!r}] = None")
    needs = f"needs {module}, which is not installed: pip install 'speciate[{extra}]'"
    assert (done.returncode, done.stderr) == (FAILED, f"speciate {verb}: error: {needs}\n")


def test_a_mendable_error_is_one_message_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise ValueError("source django: sha256 differs")

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == FAILED
    error = capsys.readouterr().err
    assert error.endswith(": error: source django: sha256 differs\n")
    assert "Traceback" not in error


def test_too_little_memory_is_a_message_too(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        np.empty((1 << 59,), np.uint64)

    with pytest.raises(SystemExit, match=str(FAILED_FOR_NOW)):
        run(main)
    assert ": error: Unable to allocate 4.00 EiB" in capsys.readouterr().err


def test_an_allocators_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.\nC"
        )

    with pytest.raises(SystemExit, match=str(FAILED_FOR_NOW)):
        run(main)
    said = "out of memory: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes. C"
    error, hint = capsys.readouterr().err.splitlines()
    assert error.endswith(f": error: {said}")
    assert hint.endswith(f": {MAY_PASS}")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("wrong"), FAILED),
        (TemporaryError("no network"), FAILED_FOR_NOW),
        (FileNotFoundError(errno.ENOENT, "none", "a/file"), FAILED),
        (PermissionError(errno.EACCES, "none", "a/file"), FAILED),
        (OSError(errno.ENOSPC, "full", "a/file"), FAILED),
        (OSError("a library's words"), FAILED),
        (OSError(errno.EIO, "a disk that failed once", "a/file"), FAILED_FOR_NOW),
        (OSError(errno.ESTALE, "a server that was away", "a/file"), FAILED_FOR_NOW),
        (ConnectionResetError(), FAILED_FOR_NOW),
        (TimeoutError(), FAILED_FOR_NOW),
        (MemoryError(), FAILED_FOR_NOW),
    ],
    ids=repr,
)
def test_the_status_tells_whether_trying_again_can_help(error: Exception, status: int) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == status


def test_a_full_disk_says_where(tmp_path: pathlib.Path) -> None:
    def fill() -> None:
        with atomic_write(tmp_path / "table.csv"):
            raise OSError(errno.ENOSPC, "a library's words")

    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}'"):
        fill()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "the disk is full: a/file (No space left on device)"),
        (errno.EDQUOT, "the disk is full: a/file (Disk quota exceeded)"),
        (errno.ENOENT, "a/file: there is no such file"),
        (errno.EACCES, "a/file: may not be read or written"),
        (errno.ENOTDIR, "[Errno 20] Not a directory: 'a/file'"),
    ],
)
def test_an_error_of_the_system_says_what_to_look_at(
    number: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise OSError(number, os.strerror(number), "a/file")

    with pytest.raises(SystemExit, match=str(FAILED)):
        run(main)
    assert capsys.readouterr().err.endswith(f": error: {says}\n")


@pytest.mark.parametrize(("mends", "status"), [("pass", 0), ("raise ValueError('wrong')", FAILED)])
def test_nobody_reads_what_it_says_and_it_ends_as_it_would(mends: str, status: int) -> None:
    lines = f"from speciate.cli import run, log\ndef main():\n log('here')\n log('again')\n {mends}\nrun(main)"
    reading, writing_to = os.pipe()
    os.close(reading)
    environment = {"PYTHONPATH": str(pathlib.Path(cli.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, stderr=writing_to, check=False)
    os.close(writing_to)
    assert done.returncode == status


def test_a_module_that_no_extra_brings_is_a_bug() -> None:
    with pytest.raises(ModuleNotFoundError):
        run(lambda: importlib.import_module("speciate_nowhere"))


def test_a_bug_keeps_its_traceback() -> None:
    def main() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError):
        run(main)


def test_writing_replaces_only_when_the_block_ends_well(tmp_path: pathlib.Path) -> None:
    target = tmp_path / "folder" / "table.csv"
    with atomic_write(target) as temp_path:
        temp_path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(target) as temp_path:
            temp_path.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    assert target.read_text() == "old"
    assert [file.name for file in target.parent.iterdir()] == ["table.csv"]
