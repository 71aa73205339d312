"""Figure: what else changed while the selectors learned? A panel per measurement, with a line per arm."""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import choosing, lines, style

QUESTION = "What else changed while the selectors learned?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}


LIMITS = "The arms of a panel need not be comparable: each measures itself."


class Options(FigureOptions):
    """Limits of what one page can hold."""

    max_panels: int = Field(8, ge=1)
    """Largest number of measurements drawn."""

    needs: ClassVar[tuple[str, ...]] = (
        *("depth.mod", "depth.mod_published", "objective.multi_token", "objective.masked_diffusion", "mixer.gsa"),
        *("choice.expert", "choice.token"),
    )
    """Components of which a study must use at least one for this figure to be drawn."""


def _rows_without_coordinate(tables: style.Tables) -> pd.DataFrame:
    rows = lines.telemetry_rows(tables["measurements"])
    return rows[rows["at"].isna()]


def _varying_measurements(tables: style.Tables) -> list[str]:
    """Return the names of the measurements whose values are not the same everywhere."""
    rows = _rows_without_coordinate(tables)
    spread = rows.groupby("name")["value"].agg(lambda value: value.max() - value.min())
    # the last digits of a constant may differ
    size = rows.groupby("name")["value"].agg(lambda value: value.abs().max())
    return sorted(str(name) for name in spread[spread > 1e-6 * size].index)


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return which measurement changed most between its first and its last check, relative to its size."""
    names = _varying_measurements(tables)
    if not names:
        return ""
    rows = _rows_without_coordinate(tables)
    rows = rows[rows["name"].isin(names)]
    means = rows.groupby(["name", "ablation", "step"])["value"].mean()
    ends = means.groupby(["name", "ablation"]).agg(["first", "last"])
    change = (ends["last"] - ends["first"]).abs() / ends.abs().max(axis=1).where(lambda size: size > 0, 1.0)
    name, arm = change.idxmax()
    first, last = ends.loc[(name, arm)]
    return (
        f"{style.sentence(style.plain_name(str(name)))} of {style.plain_name(str(arm))} goes from {first:.3g} to"
        f" {last:.3g}, the largest change of {len(names)} measurements"
        if len(names) > 1
        else f"{style.sentence(style.plain_name(str(name)))} of {style.plain_name(str(arm))} goes from {first:.3g} to"
        f" {last:.3g}"
    ).replace("-", "−")


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a panel per measurement."""
    names = _varying_measurements(tables)[: options.max_panels]
    if not names:
        return style.message_figure("No module of this study records a metric besides its choices.")
    columns = min(1 if style.is_narrow() else 2, len(names))
    rows = -(-len(names) // columns)
    drawn = style.new_figure(0.2 + 1.9 * rows)
    grid = drawn.subplots(rows, columns, squeeze=False)
    plain = _rows_without_coordinate(tables)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        values = plain[plain["name"] == name]
        lines.draw_lines(axes, values, by="step", arms=lines.drawn_arms(values, subject), subject=subject)
        axes.set_title(style.plain_name(name), loc="left", weight="bold")
        axes.set_ylabel(style.plain_name(name))
    drawn.supxlabel("optimizer step", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    names = _varying_measurements(tables)
    if not names:
        return "No module of this study records a metric besides its choices."
    shown = names[: options.max_panels]
    return (
        "Means over an arm’s modules on the prefix of the probe set; the bands are the range of the seeds."
        " docs/measurements.md explains each metric. An arm without a line does not record it."
        f"{choosing.note_left_out((names, shown))}"
    )
