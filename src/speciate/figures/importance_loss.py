"""Do important tokens cost more? Each token's importance against its loss, of the finished models."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import style

QUESTION = "Do important tokens cost more?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "y")}


class Options(FigureOptions):
    """How much one page takes."""

    max_arms: int = Field(6, ge=1)
    """Arms with a panel."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Kinds of which a study must use one for this figure to be drawn."""


def _token_rows(tables: style.Tables) -> pd.DataFrame:
    rows = tables["details"]
    return rows[rows["what"] == "importance"]


def _correlations(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """(mean over the seeds of Pearson's r, its range) of each arm; NaN of one whose importance does not vary."""
    found = {}
    for arm, mine in rows.groupby("ablation"):
        each = [
            float(np.corrcoef(one["x"], one["y"])[0, 1]) if one["x"].std() > 0 and one["y"].std() > 0 else float("nan")
            for _, one in mine.groupby("seed")
        ]
        found[str(arm)] = (float(np.mean(each)), float(np.ptp(each)))
    return found


def _choose_arms(rows: pd.DataFrame, subject: style.Subject, options: Any) -> tuple[list[str], list[str]]:
    """All arms that have an importance, and those with a panel."""
    arms = [arm for arm in subject.arms if arm in set(rows["ablation"])]
    follows = {arm: abs(np.nan_to_num(r)) for arm, (r, _) in _correlations(rows).items()}
    return arms, style.choose_names(arms, options.max_arms, follows)


def _describe_correlation(r: float) -> str:
    return "constant" if np.isnan(r) else f"r = {r:+.2f}".replace("-", "−")


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel an arm: a point a token of the first seed."""
    rows = _token_rows(tables)
    _, arms = _choose_arms(rows, subject, options)
    if not arms:
        return style.message_figure("No arm of this study has an importance.")
    columns = min(3, len(arms))
    lines = -(-len(arms) // columns)
    drawn = style.new_figure(0.3 + 2.0 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False, sharey=True)
    r, colours = _correlations(rows), style.colours(subject)
    for axes in list(grid.flat)[len(arms) :]:
        axes.set_axis_off()
    for axes, arm in zip(grid.flat, arms, strict=False):
        mine = rows[(rows["ablation"] == arm) & (rows["seed"] == rows["seed"].min())]
        axes.plot(mine["x"], mine["y"], ".", color=colours[arm], markersize=2, alpha=0.5, rasterized=True)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(f"{style.plain_name(arm)}: {_describe_correlation(r[arm][0])}", loc="left", weight="bold")
    drawn.supxlabel("importance", fontsize=7.5)
    drawn.supylabel("nats when masked", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    rows = _token_rows(tables)
    arms, shown = _choose_arms(rows, subject, options)
    if not arms:
        return "No arm of this study has an importance."
    r = _correlations(rows)
    told = "; ".join(f"{style.plain_name(arm)} {_describe_correlation(r[arm][0])}" for arm in arms)
    return (
        "A point is a token of some probe blocks, with the importance that the finished model's estimator gives it and"
        " its mean nats when it is masked among random others; one seed is drawn, r is the mean over the seeds' own"
        f" correlations: {told}.{style.note_left_out((arms, shown))} An importance that follows the loss"
        " may still be no better to train with: arms are compared by the uniform-mask bound alone."
    )
