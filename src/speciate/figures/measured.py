"""What else changed while the selectors learned? A panel a measurement without a coordinate, a line an arm."""

from typing import Any, ClassVar

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import lines, style

QUESTION = "What else changed while the selectors learned?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}


class Options(FigureOptions):
    """How much one page takes."""

    max_panels: int = Field(8, ge=1)
    """Measurements drawn at most."""

    needs: ClassVar[tuple[str, ...]] = (
        *("depth.mod", "depth.mod_published", "objective.multi_token", "objective.masked_diffusion", "mixer.gsa"),
        *("choice.expert", "choice.token"),
    )
    """Kinds of which a study must use one for this figure to be drawn."""


def _rows_without_coordinate(tables: style.Tables) -> pd.DataFrame:
    rows = lines.telemetry_rows(tables["measurements"])
    return rows[rows["at"].isna()]


def _varying_measurements(tables: style.Tables) -> list[str]:
    """Those that move: of the measurements, the ones whose means over an arm's modules are not the same everywhere."""
    rows = _rows_without_coordinate(tables)
    spread = rows.groupby("name")["value"].agg(lambda value: value.max() - value.min())
    return sorted(str(name) for name in spread[spread > 0].index)


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel a measurement."""
    names = _varying_measurements(tables)[: options.max_panels]
    if not names:
        return style.message_figure("No module of this study measures anything beside its choices.")
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    drawn = style.new_figure(0.2 + 1.9 * rows)
    grid = drawn.subplots(rows, columns, squeeze=False)
    plain = _rows_without_coordinate(tables)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        mine = plain[plain["name"] == name]
        lines.draw_lines(axes, mine, "step", lines.drawn_arms(mine, subject), subject)
        axes.set_title(style.plain_name(name), loc="left", weight="bold")
    drawn.supxlabel("optimizer step", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    names = _varying_measurements(tables)
    if not names:
        return "No module of this study measures anything beside its choices."
    shown = names[: options.max_panels]
    return (
        "Means over an arm's modules on the prefix of the probe set, bands the range of the seeds; what each is stands"
        f" in docs/measurements.md. An arm without a line does not measure it. Arms of a panel need not be comparable:"
        f" each measures itself.{style.note_left_out((names, shown))}"
    )
