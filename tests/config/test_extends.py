"""Test study files as plain data: one extends another."""

import json
import pathlib

import pytest
import yaml

from speciate.config.extends import extend, merge, read_yaml


def test_merge_replaces_a_kind_whole_removes_on_none_and_alters_neither() -> None:
    base = {"a": {"kind": "x", "k": 1}, "b": {"c": 1, "d": 2}, "e": "x"}
    change = {"a": {"kind": "y"}, "b": {"c": None}, "e": {"k": 3}}
    before = json.dumps([base, change])
    assert merge(base, change) == {"a": {"kind": "y"}, "b": {"d": 2}, "e": {"kind": "x", "k": 3}}
    assert merge(base, {"a": {"k": 2}})["a"] == {"kind": "x", "k": 2}
    assert json.dumps([base, change]) == before


@pytest.mark.parametrize("text", ["- a list", "a: [", "\x00"])
def test_a_study_file_that_is_no_mapping_is_named(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"study\.yaml"):
        read_yaml(tmp_path / "study.yaml")


def test_a_study_may_extend_several_files_in_order(tmp_path: pathlib.Path) -> None:
    (tmp_path / "first.yaml").write_text("a: 1\nb: {c: 1, d: 1}\n")
    (tmp_path / "second.yaml").write_text("b: {c: 2}\n")
    (tmp_path / "study.yaml").write_text("extends: [first.yaml, second.yaml]\na: 3\n")
    assert read_yaml(tmp_path / "study.yaml") == {"a": 3, "b": {"c": 2, "d": 1}}


def test_files_that_extend_each_other_are_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: [a.yaml]\n")
    with pytest.raises(ValueError, match=r"a\.yaml: extends: leads back to itself"):
        read_yaml(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: {a: b}\n")
    with pytest.raises(ValueError, match="extends: must be a file or a list of files"):
        read_yaml(tmp_path / "c.yaml")


def test_extends_is_relative_to_the_file_that_says_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({"a": {"b": 1, "c": 2}}))
    (tmp_path / "below" / "study.yaml").write_text("extends: ../base.yaml\na: {c: null, d: 3}\n")
    assert read_yaml(tmp_path / "below" / "study.yaml") == {"a": {"b": 1, "d": 3}}


BASE = """\
domains: {a: {sources: {x: 1, y: 2}}, b: {sources: {z: 3}}}
ablations: {one: {}, two: {}, three: {}}
hypotheses:
  first: {arm: one, reference: two}
  second: {arm: three, reference: one}
  third: {arm: two, reference: three}
"""


def test_keep_leaves_out_what_it_does_not_name(tmp_path: pathlib.Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(
        "extends: base.yaml\n"
        "keep: {ablations: [two, one], domains: [a], domains.a.sources: [y]}\n"
        "ablations: {four: {}}\n"
        "hypotheses: {fourth: {arm: four, reference: one}}\n"
    )
    settings = read_yaml(tmp_path / "study.yaml")
    assert settings["domains"] == {"a": {"sources": {"y": 2}}}
    assert list(settings["ablations"]) == ["one", "two", "four"]
    # removing `three` also removes the hypotheses about it
    assert list(settings["hypotheses"]) == ["first", "fourth"]
    assert "keep" not in settings
    (tmp_path / "study.yaml").write_text("extends: base.yaml\nkeep: {ablations: [one], hypotheses: [third]}\n")
    assert list(read_yaml(tmp_path / "study.yaml")["hypotheses"]) == ["third"]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("{ablations: [one, tow]}", "keep.ablations: there is no tow; available: one, two, three"),
        ("{domains.c.sources: [x]}", "keep.domains.c.sources: the extended files have no such mapping"),
        ("{ablations: one}", "keep.ablations: must be a list of names, not 'one'"),
        ("[ablations]", r"keep: must be a mapping of paths to lists of names, not \['ablations'\]"),
    ],
)
def test_a_wrong_keep_is_named_with_its_file(tmp_path: pathlib.Path, keep: str, message: str) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "study.yaml").write_text(f"extends: base.yaml\nkeep: {keep}\n")
    with pytest.raises(ValueError, match=rf"study\.yaml: {message}"):
        read_yaml(tmp_path / "study.yaml")
    settings = yaml.safe_load((tmp_path / "study.yaml").read_text())
    with pytest.raises(ValueError, match=f"^{message}"):
        extend(settings, tmp_path)
