"""Figure: does an uneven load cost anything? Test loss against MaxVio, and each arm's loss minus the reference's.

MaxVio = E max f - 1 (Wang et al. 2024, auxiliary-loss-free balancing), the largest over the selectors of a run. Runs of
one seed saw the same data in the same order, so arms are compared within a seed.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Does an uneven load cost anything?"
TABLES = {
    "runs": ("ablation", "seed", "loss", "max_violation", "unevenness"),
    "comparisons": ("statistic", "ablation", "difference", "low", "high"),
}
LIMITS = (
    "Arms differ in more than their load, so the left panel is no dose-response curve; and a short training of a small"
    " model does not show what an uneven load costs later."
)
MIN_MAX_VIOLATION = 1e-3
"""A smaller MaxVio is drawn here, because a logarithmic axis has no zero."""
LABEL_INCHES, MAX_LABELS_MOVED = 0.16, 3
"""Height of a label with its margin, and the largest distance of a label from its point, in such heights."""
LABEL_BOX = {"facecolor": style.PAPER, "alpha": 0.7, "linewidth": 0, "pad": 0.4}
"""Box behind a label that keeps lines from crossing it."""


class Options(FigureOptions):
    """No options."""


def _comparable_runs(tables: style.Tables, subject: style.Subject) -> pd.DataFrame:
    """Return the runs whose loss is of the same kind as the reference's."""
    runs = tables["runs"].dropna(subset=["loss"])
    return runs[~runs["ablation"].isin(list(subject.incomparable))]


def _seed_markers(runs: pd.DataFrame) -> dict[int, str]:
    """Return every seed's marker."""
    return {seed: style.MARKERS[index % len(style.MARKERS)] for index, seed in enumerate(sorted(runs["seed"].unique()))}


def most_uneven_arm(tables: style.Tables, subject: style.Subject) -> str | None:
    """Return the arm that learns with the most uneven load, as the mean over its runs; None where none has a load.

    MaxVio and shares do not compare selectors of different sizes; unevenness does.
    """
    means = _comparable_runs(tables, subject).groupby("ablation")["unevenness"].mean().dropna()
    learned = [arm for arm in means.index if style.learns(str(arm), subject)]
    return str(means[learned].idxmax()) if learned else None


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the most uneven arm loses against the reference, and whether it can be told apart."""
    runs = _comparable_runs(tables, subject)
    if runs.empty:
        return ""
    arm = most_uneven_arm(tables, subject)
    compared = tables["comparisons"]
    compared = compared[compared["statistic"] == "loss"].set_index("ablation")
    reference = style.plain_name(subject.reference)
    if arm is None or arm not in compared.index:
        return (
            f"{style.sentence(reference)} ends at {runs[runs['ablation'] == subject.reference]['loss'].mean():.3f} nats"
        )
    row = compared.loc[arm]
    low, high = float(row["low"]), float(row["high"])
    bounds = f" [{style.format_signed(low)}, {style.format_signed(high)}]" if np.isfinite([low, high]).all() else ""
    unsure = "" if low > 0 or high < 0 else ", not told apart"
    return (
        f"{style.sentence(style.plain_name(arm))}, the most uneven arm that learns, ends"
        f" {style.format_signed(float(row['difference']))}{bounds} nats from {reference}{unsure}"
    )


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw loss against load with a point per run, and the difference from the reference with a point per seed."""
    runs = _comparable_runs(tables, subject)
    if runs.empty:
        return style.message_figure("No run of this study has a test loss.")
    arms = [arm for arm in subject.arms if arm in set(runs["ablation"])]
    height = max(2.9, 0.7 + 0.24 * len(arms))
    if style.is_narrow():
        drawn = style.new_figure(2.8 + height)
        left, right = drawn.subplots(2, 1, gridspec_kw={"height_ratios": [2.8, height]})
    else:
        drawn = style.new_figure(height)
        left, right = drawn.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1]})
    _draw_scatter(left, runs, arms, style.colours(subject))
    _draw_differences(right, tables["comparisons"], runs, subject)
    _add_legend(drawn, runs)
    return drawn


