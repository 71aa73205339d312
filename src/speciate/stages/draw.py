"""Draw one figure from the study's tables.

The figure is written as SVG for screens, once for wide ones and once for narrow ones, and as PNG for everything else.
Its title, its caption and what it does not show are written as JSON. Each figure is a file of `figures/`; a new file is
a new figure. A figure that the study cannot fill has an empty title, and the pages leave it out.

Example:
    speciate draw --spec results/specs/<digest>.json --tables results/smoke/tables --output-folder figures
"""

import argparse
import json
import pathlib
from collections.abc import Mapping

import pandas as pd

from speciate.analysis.alignment import align_selectors
from speciate.config.run import read_spec
from speciate.config.stage_specs import DrawSpec
from speciate.figures import style, svg
from speciate.io import atomic_write


def read_tables(folder: pathlib.Path, needed: Mapping[str, tuple[str, ...]]) -> dict[str, pd.DataFrame]:
    """Read the tables that a figure needs from their parquet files.

    Raises:
        ValueError: a table is missing, cannot be read or lacks a column; the message names both.
    """
    tables: dict[str, pd.DataFrame] = {}
    for name, columns in needed.items():
        file = folder / f"{name}.parquet"
        try:
            tables[name] = pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None
        missing = [column for column in columns if column not in tables[name]]
        if missing:
            raise ValueError(f"{file}: has no column {', '.join(missing)}")
    return tables


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=pathlib.Path, required=True, help="JSON of a DrawSpec: the figure, the arms, the controls"
    )
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables (parquet)")
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        help="where to write NAME.svg, narrow/NAME.svg, NAME.png and NAME.json",
    )


def main(arguments: argparse.Namespace) -> None:
    """Draw one figure, and write it with its caption."""
    spec = read_spec(DrawSpec, arguments.spec)
    module = spec.figure.component()
    tables = align_selectors(read_tables(arguments.tables, module.TABLES))
    with style.figure_style(style.WIDTH):
        named = {
            "question": module.QUESTION,
            "finding": module.finding(tables, spec, spec.figure),
            "caption": module.caption(tables, spec, spec.figure),
            "limits": module.LIMITS,
        }
    kind = spec.figure.kind
    for width, files in ((style.WIDTH, (f"{kind}.svg", f"{kind}.png")), (style.NARROW, (f"narrow/{kind}.svg",))):
        with style.figure_style(width):
            figure = module.figure(tables, spec, spec.figure)
            for file in files:
                with atomic_write(arguments.output_folder / file) as temp_path:
                    svg.save(figure, temp_path)
    with atomic_write(arguments.output_folder / f"{kind}.json") as temp_path:
        temp_path.write_text(json.dumps(named, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
