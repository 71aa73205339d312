"""In which order does a sampler decide its tokens? The step at which each position of a sampled text was filled."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "In which order does a sampler decide its tokens?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "y", "text")}
PREFIX = "unmasking_"


class Options(FigureOptions):
    """How much one page takes."""

    max_samplers: int = Field(7, ge=1)
    """Samplers with a panel."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Kinds of which a study must use one for this figure to be drawn."""


def _sampled_rows(tables: style.Tables, subject: style.Subject) -> tuple[pd.DataFrame, str]:
    """The rows of the first arm and seed that have a sampled text, and the arm."""
    rows = tables["details"]
    rows = rows[rows["what"].str.startswith(PREFIX)]
    arm = next((arm for arm in subject.arms if arm in set(rows["ablation"])), "")
    mine = rows[rows["ablation"] == arm]
    return mine[mine["seed"] == mine["seed"].min()], arm


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel a sampler: position across, step upwards, a point a token, the surer the darker."""
    rows, _ = _sampled_rows(tables, subject)
    kinds = list(dict.fromkeys(rows["what"]))[: options.max_samplers]
    if not kinds:
        return style.message_figure("No arm of this study samples from masks.")
    columns = min(4, len(kinds))
    lines = -(-len(kinds) // columns)
    drawn = style.new_figure(0.3 + 1.75 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False, sharex=True)
    for axes in list(grid.flat)[len(kinds) :]:
        axes.set_axis_off()
    for axes, kind in zip(grid.flat, kinds, strict=False):
        mine = rows[rows["what"] == kind]
        # a root of the probability, or all but the surest would be white
        shade = np.clip(np.exp(-mine["y"].to_numpy(dtype=float) / 4), 0.15, 1)
        axes.scatter(mine["position"], mine["x"], s=7, color=style.COLOURS[0], alpha=shade, linewidths=0)
        axes.set_title(style.plain_name(kind.removeprefix(PREFIX)), loc="left", weight="bold")
    drawn.supxlabel("position", fontsize=7.5)
    drawn.supylabel("step", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    rows, arm = _sampled_rows(tables, subject)
    kinds = list(dict.fromkeys(rows["what"]))
    if not kinds:
        return "No arm of this study samples from masks."
    names = [kind.removeprefix(PREFIX) for kind in kinds]
    sure = rows.groupby("what", sort=False)["y"].mean()
    told = "; ".join(f"{style.plain_name(kind.removeprefix(PREFIX))} {value:.2f}" for kind, value in sure.items())
    return (
        f"One text by each sampler from the finished {style.plain_name(arm)}, one seed: a point is a token at the step that"
        " filled it, faint where the model gave it little probability then. Mean nats of a token at its moment:"
        f" {told}. A sampler that waits for sure tokens draws likelier text, which is not better text."
        f"{style.note_left_out((names, names[: options.max_samplers]))}"
    )