def _add_legend(drawn: Figure, runs: pd.DataFrame) -> None:
    """Say above the panels which marker is which seed."""
    handles = [
        Line2D([], [], color=style.QUIET, marker=marker, linestyle="", markersize=4, label=f"seed {seed}")
        for seed, marker in _seed_markers(runs).items()
    ]
    if (runs.groupby("ablation").size() > 2).any():
        handles.append(Line2D([], [], color=style.QUIET, marker="o", linestyle="", markersize=5.5, label="mean (left)"))
    drawn.legend(
        handles=handles,
        loc="outside upper center",
        ncols=style.columns_of(11) if not style.is_narrow() else 4,
        frameon=False,
        fontsize=6,
        handletextpad=0.1,
        columnspacing=0.9,
    )


def _draw_scatter(axes: Any, runs: pd.DataFrame, arms: list[str], colours: dict[str, str]) -> None:
    """Draw a point per run, joined to its arm's mean; an arm without selectors is a horizontal line."""
    markers = _seed_markers(runs)
    places: list[tuple[float, float, str]] = []
    across: list[tuple[float, str]] = []
    for arm in arms:
        arm_runs = runs[runs["ablation"] == arm].sort_values("seed")
        if arm_runs["max_violation"].isna().all():
            across.append((float(arm_runs["loss"].mean()), arm))
            continue
        x = arm_runs["max_violation"].clip(lower=MIN_MAX_VIOLATION)
        middle = (float(np.exp(np.log(x).mean())), float(arm_runs["loss"].mean()))
        # with many seeds the mean is large and each seed small; two seeds are just a line
        many = len(arm_runs) > 2
        edge = {"markeredgecolor": "white", "markeredgewidth": 0.4}
        for seed, *point in zip(arm_runs["seed"], x, arm_runs["loss"], strict=True):
            axes.plot(*zip(middle, point, strict=True), color=colours[arm], linewidth=0.4 if many else 0.8)
            axes.plot(*point, markers[seed], color=colours[arm], markersize=2.6 if many else 4, **edge)
        if many:
            axes.plot(*middle, "o", color=colours[arm], markersize=5.5, zorder=3, **edge)
        places.append((*middle, arm) if many else (float(x.iloc[-1]), float(arm_runs["loss"].iloc[-1]), arm))
    axes.set(xlabel="largest MaxVio of the layers (0: balanced)", ylabel="test loss, nats per token", xscale="log")
    axes.margins(x=0.08, y=0.12)
    for (x_last, _, arm), height in zip(places, _label_heights(places, axes), strict=True):
        if height is None:
            continue
        axes.annotate(
            style.plain_name(arm), (x_last, height), (5, 0), textcoords="offset points", va="center", color=colours[arm]
        )
        axes.texts[-1].set(fontsize=6.5, bbox=LABEL_BOX)
    heights = style.spread_apart([loss for loss, _ in across], _label_height(axes))
    for (loss, arm), height in zip(across, heights, strict=True):
        name = f"{style.plain_name(arm)} (no selector)"
        axes.axhline(loss, color=colours[arm], linewidth=0.8, linestyle=(0, (5, 2)), zorder=0)
        axes.annotate(name, (0, height), (3, 2), ("axes fraction", "data"), "offset points")
        axes.texts[-1].set(fontsize=6.5, color=colours[arm], va="bottom", bbox=LABEL_BOX)
    ticks = [tick for tick in (0.001, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30) if _is_inside(tick, axes.get_xlim())]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _label_heights(places: list[tuple[float, float, str]], axes: Any) -> list[float | None]:
    """Return heights at which the labels of `places` do not overlap; None where a label would be far off."""
    low, high = np.log(axes.get_xlim())
    height = _label_height(axes)
    boxes: list[tuple[float, float, float]] = []
    heights: list[float | None] = []
    for x, y, arm in places:
        start = (np.log(x) - low) / (high - low)
        end = start + 0.03 + 0.024 * len(arm)
        candidates = (y + height * sign * step / 4 for step in range(MAX_LABELS_MOVED * 4) for sign in (1, -1))
        free = (
            candidate
            for candidate in candidates
            if not any(start < right and left < end and abs(candidate - taken) < height for left, right, taken in boxes)
        )
        heights.append(next(free, None))
        if heights[-1] is not None:
            boxes.append((start, end, heights[-1]))
    return heights


