"""Test that the page about the doctor names its states, options and exit statuses as they are."""

import pathlib
import re

from speciate.analysis.routing.judgement import STATES
from speciate.cli import FAILED, verb_files, verb_parser
from speciate.tools.doctor import FOUND

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_the_states_are_those_of_a_judgement() -> None:
    table = PAGE.split("| state | what it means |")[1].split("\n\n")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE)) == STATES


def test_every_option_that_it_names_exists() -> None:
    parser = verb_parser(verb_files()["doctor"])
    known = {word for action in parser._actions for word in action.option_strings}
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", PAGE))
    assert {"--against", "--fail-on", "--knock-out", "--label", "--texts"} <= named <= known


def test_the_statuses_are_those_of_the_command() -> None:
    table = PAGE.split("| status | what it means |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == ["0", str(FOUND), str(FAILED)]
