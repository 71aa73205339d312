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


def _plain(tables: style.Tables) -> pd.DataFrame:
    rows = lines.while_training(tables["measurements"])
    return rows[rows["at"].isna()]


def _names(tables: style.Tables) -> list[str]:
    """Those that move: of the measurements, the ones whose means over an arm's modules are not the same everywhere."""
    rows = _plain(tables)
    spread = rows.groupby("name")["value"].agg(lambda value: value.max() - value.min())
    return sorted(str(name) for name in spread[spread > 0].index)


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """A panel a measurement."""
    names = _names(tables)[: options.max_panels]
    if not names:
        return style.message("No module of this study measures anything beside its choices.")
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    drawn = style.canvas(0.2 + 1.9 * rows)
    grid = drawn.subplots(rows, columns, squeeze=False)
    plain = _plain(tables)
    for axes in list(grid.flat)[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        mine = plain[plain["name"] == name]
        lines.draw(axes, mine, "step", lines.arms_of(mine, subject), subject)
        axes.set_title(style.spoken(name), loc="left", weight="bold")
    drawn.supxlabel("optimizer step", fontsize=7.5)
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """What is seen and what is not."""
    names = _names(tables)
    if not names:
        return "No module of this study measures anything beside its choices."
    shown = names[: options.max_panels]
    return (
        "Means over an arm's modules on the prefix of the probe set, bands the range of the seeds; what each is stands"
        f" in docs/measurements.md. An arm without a line does not measure it. Arms of a panel need not be comparable:"
        f" each measures itself.{style.left_out((names, shown))}"
    )