def _label_height(axes: Any) -> float:
    """Return the height of a label in units of the vertical axis."""
    return LABEL_INCHES / float(axes.figure.get_size_inches()[1]) * float(np.ptp(axes.get_ylim()))


def _is_inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _draw_differences(axes: Any, comparisons: pd.DataFrame, runs: pd.DataFrame, subject: style.Subject) -> None:
    """Draw each arm's loss minus the reference's at the same seed, with the interval over seeds."""
    markers, colours = _seed_markers(runs), style.colours(subject)
    wide = runs.pivot(index="seed", columns="ablation", values="loss")
    arms = [arm for arm in subject.arms if arm in wide and arm != subject.reference]
    compared = comparisons[comparisons["statistic"] == "loss"].set_index("ablation")
    axes.axvline(0, color=style.INK, linewidth=0.6)
    reach = 0.0
    for row, arm in enumerate(arms):
        paired = (wide[arm] - wide[subject.reference]).dropna() if subject.reference in wide else wide[arm].iloc[:0]
        reach = max(reach, float(paired.abs().max()) if len(paired) else 0.0)
        if arm in compared.index and np.isfinite(compared.loc[arm, ["low", "high"]].astype(float)).all():
            low, high = float(compared.loc[arm, "low"]), float(compared.loc[arm, "high"])
            axes.plot([low, high], [row, row], color=style.FAINT, linewidth=2.4, solid_capstyle="butt", zorder=0)
        axes.plot(paired, [row] * len(paired), color=colours[arm], linewidth=0.8)
        for seed, value in paired.items():
            axes.plot(value, row, markers[seed], color=colours[arm], markeredgecolor="white", markeredgewidth=0.4)
    # two seeds give intervals far wider than the points: the axis is scaled to the points, and bars may run off it
    limit = 2.2 * reach or 1.0
    axes.set(xlim=(-limit, limit), ylim=(max(1, len(arms)) - 0.5, -0.5))
    axes.set_yticks(range(len(arms)), [style.plain_name(arm) for arm in arms])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"loss minus {style.plain_name(subject.reference)}, same seed, nats")


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    runs = _comparable_runs(tables, subject)
    if runs.empty:
        return "No run of this study has a test loss."
    num_seeds = runs["seed"].nunique()
    means = runs.groupby("ablation")[["loss", "max_violation", "unevenness"]].mean()
    routed, most, worst = means.dropna(), most_uneven_arm(tables, subject), ""
    if len(routed) > 1 and most is not None:
        worst = (
            f" {style.sentence(style.plain_name(most))} has the most uneven load of the arms that learn (MaxVio"
            f" {routed.loc[most, 'max_violation']:.2f}) and a loss of {routed.loc[most, 'loss']:.3f}; the arms with"
            f" selectors lie between {routed['loss'].min():.3f} and {routed['loss'].max():.3f}."
        )
    interval = (
        f"grey: the {subject.confidence:.0%} interval of the mean over {num_seeds} seeds, which may run off the axis"
        if num_seeds > 1
        else "with one seed there is no interval"
    )
    large = ", which is larger" if (runs.groupby("ablation").size() > 2).any() else ""
    crowded = " In crowded places some points have no name; the right panel names every arm." if len(means) > 12 else ""
    few = " With two seeds the interval has one degree of freedom: very wide, but honest." if num_seeds == 2 else ""
    return (
        "Left: test loss (every domain has the same weight; auxiliary losses are never included) against the"
        f" largest MaxVio of a run’s layers, with a marker per seed joined to its arm’s centre{large}. Right: the loss"
        f" minus that of {style.plain_name(subject.reference)} at the same seed, which saw the same data in the same"
        f" order; {interval}.{few}{worst}{crowded}" + choosing.note_incomparable(tables["runs"]["ablation"], subject)
    )
