"""Test that the data page's figures show the planted counts, fit the page, and say when there is nothing to show."""

import importlib
import itertools

import numpy as np
import pytest
from tests.figures import planted_data as planted

from speciate.config.components import kinds_in, options_of
from speciate.data.card.columns import COLUMNS
from speciate.figures import style

FIGURES = [name for name in kinds_in("figures") if getattr(options_of("figures", name), "page", "report") == "data"]
MANY = tuple(f"domain_{letter}" for letter in "abcdefghijklmnopqrstuvwxyzabcd")


def draw(name: str, tables, **options):
    """Draw the figure and its caption from the tables in `TABLES` alone, without the arms."""
    module = importlib.import_module(f"speciate.figures.{name}")
    needed = {table: tables[table][list(columns)] for table, columns in module.TABLES.items()}
    settings = options_of("figures", name)(kind=name, **options)
    with style.figure_style():
        return module.figure(needed, None, settings), module.caption(needed, None, settings)


def texts_of(figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_the_data_page_has_its_figures() -> None:
    assert {"data_tokens", "data_lengths", "data_drops", "data_duplicates"} <= set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_asks_its_question_and_reads_what_the_card_writes(name: str) -> None:
    module = importlib.import_module(f"speciate.figures.{name}")
    assert module.QUESTION.endswith("?")
    first, *_ = module.__doc__.splitlines()
    assert first.startswith("Figure: ") and "?" in first
    for table, columns in module.TABLES.items():
        assert set(columns) <= set(COLUMNS[table])


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("domains", [("prose",), ("code", "math", "prose"), tuple(dict.fromkeys(MANY))])
def test_one_domain_or_many_keep_the_page(name: str, domains: tuple[str, ...]) -> None:
    figure, caption = draw(name, planted.tables(domains))
    width, height = figure.get_size_inches()
    assert width <= style.WIDTH
    assert height <= 10.6
    assert "nan" not in caption
    assert ("Not shown for lack of room" in caption) == (len(domains) > 3)


@pytest.mark.parametrize("name", FIGURES)
def test_no_two_texts_overlap(name: str) -> None:
    figure, _ = draw(name, planted.tables())
    with style.figure_style():
        figure.draw_without_rendering()
        boxes = [
            text.get_window_extent().shrunk(0.9, 0.7)
            for axes in figure.axes
            for text in (*axes.texts, *axes.get_yticklabels(), axes.title, axes._left_title)
            if text.get_text() and text.get_visible() and axes.axison
        ]
    assert len(boxes) > 5
    assert sum(bool(a.overlaps(b)) for a, b in itertools.combinations(boxes, 2)) == 0


def test_tokens_are_those_of_the_table() -> None:
    tables = planted.tables()
    figure, caption = draw("data_tokens", tables)
    train = tables["data_domains"]
    train = train[train["split"] == "train"]
    packed, used = (figure.axes[0].patches[index::2] for index in (0, 1))
    assert [bar.get_width() for bar in packed] == (train["blocks"] * planted.BLOCK).tolist()
    assert [bar.get_width() for bar in used] == train["tokens_used"].tolist()
    assert "440 k, 2.0 times over" in texts_of(figure)
    assert "In the mixture more than once: prose." in caption
    assert "Code has 9.99 times the training tokens of prose." in caption


def test_lengths_are_shares_of_each_split() -> None:
    tables = planted.tables()
    figure, caption = draw("data_lengths", tables)
    for axes in figure.axes[:3]:
        assert np.isclose(sum(bar.get_height() for bar in axes.patches), 1)
        held_out = [line for line in axes.lines if line.get_linewidth() == 0]
        assert len(held_out) == 3
        assert np.allclose([line.get_ydata().sum() for line in held_out], 1)
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linewidth()] == [planted.BLOCK]
    # 1713 documents with 5.9 million tokens: 3,400 each; math has 100 tokens per document
    assert "code 2048 to 4095, at least 100% longer than a block; math 128 to 255" in caption


def test_drops_have_their_counts_and_their_share() -> None:
    tables = planted.tables()
    figure, caption = draw("data_drops", tables)
    drops = tables["data_drops"]
    rows = drops[drops["domain"] == "code"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert sorted(width for width in widths if width) == sorted(rows["share"])
    assert [text.get_text() for text in figure.axes[1].texts] == ["374", "–", "3", "187", "65"]
    assert "too short" in [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert "code 8.8% of 4,164" in caption


def test_duplicates_are_counted_by_octave_of_size() -> None:
    figure, caption = draw("data_duplicates", planted.tables())
    assert texts_of(figure)[:3] == ["40", "4", "1"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["2 to 3", "4 to 7", "8 to 15", "16 to 31"]
    assert "code 45 with 111 documents, the largest with 19" in caption


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("data_duplicates", "data_duplicates", "No two of the documents"),
        ("data_drops", "data_drops", "No document of any domain was dropped"),
        ("data_lengths", "data_lengths", "No document has been encoded"),
    ],
)
def test_nothing_to_show_is_said_and_not_drawn(name: str, table: str, said: str) -> None:
    tables = planted.tables()
    figure, caption = draw(name, {**tables, table: tables[table].iloc[:0]})
    assert said in caption
    assert not figure.axes


def test_a_domain_of_which_nothing_is_used_is_drawn() -> None:
    tables = planted.tables()
    unused = tables["data_domains"].assign(blocks_used=0, tokens_used=0, epochs=0.0)
    figure, caption = draw("data_tokens", {**tables, "data_domains": unused})
    assert "0% used" in texts_of(figure)[0]
    assert "No domain’s text is in the mixture more than once" in caption
