"""Measure the memory and time of runs' mixers by block length.

The table has a row for each run, distinct mixer of its layers, and length. A mixer is measured alone, with initial
weights of no particular seed, since only shapes matter. Memory is exact; time depends on this machine, so only a figure
reads it.

Example:
    speciate cost --spec RUN/spec.json --lengths 512 4096 16384 --output cost.csv
"""

import argparse
import dataclasses
import pathlib

import pandas as pd
import torch

from speciate.analysis.tables import conform
from speciate.cli import log
from speciate.config.run import RunSpec, read_spec
from speciate.io import atomic_write
from speciate.model.profiling.mixer_cost import measure_mixer_costs

WRITERS = {".csv": pd.DataFrame.to_csv, ".parquet": pd.DataFrame.to_parquet}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, nargs="+", required=True, help="spec.json of each run")
    parser.add_argument("--lengths", type=int, nargs="+", required=True, help="block lengths to measure, in tokens")
    parser.add_argument(
        "--rounds", type=int, default=3, help="repeated measurements, whose median is kept (default: %(default)s)"
    )
    parser.add_argument("--output", type=pathlib.Path, required=True, help="table to write, .csv or .parquet")


def main(arguments: argparse.Namespace) -> None:
    """Measure the mixers, and write the table."""
    if arguments.output.suffix not in WRITERS:
        raise ValueError(f"{arguments.output}: is neither .csv nor .parquet")
    if arguments.rounds < 1:
        raise ValueError(f"--rounds: needs one round or more, not {arguments.rounds}")
    torch.set_num_threads(1)
    specs = {spec.ablation: spec for spec in (read_spec(RunSpec, file) for file in arguments.spec)}
    try:
        measured = measure_mixer_costs(
            {name: spec.model for name, spec in specs.items()}, arguments.lengths, arguments.rounds
        )
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    rows = pd.DataFrame([dataclasses.asdict(row) for row in measured]).rename(columns={"name": "ablation"})
    table = conform("cost", rows)
    with atomic_write(arguments.output) as temp_path:
        WRITERS[arguments.output.suffix](table, temp_path, index=False)
    log(f"measured {', '.join(specs)} at {', '.join(map(str, arguments.lengths))} tokens")
