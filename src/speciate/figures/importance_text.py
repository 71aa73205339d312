"""Which words does the estimator take for important? Importance drawn on text, by arm."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.figures import style
from speciate.kinds import Kind

QUESTION = "Which words does the estimator take for important?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "text")}


class Options(Kind):
    """How much one page takes."""

    max_arms: int = Field(4, ge=1)
    """Arms with a panel."""
    max_characters: int = Field(420, ge=40)
    """Of the text."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Kinds of which a study must use one for this figure to be drawn."""


LINE = 100
"""Characters of a line."""


def _arms(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    return [arm for arm in subject.arms if arm in set(rows["ablation"])]


def _tokens(tables: style.Tables) -> pd.DataFrame:
    rows = tables["details"]
    return rows[rows["what"] == "importance"]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel an arm: the same text, each token's ground darker the more important it is within the text."""
    rows = _tokens(tables)
    arms = _arms(rows, subject)[: options.max_arms]
    if not arms:
        return style.message("No arm of this study has an importance.")
    longest = rows.groupby(["ablation", "seed", "item"])["text"].agg(lambda text: text.str.len().sum()).max()
    depth = -(-min(options.max_characters, int(longest)) // LINE) + 1
    drawn = style.canvas((0.25 + 0.17 * depth) * len(arms) + 0.1)
    grid = drawn.subplots(len(arms), 1, squeeze=False)
    for axes, arm in zip(grid.flat, arms, strict=True):
        mine = rows[(rows["ablation"] == arm) & (rows["seed"] == rows["seed"].min())]
        _panel(axes, mine[mine["item"] == mine["item"].min()].sort_values("position"), options.max_characters)
        axes.set(xlim=(0, LINE), ylim=(depth, 0))
        axes.set_title(style.spoken(arm), loc="left", weight="bold")
        axes.set_axis_off()
    return drawn


def _panel(axes: Any, mine: pd.DataFrame, most: int) -> None:
    """Writes the tokens in a fixed-width face, line by line."""
    low, high = float(mine["x"].min()), float(mine["x"].max())
    column, line, written = 0, 0, 0
    for value, text in zip(mine["x"], mine["text"], strict=True):
        shown = "".join(character if character.isprintable() else "·" for character in text) or "·"
        if column + len(shown) > LINE:
            column, line = 0, line + 1
        if written + len(shown) > most:
            return
        ground = 0.0 if high - low < 1e-12 else (float(value) - low) / (high - low)
        axes.fill_between([column, column + len(shown)], line, line + 1, color=style.ACCENT, alpha=0.75 * ground, lw=0)
        for offset, character in enumerate(shown):
            axes.text(column + offset + 0.5, line + 0.5, character, ha="center", va="center", family="monospace")
        column, written = column + len(shown), written + len(shown)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    rows = _tokens(tables)
    arms = _arms(rows, subject)
    if not arms:
        return "No arm of this study has an importance."
    flat = [arm for arm in arms if np.ptp(rows[rows["ablation"] == arm]["x"]) < 1e-6]
    said = f" No shade at all: {style.listed(flat)}, whose importance is the same for every token." if flat else ""
    return (
        "The beginning of one probe block of one seed; dark: the highest importance in it, white: the lowest. Each arm"
        f" has its own scale, so shades compare within an arm only.{said}"
        f"{style.left_out((arms, arms[: options.max_arms]))}"
    )
