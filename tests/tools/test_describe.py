"""Test that the generated schema and page are current, complete, and agree with the models."""

import json
import pathlib
import re

import jsonschema
import pytest

from speciate.config.extends import read_yaml
from speciate.tools import describe

ROOT = pathlib.Path(__file__).parents[2]


def test_the_generated_files_are_current() -> None:
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == describe.keys_page(), "run `make docs`"
    assert (ROOT / "workflow/schemas/study.schema.json").read_text(encoding="utf-8") == describe.study_schema()


def test_every_key_is_explained() -> None:
    assert re.findall(r"^\| `(\w+)` .*\|  \|$", describe.keys_page(), re.MULTILINE) == []


@pytest.mark.parametrize("file", ["config.yaml", "studies/smoke.yaml"])
def test_the_schema_accepts_what_the_models_accept(file: str) -> None:
    jsonschema.validate(read_yaml(ROOT / file), json.loads(describe.study_schema()))


@pytest.mark.parametrize(("extends", "accepted"), [("a.yaml", True), (["a.yaml", "b.yaml"], True), ({"a": 1}, False)])
def test_the_schema_takes_what_a_study_may_extend(extends: object, accepted: bool) -> None:
    schema = json.loads(describe.study_schema())
    assert (
        jsonschema.Draft202012Validator(schema).is_valid({**read_yaml(ROOT / "config.yaml"), "extends": extends})
        == accepted
    )


def test_the_schema_refuses_an_unknown_key() -> None:
    settings = read_yaml(ROOT / "config.yaml")
    settings["domains"]["code"]["filters"][0]["max_charcters"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings, json.loads(describe.study_schema()))
