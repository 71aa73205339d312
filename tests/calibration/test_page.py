"""Test the page of error rates: rates with their intervals, sections that are remade alone, and the verb."""

import pathlib

import pytest
from scipy import stats

from speciate.calibration import page, topics
from speciate.calibration.topic import Coverage, Rate, Size, Table, Topic, num_draws
from speciate.cli import execute


def topic(name: str, share: float) -> Topic:
    rows = (("even", Size(5, 100), share), ("uneven", Size(20, 100), 2 * share))
    return Topic(name, name.title(), "About it.", lambda effort: [Table("Drawn.", ("setting", "size", "x"), rows)])


def test_a_rate_has_the_exact_binomial_interval() -> None:
    for events, draws in ((0, 20), (7, 50), (20, 20)):
        exact = stats.binomtest(events, draws).proportion_ci(0.95, method="exact")
        assert (Rate(events, draws).low, Rate(events, draws).high) == pytest.approx((exact.low, exact.high))


def test_bold_is_what_is_beyond_its_limit() -> None:
    assert str(Size(100, 2000)) == "0.050 [0.041, 0.060]"
    assert str(Size(120, 2000)) == "**0.060 [0.050, 0.071]**"
    assert str(Coverage(1880, 2000)) == "0.940 [0.929, 0.950]"
    assert str(Coverage(1860, 2000)).startswith("**0.930")


def test_effort_never_leaves_fewer_than_twenty_draws() -> None:
    assert [num_draws(2000, effort) for effort in (1.0, 0.1, 0.0001)] == [2000, 200, 20]


def test_sections_are_read_back_and_replaced_alone(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "calibration.md"
    monkeypatch.setattr("speciate.stages.calibrate.TOPICS", (topic("one", 1.0), topic("two", 2.0)))
    execute(["calibrate", "--output", str(file)])
    assert file.read_text().startswith(page.HEAD)
    assert list(page.read_sections(file.read_text())) == ["one", "two"]
    monkeypatch.setattr("speciate.stages.calibrate.TOPICS", (topic("one", 7.0), topic("two", 8.0)))
    execute(["calibrate", "--output", str(file), "--topics", "two"])
    sections = page.read_sections(file.read_text())
    values = {name: page.read_table(text, "setting")["uneven"]["x"] for name, text in sections.items()}
    assert values == {"one": "2.000", "two": "16.000"}
    assert page.read_table(sections["one"], "setting")["uneven"]["size"].startswith("**0.200")


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="no topic weather"):
        execute(["calibrate", "--output", "page.md", "--topics", "weather"])
    with pytest.raises(ValueError, match="no table begins with a column setting"):
        page.read_table("nothing", "setting")
    with pytest.raises(ValueError, match="--effort: must be above 0"):
        execute(["calibrate", "--output", "page.md", "--effort", "0"])


def test_every_topic_is_listed_by_the_name_of_its_file() -> None:
    folder = pathlib.Path(topics.__file__).parent
    files = {file.stem for file in folder.glob("[a-z]*.py") if "\nTOPIC = " in file.read_text()}
    assert [entry.name for entry in topics.TOPICS] == sorted(files, key=[t.name for t in topics.TOPICS].index)
