"""Test the figures of tasks on planted scores: what is drawn, what is said, and that its text does not overlap."""

import itertools

import pandas as pd
import pytest
from tests.figures import planted, planted_tasks

from speciate.figures import scored, style, task_heat, task_lengths

ARMS = ("dense", "auxiliary", "unbalanced_fast", "frozen", "hash")


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return planted_tasks.tables(ARMS, (0, 1), ("code", "prose"))


def draw(module, tables, width: float = style.WIDTH, **options):
    settings = module.Options(kind=module.__name__.rpartition(".")[2], **options)
    subject = planted.subject(ARMS)
    with style.figure_style(width):
        return module.figure(tables, subject, settings), module.caption(tables, subject, settings)


def test_a_map_has_a_square_for_each_length_and_depth_with_its_number(tables) -> None:
    figure, caption = draw(task_heat, tables)
    maps = [axes for axes in figure.axes if axes.axison]
    assert len(maps) == len(ARMS)
    lost = maps[ARMS.index("unbalanced_fast")]
    numbers = {tuple(round(place) for place in text.get_position()): text.get_text() for text in lost.texts}
    assert len(numbers) == len(lost.patches) == 20
    # the needle at the end of the text is found, in the lowest row; elsewhere it is not
    assert {text for (_, row), text in numbers.items() if row == 4} == {"1.0"}
    assert {text for (_, row), text in numbers.items() if row < 4} == {".00"}
    assert [label.get_text() for label in lost.get_xticklabels()] == ["128", "256", "512", "1k"]
    assert lost.get_ylim()[0] > lost.get_ylim()[1], "the beginning of the text is at the top"
    assert "Guessing scores, in needle (accuracy) 0.100." in caption and "Not shown" not in caption


@pytest.mark.parametrize("module", [task_heat, task_lengths])
def test_a_score_that_never_changes_is_told_and_not_drawn(module, tables) -> None:
    rows = tables["tasks"]
    needle = rows[(rows["task"] == "needle") & (rows["metric"] == "accuracy")]
    constant = needle.assign(part="multi_key", value=0.0)
    _, before = draw(module, tables)
    figure, caption = draw(module, {"tasks": pd.concat([constant, rows])})
    told = " Not drawn, because every arm has the same score everywhere: needle multi key (accuracy) 0.000."
    assert told in caption and caption.replace(told, "") == before
    assert not any("multi key" in axes.get_title(loc="left") for axes in figure.axes)
    # where nothing ever changes, that is what the figure shows
    alone, caption = draw(module, {"tasks": constant})
    assert alone.axes and "Not drawn" not in caption


def test_arms_that_find_no_room_are_named(tables) -> None:
    figure, caption = draw(task_heat, tables, max_arms=3)
    assert sum(axes.axison for axes in figure.axes) == 3
    assert "Not shown for lack of room: " in caption


def test_lines_are_the_scores_over_all_depths_and_guessing_is_drawn(tables) -> None:
    figure, caption = draw(task_lengths, tables)
    (axes,) = figure.axes
    lines = {tuple(round(float(value), 9) for value in line.get_ydata()) for line in axes.lines}
    assert lines == {
        (0.1, 0.1, 0.1, 0.1),  # guessing
        (0.875, 0.75, 0.5, 0.25),  # dense and hash: 7, 6, 4 and 2 of 8
        (1.0, 1.0, 1.0, 1.0),
        (0.2, 0.2, 0.2, 0.2),
        (0.125, 0.125, 0.125, 0.125),
    }
    assert {text.get_text() for text in axes.texts} == {"guessing", *(style.plain_name(arm) for arm in ARMS)}
    assert "Dashed: what guessing scores." in caption
    assert "over groups of questions, by a bootstrap" in caption


@pytest.mark.parametrize("width", [style.WIDTH, style.NARROW])
@pytest.mark.parametrize("module", [task_heat, task_lengths])
def test_no_two_texts_overlap(module, width: float, tables) -> None:
    figure, _ = draw(module, tables, width)
    with style.figure_style(width):
        figure.draw_without_rendering()
        boxes = [
            text.get_window_extent().shrunk(0.9, 0.7)
            for axes in figure.axes
            for text in (*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.title, axes.yaxis.label)
            if text.get_text() and text.get_visible() and axes.axison
        ]
    assert len(boxes) > 8
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    assert figure.get_size_inches()[0] <= width


def test_a_study_whose_tasks_have_one_length_shows_neither() -> None:
    tables = planted_tasks.tables(ARMS, (0, 1), ("code", "prose"))
    reading = {name: rows[rows["task"] == "reading"] for name, rows in tables.items()}
    for module in (task_heat, task_lengths):
        options = module.Options(kind="any")
        assert module.finding(reading, planted.subject(ARMS), options) == ""
        figure, caption = draw(module, reading)
        assert not figure.axes and caption == module.EMPTY


@pytest.mark.parametrize(("length", "shown"), [(128, "128"), (1024, "1k"), (1536, "1.5k"), (1000, "1000")])
def test_a_length_is_short_on_an_axis(length: int, shown: str) -> None:
    assert scored.thousands(length) == shown
