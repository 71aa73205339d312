"""Test that each case of bad input ends as docs/bad-input.md says: one message, no partial output, same inputs."""

import pathlib
import re

import pytest
from tests.bad_input import page, small
from tests.bad_input.case import Case, Place, pattern, state

FROM_DATA = 30
"""Least number of cases of data preparation."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("reference")
    small.make(folder)
    return folder


@pytest.fixture
def place(tmp_path: pathlib.Path, reference: pathlib.Path) -> Place:
    found = Place(tmp_path / "here", reference, tmp_path / "elsewhere")
    found.folder.mkdir()
    found.elsewhere.mkdir()
    return found


@pytest.mark.parametrize("case", page.CASES, ids=lambda case: f"{case.area}: {case.wrong}")
def test_a_case_ends_as_the_table_says(case: Case, place: Place) -> None:
    command = case.make(place)
    before = state(place.folder)
    with small.within(place.folder):
        done = small.call(command) if case.run is None else case.run(place, command)
    assert done.status == case.status, done.said
    assert "Traceback" not in done.said
    if case.status == 0:
        assert not done.errors
        assert re.search(f"^speciate {command.verb}: {pattern(case.says)}$", done.said, re.MULTILINE), done.said
        if case.then is not None:
            case.then(place)
        return
    assert re.fullmatch(pattern(case.says), "\n".join(done.errors)), "\n".join(done.errors)
    assert not case.alone or state(place.folder) == before


def test_the_page_is_that_of_the_cases() -> None:
    assert page.FILE.read_text(encoding="utf-8") == page.text(), "run `make docs`"


def test_there_are_enough_cases() -> None:
    assert len({(case.area, case.wrong) for case in page.CASES}) == len(page.CASES)
    assert sum(case.area not in ("Study file", "Workflow") for case in page.CASES) >= FROM_DATA
