"""Test a package's texts, selected by globs and a reader."""

import pathlib
import zipfile
from typing import Any

import pydantic
import pytest

from speciate.config.components import ComponentOptions, config_errors, options_of
from speciate.data.fetch.sources.package import read
from speciate.data.passage import Passage

PIN = {"kind": "package", "name": "tiny", "version": "1.0", "file": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}


def options(**settings: Any) -> ComponentOptions:
    return options_of("data/fetch/sources", "package").model_validate({**PIN, "reader": "text", **settings})


@pytest.fixture
def archive(tmp_path: pathlib.Path) -> pathlib.Path:
    with zipfile.ZipFile(tmp_path / "archive", "w") as wheel:
        wheel.writestr("tiny/a.py", "a = 1\n")
        wheel.writestr("tiny/tests/b.py", "b = 2\n")
        wheel.writestr("tiny/latin.py", "café".encode("latin-1"))
        wheel.writestr("tiny/lines.jsonl", '{"t": "one"}\n{"t": "two"}\n')
    return tmp_path / "archive"


def test_globs_and_reader_decide_what_is_read(archive: pathlib.Path) -> None:
    code = options(include=["*.py"], exclude=["*/tests/*", "*latin*"])
    assert list(read(code, "tiny", archive)) == [Passage("tiny/a.py", None, "a = 1\n")]
    lines = options(include=["*.jsonl"], reader={"kind": "jsonl", "text": "t"})
    assert [passage.text for passage in read(lines, "tiny", archive)] == ["one", "two"]


def test_no_member_that_matches_is_an_error(archive: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"source tiny: include: no member of tiny-1\.0-.* matches \*\.txt, \*\.md"):
        list(read(options(include=["*.txt", "*.md"]), "tiny", archive))


def test_a_member_that_is_not_utf8_is_named(archive: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"source tiny: member tiny/latin\.py is not UTF-8: byte 0xe9 at offset 3"):
        list(read(options(include=["*.py"]), "tiny", archive))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"reader": "pdf"},
            "reader: 'pdf' is not a kind of data/fetch/readers; available: json_tree, jsonl, lines, text, wikipedia",
        ),
        ({"sha256": "abc"}, "sha256: "),
        ({"include": []}, "include: "),
        ({"file": "../tiny.whl"}, "file: "),
        ({"name": "--evil"}, "name: "),
        ({"colour": 1}, "colour: unknown key"),
    ],
)
def test_wrong_options_name_their_field(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(pydantic.ValidationError) as refused:
        options(**{"include": ["*"], **settings})
    assert any(f"{path}: {why}".startswith(problem) for path, why in config_errors(refused.value))
