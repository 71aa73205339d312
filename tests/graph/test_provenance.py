"""What makes a stage stale, and what does not."""

import pathlib

import pytest

from speciate.graph import provenance


@pytest.fixture
def package(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A small package in place of ours: verb -> noun -> deep, and an unrelated module."""
    (tmp_path / "noun").mkdir()
    (tmp_path / "noun" / "__init__.py").write_text("")
    (tmp_path / "verb.py").write_text("from speciate.noun import near\nimport speciate.config.run\n")
    (tmp_path / "noun" / "near.py").write_text("def f():\n    from speciate.noun.deep import x\n    return x\n")
    (tmp_path / "noun" / "deep.py").write_text('"""Docstring."""\nx = 1\n')
    (tmp_path / "noun" / "far.py").write_text("y = 1\n")
    (tmp_path / "spec.py").write_text("z = 1\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    """Clears what provenance remembers of files."""
    for remembered in (provenance._read, provenance._digest):
        remembered.cache_clear()


def test_closure_follows_imports_however_deep_and_leaves_the_schema_out(package: pathlib.Path) -> None:
    assert provenance.closure(["speciate.cli"]) == ["speciate.noun.deep", "speciate.noun.near", "speciate.cli"]


@pytest.mark.parametrize(
    ("file", "text", "stale"),
    [
        ("noun/deep.py", '"""Docstring."""\nx = 2\n', True),
        ("noun/deep.py", '"""Another docstring."""\n\n# and a comment\nx   =   1\n', False),
        ("noun/deep.py", '"""Docstring."""\nx = 1\n', False),
        ("noun/far.py", "y = 2\n", False),
        ("spec.py", "z = 2\n", False),
        ("verb.py", "from speciate.noun import near, far\nimport speciate.config.run\n", True),
    ],
)
def test_digest_changes_with_the_meaning_of_the_closure_only(
    package: pathlib.Path, file: str, text: str, stale: bool
) -> None:
    before = provenance.digest("verb")
    (package / file).write_text(text)
    forget()
    assert (provenance.digest("verb") != before) == stale


def test_a_verb_that_does_not_exist_is_an_error(package: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"speciate\.nothing is no module"):
        provenance.digest("nothing")


def test_sha256_is_that_of_the_bytes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    # the example of FIPS 180-2
    assert provenance.sha256(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
