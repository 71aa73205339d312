"""Figure: which words does the estimator consider important? Importance drawn on text, by arm."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Which words does the estimator consider important?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "text")}


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(4, ge=1)
    """Largest number of arms with a panel."""
    max_characters: int = Field(420, ge=40)
    """Largest number of characters of the text."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Components of which a study must use at least one for this figure to be drawn."""


LIMITS = "One text of one seed is an illustration; the correlation with the loss is over many tokens."
LINE, NARROW_LINE = 100, 50
"""Characters in a line, and in a line of the narrow rendering."""


DARKEST = 1.5
"""A token's background is darkest from this multiple of the text's mean importance on."""


def _arms_with_importance(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    return [arm for arm in subject.arms if arm in set(rows["ablation"])]


def _choose_arms(rows: pd.DataFrame, subject: style.Subject, options: Any) -> list[str]:
    """Choose the arms with a panel: the first, the last, the one that varies most, then evenly spaced others."""
    variation = _variation(rows)
    arms = [arm for arm in _arms_with_importance(rows, subject) if variation[arm] > FLAT]
    return choosing.choose_names(arms, options.max_arms, variation)


FLAT = 0.01
"""An importance varies if its standard deviation is a larger part of its mean."""


def _variation(rows: pd.DataFrame) -> dict[str, float]:
    """Return the standard deviation of each arm's importance over its mean."""
    of_arm = rows.groupby("ablation")["x"]
    return {str(arm): float(value) for arm, value in (of_arm.std() / of_arm.mean().abs()).fillna(0.0).items()}


def whole_words(texts: list[str], max_characters: int) -> tuple[int, int]:
    """Return the first token and the end of the tokens that make whole words, of at most `max_characters`.

    A block may begin and end within a word: the part before its first white space is left out, and so is a word that
    does not end within the limit. A text without white space is cut at the limit.
    """
    starts = [index for index, text in enumerate(texts) if text[:1].isspace()]
    first = starts[0] if starts else 0
    while first < len(texts) - 1 and not texts[first].strip():
        first += 1
    end, written = len(texts), 0
    for index in range(first, len(texts)):
        written += len(texts[index])
        if written > max_characters:
            end = index
            break
    # a word ends where the next token begins with white space
    ends = [index for index in starts if first < index <= end]
    return first, ends[-1] if ends else end


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return the tokens of the text that the most selective arm considers most important."""
    rows = _token_rows(tables)
    arms = _choose_arms(rows, subject, options)
    if not arms:
        return ""
    variation = _variation(rows)
    arm = max(arms, key=lambda name: variation[name])
    return (
        f"Importance varies most in {style.plain_name(arm)}: its standard deviation is {variation[arm]:.2f} of its mean"
    )


def _token_rows(tables: style.Tables) -> pd.DataFrame:
    rows = tables["details"]
    return rows[rows["what"] == "importance"]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per arm: the same text, darker behind a token the further its importance is above the mean."""
    rows = _token_rows(tables)
    arms = _choose_arms(rows, subject, options)
    if not arms:
        return style.message_figure("No arm of this study has an importance.")
    panels = {arm: _first_words(rows[rows["ablation"] == arm], options) for arm in arms}
    line = NARROW_LINE if style.is_narrow() else LINE
    depth = max(_num_lines(tokens, line) for tokens in panels.values())
    drawn = style.new_figure((0.25 + 0.17 * depth) * len(arms) + 0.1)
    grid = drawn.subplots(len(arms), 1, squeeze=False)
    for axes, arm in zip(grid.flat, arms, strict=True):
        _draw_panel(axes, panels[arm], line)
        axes.set(xlim=(0, line), ylim=(depth, 0))
        axes.set_title(style.plain_name(arm), loc="left", weight="bold")
        axes.set_axis_off()
    return drawn


def _first_words(rows: pd.DataFrame, options: Any) -> pd.DataFrame:
    """Return the tokens of the first whole words of an arm's first text, of its first seed."""
    tokens = rows[rows["seed"] == rows["seed"].min()]
    tokens = tokens[tokens["item"] == tokens["item"].min()].sort_values("position")
    first, end = whole_words(tokens["text"].tolist(), options.max_characters)
    return tokens.iloc[first:end]


def _num_lines(tokens: pd.DataFrame, length: int) -> int:
    """Return how many lines `_draw_panel` needs."""
    column, lines = 0, 1
    for text in tokens["text"]:
        size = len(text) or 1
        column, lines = (size, lines + 1) if column + size > length else (column + size, lines)
    return lines


def _draw_panel(axes: Any, tokens: pd.DataFrame, length: int) -> None:
    """Write the tokens in a monospaced font, line by line."""
    mean = float(tokens["x"].mean())
    column, line = 0, 0
    for value, text in zip(tokens["x"], tokens["text"], strict=True):
        shown = "".join(character if character.isprintable() else "·" for character in text) or "·"
        if column + len(shown) > length:
            column, line = 0, line + 1
        darkness = round(float(np.clip((value / mean - 1) / (DARKEST - 1), 0, 1)), 1) if mean > 0 else 0.0
        if darkness:
            ends = [column, column + len(shown)]
            axes.fill_between(ends, line, line + 1, color=style.ACCENT, alpha=0.75 * darkness, lw=0)
        for offset, character in enumerate(shown):
            axes.text(column + offset + 0.5, line + 0.5, character, ha="center", va="center", family="monospace")
        column += len(shown)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    rows = _token_rows(tables)
    arms = _arms_with_importance(rows, subject)
    if not arms:
        return "No arm of this study has an importance."
    variation = _variation(rows)
    flat = [arm for arm in arms if variation[arm] <= FLAT]
    unshaded = f" Not drawn: {style.join_names(flat)}, with the same importance for every token." if flat else ""
    return (
        "The first whole words of one probe block, for one seed. White means an importance at or below the text’s"
        f" mean, darkest means {DARKEST:g} times the mean or more; the scale is the same for every arm.{unshaded}"
        f"{choosing.note_left_out(([arm for arm in arms if arm not in flat], _choose_arms(rows, subject, options)))}"
    )
