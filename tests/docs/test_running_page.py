"""Test that the table and the picture of docs/running.md name every stage, and nothing else."""

import pathlib
import re

from speciate import cli

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
STAGES = {name for name, file in cli.verb_files().items() if file.parent.name == "stages"}


def test_the_table_names_every_stage() -> None:
    table = PAGE.split("| stage | what it does |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([a-z_, ]+) \|", table, re.MULTILINE)
    assert sorted(verb for row in rows for verb in row.split(", ")) == sorted(STAGES)


def test_the_picture_shows_stages() -> None:
    picture = re.search(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
    assert picture
    lines = [line for line in picture[1].splitlines() if "-->" in line]
    names = {word for line in lines for word in re.findall(r"[a-z_]+", re.sub(r"\[.*?\]", "", line))}
    assert names <= STAGES
    assert STAGES - names == {"calibrate", "cost", "manifest", "index"}  # these stand outside the flow
