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


LINE = 100
"""Characters in a line."""


DARKEST = 1.5
"""A token's background is darkest from this multiple of the text's mean importance on."""


def _arms_with_importance(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    return [arm for arm in subject.arms if arm in set(rows["ablation"])]


def _choose_arms(rows: pd.DataFrame, subject: style.Subject, options: Any) -> list[str]:
    """Choose the arms with a panel: the first, the last, the one that varies most, then evenly spaced others."""
    of_arm = rows.groupby("ablation")["x"]
    variation = (of_arm.std() / of_arm.mean().abs()).fillna(0.0).to_dict()
    return choosing.choose_names(_arms_with_importance(rows, subject), options.max_arms, variation)


def _token_rows(tables: style.Tables) -> pd.DataFrame:
    rows = tables["details"]
    return rows[rows["what"] == "importance"]


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per arm: the same text, darker behind a token the further its importance is above the mean."""
    rows = _token_rows(tables)
    arms = _choose_arms(rows, subject, options)
    if not arms:
        return style.message_figure("No arm of this study has an importance.")
    longest = rows.groupby(["ablation", "seed", "item"])["text"].agg(lambda text: text.str.len().sum()).max()
    depth = -(-min(options.max_characters, int(longest)) // LINE) + 1
    drawn = style.new_figure((0.25 + 0.17 * depth) * len(arms) + 0.1)
    grid = drawn.subplots(len(arms), 1, squeeze=False)
    for axes, arm in zip(grid.flat, arms, strict=True):
        tokens = rows[(rows["ablation"] == arm) & (rows["seed"] == rows["seed"].min())]
        tokens = tokens[tokens["item"] == tokens["item"].min()].sort_values("position")
        _draw_panel(axes, tokens, options.max_characters)
        axes.set(xlim=(0, LINE), ylim=(depth, 0))
        axes.set_title(style.plain_name(arm), loc="left", weight="bold")
        axes.set_axis_off()
    return drawn


def _draw_panel(axes: Any, tokens: pd.DataFrame, max_characters: int) -> None:
    """Write the tokens in a monospaced font, line by line."""
    mean = float(tokens["x"].mean())
    column, line, written = 0, 0, 0
    for value, text in zip(tokens["x"], tokens["text"], strict=True):
        shown = "".join(character if character.isprintable() else "·" for character in text) or "·"
        if column + len(shown) > LINE:
            column, line = 0, line + 1
        if written + len(shown) > max_characters:
            return
        darkness = float(np.clip((value / mean - 1) / (DARKEST - 1), 0, 1)) if mean > 0 else 0.0
        axes.fill_between(
            [column, column + len(shown)], line, line + 1, color=style.ACCENT, alpha=0.75 * darkness, lw=0
        )
        for offset, character in enumerate(shown):
            axes.text(column + offset + 0.5, line + 0.5, character, ha="center", va="center", family="monospace")
        column, written = column + len(shown), written + len(shown)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    rows = _token_rows(tables)
    arms = _arms_with_importance(rows, subject)
    if not arms:
        return "No arm of this study has an importance."
    values = rows.groupby("ablation")["x"]
    flat = [arm for arm in arms if (values.max() - values.mean())[arm] < 0.01 * abs(values.mean()[arm])]
    unshaded = f" Without shading: {style.join_names(flat)}, with the same importance for every token." if flat else ""
    return (
        "The beginning of one probe block, for one seed. White means an importance at or below the text’s mean, darkest"
        f" means {DARKEST:g} times the mean or more; the scale is the same for every arm.{unshaded}"
        f"{choosing.note_left_out((arms, _choose_arms(rows, subject, options)))}"
    )
