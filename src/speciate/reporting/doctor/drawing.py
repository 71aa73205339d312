"""What the figures of the doctor's page share: their texts, the names of layers, and panels.

Each figure shows what was measured beside what chance, or a router without training, gives. A figure that the tables
cannot fill is left out. Its title is its finding.
"""

import json
import pathlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speciate.figures import style, svg

Tables = Mapping[str, pd.DataFrame]
Array = npt.NDArray[np.float64]
ALPHA = 0.05
"""A q-value below it counts."""
LEVELS = 3.0
"""Colours of a lift or load end at a factor of two to this power, in both directions."""


@dataclass(frozen=True)
class Drawing:
    """One figure with its texts."""

    name: str
    question: str
    finding: str
    caption: str
    limits: str
    draw: Callable[[], Figure]


def write(drawing: Drawing, folder: pathlib.Path) -> None:
    """Write a figure as `draw` does: NAME.svg, narrow/NAME.svg and NAME.json."""
    (folder / "narrow").mkdir(exist_ok=True)
    # a label in a script that matplotlib's font lacks is measured as boxes; the browser has a font that shows it
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        _draw(drawing, folder)
    texts = {name: vars(drawing)[name] for name in ("question", "finding", "caption", "limits")}
    (folder / f"{drawing.name}.json").write_text(json.dumps(texts), encoding="utf-8")


def _draw(drawing: Drawing, folder: pathlib.Path) -> None:
    for width, file in ((style.WIDTH, f"{drawing.name}.svg"), (style.NARROW, f"narrow/{drawing.name}.svg")):
        with style.figure_style(width):
            svg.save(drawing.draw(), folder / file)


def rows_of(tables: Tables, name: str, *needed: str) -> pd.DataFrame | None:
    """Return a table's rows in which the needed columns have values; None where there are none."""
    table = tables.get(name)
    if table is None or any(column not in table for column in needed):
        return None
    rows = table.dropna(subset=list(needed)).reset_index(drop=True)
    return rows if len(rows) else None


def layer_names(rows: pd.DataFrame) -> list[str]:
    """Return what each row's layer is called: its number or its path, with its phase where there are several."""
    phases = rows["phase"].nunique() > 1 if "phase" in rows else False
    numbered = not rows.drop_duplicates("path")["layer"].duplicated().any() and (rows["layer"] >= 0).all()
    names = [str(layer) if numbered else str(path) for layer, path in zip(rows["layer"], rows["path"], strict=True)]
    return [f"{name}, {phase}" for name, phase in zip(names, rows["phase"], strict=True)] if phases else names


def arms(centre: Array, low: Array, high: Array) -> list[Array]:
    """Return the lengths of error bars for an interval; an unknown one has none."""
    return [np.nan_to_num(np.maximum(0, centre - low)), np.nan_to_num(np.maximum(0, high - centre))]


def height_of(rows: int, least: float = 1.5) -> float:
    """Return the height in inches of a figure with a row for each layer or expert."""
    return float(np.clip(0.55 + 0.16 * rows, least, 9.0))


def label_layers(axes: Axes, names: list[str]) -> None:
    """Name the layers at the axis, the first one at the top; of very many, some."""
    every = max(1, -(-len(names) // 48))
    axes.set_yticks(range(0, len(names), every), [shorten(name) for name in names[::every]])
    axes.set_ylim(len(names) - 0.5, -0.5)


def shorten(name: str, most: int = 26) -> str:
    """Return a name for an axis, of at most `most` characters, without what matplotlib would read as mathematics."""
    kept = name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most // 2) :]}"
    return "".join(character if character.isprintable() else "·" for character in kept).replace("$", r"\$")


def panels_of(count: int, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side, or one above the other on a narrow screen."""
    narrow = style.is_narrow()
    figure = style.new_figure(height * (count if narrow else 1))
    grid = figure.subplots(count if narrow else 1, 1 if narrow else count, squeeze=False)
    return figure, list(grid.flat)
