"""Test that docs/filters.md has a row for every filter."""

import pathlib
import re

from speciate.config.components import kinds_in

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")


def test_every_filter_has_its_row() -> None:
    first = PAGE.split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", first, re.MULTILINE)) == kinds_in("data/clean/filters")
