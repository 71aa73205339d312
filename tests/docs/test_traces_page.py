"""Test that docs/traces.md has the tables of the formats and columns as they are, and every kind of note."""

import re

from tests.bad_input.small import ROOT
from tests.traces import page

PAGE = page.FILE.read_text(encoding="utf-8")
READERS = [
    *(ROOT / "src/speciate/traces").rglob("*.py"),
    ROOT / "src/speciate/selection/record_builder.py",
]


def test_the_tables_are_those_of_the_modules() -> None:
    assert page.text(PAGE) == PAGE, "run `make docs`"


def test_every_kind_of_note_is_explained() -> None:
    sources = "\n".join(file.read_text(encoding="utf-8") for file in READERS)
    kinds = set(re.findall(r'add_note\(\s*"(\w+)"', sources))
    assert len(kinds) > 15
    traps = PAGE.split("\n## Traps\n")[1]
    assert set(re.findall(r"\| `(\w+)`", traps)) == kinds
