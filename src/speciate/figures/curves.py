"""Figure: did every run learn, and do the arms diverge during training? Validation losses minus the reference's.

It shows differences, not overlaid curves: a loss falls by nats, and arms differ by hundredths.
"""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, style

QUESTION = "Did every run learn, and do the arms diverge during training?"
TABLES = {"curves": ("ablation", "seed", "step", "series", "nats")}
LIMITS = (
    "The spread between seeds is not drawn, and there are few validation blocks: a line that departs from zero is no"
    " finding by itself. The comparisons have intervals, from more text."
)
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_arms: int = Field(8, ge=1)
    """Largest number of arms compared with the reference."""


def _differences(
    tables: style.Tables, subject: style.Subject, options: Any
) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Return the mean paired difference by (step, series, ablation), the arms to draw, and all compared arms."""
    curves = tables["curves"]
    held_out = curves[curves["series"].isin(subject.domains)]
    wide = held_out.pivot(index=["seed", "step", "series"], columns="ablation", values="nats")
    if subject.reference not in wide:
        return pd.DataFrame(), [], []
    apart = wide.sub(wide[subject.reference], axis=0).groupby(["step", "series"]).mean()
    excluded = {subject.reference, *subject.incomparable}
    arms = [arm for arm in subject.arms if arm in apart and arm not in excluded]
    weight = apart.abs().groupby("step").mean().iloc[-1].to_dict()
    return apart, choosing.choose_arms(arms, options.max_arms, weight, subject), arms


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which arms end lowest and highest, and how far from the reference."""
    differences, arms, _ = _differences(tables, subject, options)
    if differences.empty:
        return ""
    last = int(differences.index.get_level_values("step").max())
    ends = differences.xs(last, level="step")[arms].mean().dropna()
    own = tables["curves"]
    own = own[(own["ablation"] == subject.reference) & own["series"].isin(subject.domains)]
    if ends.empty:
        fallen = own.groupby("step")["nats"].mean()
        return (
            f"{style.sentence(style.plain_name(subject.reference))}’s validation loss falls from {fallen.iloc[0]:.2f}"
            f" to {fallen.iloc[-1]:.2f} nats"
        )
    low, high = str(ends.idxmin()), str(ends.idxmax())
    at_end = tables["curves"]
    at_end = at_end[(at_end["step"] == last) & at_end["series"].isin(subject.domains)]
    by_seed = at_end.groupby(["seed", "ablation"])["nats"].mean().unstack("ablation")

    def apart(arm: str) -> str:
        return style.with_interval(by_seed[arm] - by_seed[subject.reference], subject.confidence)

    text = (
        f"{style.plain_name(low)} ends {apart(low)} nats from {style.plain_name(subject.reference)} on validation text"
    )
    if low != high:
        text += f", and {style.plain_name(high)} {apart(high)}"
    return style.sentence(text)


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw the reference's own losses in the first panel, then a panel per domain with each arm minus the reference."""
    differences, arms, _ = _differences(tables, subject, options)
    if differences.empty:
        return style.message_figure("The reference has no validation losses.")
    columns = 1 if style.is_narrow() else 2
    rows = -(-(1 + len(subject.domains)) // columns)
    drawn = style.new_figure(0.3 + 2.0 * rows)
    grid = drawn.subplots(rows, columns, squeeze=False)
    first, *panels = grid.flat
    _draw_reference(first, tables, subject)
    low, high = (float(function([0.0, *differences[arms].stack()])) for function in (min, max))
    pad = 0.08 * (high - low) or 0.1
    for axes in panels[len(subject.domains) :]:
        axes.set_axis_off()
    for axes, domain in zip(panels, subject.domains, strict=False):
        axes.set_ylim(low - pad, high + pad)
        _draw_panel(axes, differences.xs(domain, level="series"), arms, subject)
        axes.set_title(
            f"{style.plain_name(domain)}: minus {style.plain_name(subject.reference)}", loc="left", weight="bold"
        )
    drawn.supxlabel("optimizer step", fontsize=7.5)
    drawn.supylabel("nats per token", fontsize=7.5)
    return drawn


def _draw_reference(axes: Any, tables: style.Tables, subject: style.Subject) -> None:
    """Draw the reference's training loss and validation losses: means over seeds."""
    curves = tables["curves"][tables["curves"]["ablation"] == subject.reference]
    ends: list[tuple[float, float, str]] = []
    for series in ("train", *subject.domains):
        line = curves[curves["series"] == series].groupby("step")["nats"].mean()
        if line.empty:
            continue
        trained = series == "train"
        axes.plot(line.index, line, color=style.FAINT if trained else style.INK, linewidth=0.6 if trained else 1.1)
        ends.append((float(line.index[-1]), float(line.iloc[-1]), "training" if trained else style.plain_name(series)))
    style.label_ends(axes, ends[0][0] if ends else 0.0, [(value, name, style.INK) for _, value, name in ends])
    axes.set_title(f"{style.plain_name(subject.reference)}, its own loss", loc="left", weight="bold")


def _draw_panel(axes: Any, differences: pd.DataFrame, arms: list[str], subject: style.Subject) -> None:
    """Draw one domain: a labelled line per arm."""
    colours = style.colours(subject)
    axes.axhline(0, color=style.INK, linewidth=0.6)
    ends: list[tuple[float, str]] = []
    for index, arm in enumerate(arms):
        line = differences[arm].dropna()
        if len(line):
            dash = DASHES[index // len(style.COLOURS) % 3] if arm not in subject.controls else (0, (3, 2))
            axes.plot(line.index, line, color=colours[arm], linestyle=dash)
            ends.append((float(line.iloc[-1]), arm))
    axes.set(xlim=(0, None))
    named = [(value, style.plain_name(arm), colours[arm]) for value, arm in ends]
    style.label_ends(axes, float(differences.index.max()), named)


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    differences, arms, candidates = _differences(tables, subject, options)
    if differences.empty:
        return "The reference has no validation losses, so there is nothing to compare with."
    curves = tables["curves"]
    num_seeds = curves["seed"].nunique()
    last = int(differences.index.get_level_values("step").max())
    ends = differences.xs(last, level="step")[arms].mean()
    ends = ends.dropna()
    lowest = (
        f"{style.plain_name(str(ends.idxmin()))} is lowest ({style.format_signed(float(ends.min()))} nats)"
        if len(ends)
        else ""
    )
    highest = (
        f" and {style.plain_name(str(ends.idxmax()))} highest ({style.format_signed(float(ends.max()))})"
        if len(ends) > 1
        else ""
    )
    at_end = f" At step {last}, averaged over domains, {lowest}{highest}." if lowest else ""
    seeds = f"means over {num_seeds} seeds, each paired with the reference’s run of the same seed"
    return (
        f"First panel: the loss of {style.plain_name(subject.reference)} on its training batches and on each domain’s"
        " validation blocks. Other panels: the validation loss of each arm minus that of"
        f" {style.plain_name(subject.reference)} ({seeds if num_seeds > 1 else 'one seed'}); below zero is"
        f" better.{at_end}"
        + choosing.note_left_out((candidates, arms))
        + choosing.note_incomparable(tables["curves"]["ablation"], subject)
    )
