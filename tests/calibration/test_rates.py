"""Remake a small part of docs/calibration.md and compare it with the page, within the error of its draws."""

import pathlib
import re

import pytest
from scipy import stats

from speciate.calibration import intervals, nulls, page, seeds
from speciate.calibration import surface as calibrated
from speciate.calibration.topic import Rate
from speciate.calibration.topics import TOPICS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "calibration.md"
SECTIONS = page.read_sections(PAGE.read_text(encoding="utf-8"))


def check(cell: str, remade: object) -> None:
    """Check that the page's rate lies within the interval of 99.9 % of the few draws that were made again."""
    assert isinstance(remade, Rate)
    share = float(re.findall(r"\d\.\d+", cell)[0])
    # the page's own draws have an error too, which its interval tells
    low, high = (float(bound) for bound in re.findall(r"\[(\S+), (\S+?)\]", cell)[0])
    nearest = min(max(remade.share, low), high)
    assert low <= share <= high
    assert stats.binomtest(remade.events, remade.draws, nearest).pvalue > 0.001, (cell, str(remade))


def test_the_page_has_every_topic() -> None:
    assert list(SECTIONS) == [topic.name for topic in TOPICS]
    for topic in TOPICS:
        assert SECTIONS[topic.name].startswith(page.format_section(topic, []).strip())


def test_the_page_was_made_with_enough_draws() -> None:
    for name in ("nulls", "intervals", "seeds", "surface"):
        counts = re.findall(r"(\d+) draws(?: without an effect|\.|$)", SECTIONS[name])
        assert counts and min(map(int, counts)) >= 2000


@pytest.mark.parametrize("place", [0, 7, 12])
def test_the_size_of_the_test_of_information(place: int) -> None:
    setting = nulls.SETTINGS[place]
    rows = page.read_table(SECTIONS["nulls"], "choices alike")
    assert list(rows) == [setting.label for setting in nulls.SETTINGS]
    _, size, _, power, *_ = nulls.plain_row(setting, 100, 50)
    check(rows[setting.label]["size"], size)
    check(rows[setting.label]["power"], power)


def test_the_size_of_the_test_beyond_tokens() -> None:
    rows = page.read_table(SECTIONS["nulls"], "by token")
    _, size, _, _, power = nulls.conditional_row(nulls.BY_TOKEN[3], 60, 40)
    check(rows[nulls.BY_TOKEN[3].label]["size"], size)
    check(rows[nulls.BY_TOKEN[3].label]["power"], power)


def test_the_coverage_of_intervals() -> None:
    rows = page.read_table(SECTIONS["intervals"], "losses")
    label, lengths = next(iter(intervals.DOCUMENTS.items()))
    _, nats, difference = intervals.loss_row(label, lengths, 200)
    check(rows[label]["nats"], nats)
    check(rows[label]["difference"], difference)
    rows = page.read_table(SECTIONS["intervals"], "excess")
    label, coverage = intervals.excess_row(intervals.EXCESS[1], 60)
    check(rows[str(label)]["coverage"], coverage)


def test_the_tests_of_hypotheses() -> None:
    rows = page.read_table(SECTIONS["seeds"], "differences")
    columns = ("size", "coverage", "size of equivalence", "power")
    for law in ("normal", "one in five far off"):
        label, size, coverage, equivalence, power = seeds.t_row(law, seeds.LAWS[law], 5, 300)
        for column, remade in zip(columns, (size, coverage, equivalence, power), strict=True):
            check(rows[str(label)][column], remade)
    rows = page.read_table(SECTIONS["seeds"], "shares")
    label, half, _, paired, power = seeds.share_row(10, 200)
    for column, remade in zip(("against 50 %", "paired", "power, paired"), (half, paired, power), strict=True):
        check(rows[str(label)][column], remade)


def test_the_coverage_of_critical_values() -> None:
    rows = page.read_table(SECTIONS["surface"], "surface")
    assert list(rows) == [surface.name for surface in calibrated.SURFACES]
    for case in calibrated.SURFACES[:2]:
        label, *coverages = calibrated.row(case, 100)
        for column, remade in zip(("at rate 3", "at rate 30", "growth"), coverages, strict=True):
            check(rows[str(label)][column], remade)
