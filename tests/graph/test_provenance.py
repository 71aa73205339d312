"""Test what makes a stage stale, and what does not."""

import pathlib

import pytest

from speciate.graph import provenance

VERB = '''"""verb: does something."""
import argparse
from typing import TYPE_CHECKING
import speciate.config.run
from speciate.cli import log
from speciate.noun import near

if TYPE_CHECKING:
    from speciate.noun import far

class Options:
    size: int = 1
    """How large it is."""

def add_arguments(parser):
    parser.add_argument("--spec", type=int, default=3, help="the spec")

def main(arguments):
    log(f"step {arguments.spec}")
    near.f()
'''


@pytest.fixture
def package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Make a small package in place of ours: verb -> noun -> deep, and an unrelated module."""
    for folder in ("noun", "stages", "config", "training/logs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stages" / "verb.py").write_text(VERB)
    (tmp_path / "noun" / "near.py").write_text("def f():\n    from speciate.noun.deep import x\n    return x\n")
    (tmp_path / "noun" / "deep.py").write_text('"""Docstring."""\nimport speciate.training.logs.progress\nx = 1\n')
    (tmp_path / "noun" / "far.py").write_text("y = 1\n")
    (tmp_path / "config" / "run.py").write_text("z = 1\n")
    (tmp_path / "cli.py").write_text("def log(text): print(text)\n")
    (tmp_path / "training" / "logs" / "progress.py").write_text("z = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Clear what provenance caches about files."""
    for remembered in (provenance._read, provenance._digest):
        remembered.cache_clear()


def test_closure_follows_imports_however_deep_and_leaves_outsiders_out(package: pathlib.Path) -> None:
    assert provenance.closure(["speciate.stages.verb"]) == [
        *("speciate.noun.deep", "speciate.noun.near", "speciate.stages.verb")
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "stale"),
    [
        ("noun/deep.py", "x = 1", "x = 2", True),
        ("noun/deep.py", "Docstring.", "Another docstring.", False),
        ("noun/deep.py", "x = 1", "\n# a comment\nx   =   1", False),
        ("noun/deep.py", "x = 1", "x = 1", False),
        ("noun/far.py", "y = 1", "y = 2", False),
        ("config/run.py", "z = 1", "z = 2", False),
        ("cli.py", "print(text)", "print(text.upper())", False),
        ("training/logs/progress.py", "z = 1", "z = 2", False),
        ("stages/verb.py", "import near", "import near, far", True),
        ("stages/verb.py", "step {arguments.spec}", "now at step {arguments.spec}", False),
        ("stages/verb.py", 'help="the spec"', 'help="a file"', False),
        ("stages/verb.py", "default=3", "default=4", True),
        ("stages/verb.py", "How large it is.", "Its size in tokens.", False),
        ("stages/verb.py", "size: int = 1", "size: int = 2", True),
        ("stages/verb.py", "    near.f()", "    near.f()\n    near.f()", True),
    ],
)
def test_digest_changes_with_what_the_closure_does_only(
    package: pathlib.Path, file: str, old: str, new: str, stale: bool
) -> None:
    before = provenance.digest("verb")
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    forget()
    assert (provenance.digest("verb") != before) == stale


def test_a_verb_that_does_not_exist_is_an_error(package: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"speciate\.stages\.nothing is not a module"):
        provenance.digest("nothing")
