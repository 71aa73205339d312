"""Figure: in which order does a sampler fill in its tokens? The step at which each position of a text was filled."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "In which order does a sampler fill in its tokens?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "y", "text")}
LIMITS = "A sampler that waits for certain tokens draws more likely text, which is not better text."
PREFIX = "unmasking_"


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_samplers: int = Field(7, ge=1)
    """Largest number of samplers with a panel."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Components of which a study must use at least one for this figure to be drawn."""


def _sampled_rows(tables: style.Tables, subject: style.Subject) -> tuple[pd.DataFrame, str]:
    """Return the rows of the first arm and seed that have a sampled text, and the arm."""
    rows = tables["details"]
    rows = rows[rows["what"].str.startswith(PREFIX)]
    arm = next((arm for arm in subject.arms if arm in set(rows["ablation"])), "")
    rows = rows[rows["ablation"] == arm]
    return rows[rows["seed"] == rows["seed"].min()], arm


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which sampler fills in the most likely tokens, and which the least likely."""
    rows, arm = _sampled_rows(tables, subject)
    if rows.empty:
        return ""
    nats = rows.groupby("what", sort=False)["y"].mean()
    low, high = (style.plain_name(str(name).removeprefix(PREFIX)) for name in (nats.idxmin(), nats.idxmax()))
    text = f"{style.sentence(style.plain_name(arm))} fills in tokens of {nats.min():.2f} nats with {low}"
    return text if low == high else f"{text}, and of {nats.max():.2f} nats with {high}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per sampler, of step against position: a point per token, darker where it was more certain."""
    rows, _ = _sampled_rows(tables, subject)
    kinds = list(dict.fromkeys(rows["what"]))[: options.max_samplers]
    if not kinds:
        return style.message_figure("No arm of this study samples from masks.")
    columns = min(style.columns_of(4), len(kinds))
    lines = -(-len(kinds) // columns)
    drawn = style.new_figure(0.3 + 1.75 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False, sharex=True)
    for axes in list(grid.flat)[len(kinds) :]:
        axes.set_axis_off()
    for axes, kind in zip(grid.flat, kinds, strict=False):
        tokens = rows[rows["what"] == kind]
        # the fourth root of the probability, or all but the most certain tokens would be white
        shade = np.clip(np.exp(-tokens["y"].to_numpy(dtype=float) / 4), 0.3, 1).round(1)
        axes.scatter(tokens["position"], tokens["x"], s=7, color=style.COLOURS[0], alpha=shade, linewidths=0)
        axes.set_title(style.plain_name(kind.removeprefix(PREFIX)), loc="left", weight="bold")
    drawn.supxlabel("position", fontsize=7.5)
    drawn.supylabel("step", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    rows, arm = _sampled_rows(tables, subject)
    kinds = list(dict.fromkeys(rows["what"]))
    if not kinds:
        return "No arm of this study samples from masks."
    names = [kind.removeprefix(PREFIX) for kind in kinds]
    nats = rows.groupby("what", sort=False)["y"].mean()
    means = "; ".join(f"{style.plain_name(kind.removeprefix(PREFIX))} {value:.2f}" for kind, value in nats.items())
    return (
        f"One text from each sampler, by the finished {style.plain_name(arm)}, for one seed. Each point is a token at"
        " the step that filled it in, and is faint where the model then gave it little probability. Mean nats of a"
        f" token at that moment: {means}."
        f"{choosing.note_left_out((names, names[: options.max_samplers]))}"
    )
