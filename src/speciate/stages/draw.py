"""Draw one figure from the study's tables.

The figure is written as SVG for screens and as PNG for everything else, with its caption as JSON. Each figure is a file
of `figures/`; a new file is a new figure.

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
from speciate.figures import style
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
        "--output-folder", type=pathlib.Path, required=True, help="where to write NAME.svg, NAME.png and NAME.json"
    )


def main(arguments: argparse.Namespace) -> None:
    """Draw one figure, and write it with its caption."""
    spec = read_spec(DrawSpec, arguments.spec)
    module = spec.figure.component()
    tables = align_selectors(read_tables(arguments.tables, module.TABLES))
    caption = {"question": module.QUESTION, "caption": module.caption(tables, spec, spec.figure)}
    with style.figure_style():
        figure = module.figure(tables, spec, spec.figure)
        for suffix in ("svg", "png"):
            with atomic_write(arguments.output_folder / f"{spec.figure.kind}.{suffix}") as temp_path:
                style.save(figure, temp_path)
    with atomic_write(arguments.output_folder / f"{spec.figure.kind}.json") as temp_path:
        temp_path.write_text(json.dumps(caption, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
