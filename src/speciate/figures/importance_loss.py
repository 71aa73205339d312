"""Figure: do important tokens have a higher loss? Each token's importance against its loss, in the finished models."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Do important tokens have a higher loss?"
TABLES = {"details": ("ablation", "seed", "what", "item", "position", "x", "y")}


LIMITS = (
    "An importance that follows the loss need not be better to train with: only the bound under uniform masks compares"
    " arms."
)


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(6, ge=1)
    """Largest number of arms with a panel."""

    needs: ClassVar[tuple[str, ...]] = ("objective.masked_diffusion",)
    """Components of which a study must use at least one for this figure to be drawn."""


def _token_rows(tables: style.Tables) -> pd.DataFrame:
    rows = tables["details"]
    return rows[rows["what"] == "importance"]


def _correlations(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    """Return Pearson's r of each arm, as (mean, range) over the seeds; NaN where the importance does not vary."""
    correlations = {}
    for arm, arm_rows in rows.groupby("ablation"):
        by_seed = [
            float(np.corrcoef(run["x"], run["y"])[0, 1]) if run["x"].std() > 0 and run["y"].std() > 0 else float("nan")
            for _, run in arm_rows.groupby("seed")
        ]
        correlations[str(arm)] = (float(np.mean(by_seed)), float(np.ptp(by_seed)))
    return correlations


def _choose_arms(rows: pd.DataFrame, subject: style.Subject, options: Any) -> tuple[list[str], list[str]]:
    """Return all arms that have an importance, and those with a panel: not those whose importance is constant."""
    arms = [arm for arm in subject.arms if arm in set(rows["ablation"])]
    strength = {arm: abs(r) for arm, (r, _) in _correlations(rows).items() if not np.isnan(r)}
    return arms, choosing.choose_names([arm for arm in arms if arm in strength], options.max_arms, strength)


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return in which arm the importance follows the loss most, and the spread of its correlation over the seeds."""
    rows = _token_rows(tables)
    r = {arm: pair for arm, pair in _correlations(rows).items() if not np.isnan(pair[0])}
    if not r:
        return ""
    arm = max(r, key=lambda name: abs(r[name][0]))
    several = rows.loc[rows["ablation"] == arm, "seed"].nunique() > 1
    spread = f", within {r[arm][1]:.2f} over the seeds" if several else ""
    return f"Importance follows the loss most in {style.plain_name(arm)}: {_describe_correlation(r[arm][0])}{spread}"


def _describe_correlation(r: float) -> str:
    return "constant" if np.isnan(r) else f"r = {r:+.2f}".replace("-", "−")


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per arm with a point per token of the first seed."""
    rows = _token_rows(tables)
    _, arms = _choose_arms(rows, subject, options)
    if not arms:
        return style.message_figure("No arm of this study has an importance.")
    columns = min(style.columns_of(3), len(arms))
    lines = -(-len(arms) // columns)
    drawn = style.new_figure(0.3 + 2.0 * lines)
    grid = drawn.subplots(lines, columns, squeeze=False, sharey=True)
    r, colours = _correlations(rows), style.colours(subject)
    for axes in list(grid.flat)[len(arms) :]:
        axes.set_axis_off()
    for axes, arm in zip(grid.flat, arms, strict=False):
        tokens = rows[(rows["ablation"] == arm) & (rows["seed"] == rows["seed"].min())]
        axes.plot(tokens["x"], tokens["y"], ".", color=colours[arm], markersize=2, alpha=0.5, rasterized=True)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(f"{style.plain_name(arm)}: {_describe_correlation(r[arm][0])}", loc="left", weight="bold")
    drawn.supxlabel("importance", fontsize=7.5)
    drawn.supylabel("nats when masked", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    rows = _token_rows(tables)
    arms, shown = _choose_arms(rows, subject, options)
    if not shown:
        return "No arm of this study has an importance that varies."
    r = _correlations(rows)
    correlations = "; ".join(f"{style.plain_name(arm)} {_describe_correlation(r[arm][0])}" for arm in arms)
    return (
        "Each point is a token from some probe blocks, with the importance that the finished model’s estimator gives it"
        " and its mean nats when it is masked together with random other tokens. One seed is drawn; r is the mean of"
        f" the seeds’ correlations: {correlations}."
        f"{choosing.note_left_out(([arm for arm in arms if not np.isnan(r[arm][0])], shown))}"
    )
