"""cost: what the mixers of some runs cost as blocks grow longer: memory kept, and processor time.

A row a run and length. Each run's mixer is that of its first layer, with the initial weights of no seed in particular:
only shapes matter. Memory is exact; time is this machine's, so no other stage reads it but a figure.
"""

import argparse
import dataclasses
import pathlib

import pandas as pd
import torch

from speciate.cli import log, run
from speciate.config.run import RunSpec, read_spec
from speciate.io import atomic_write
from speciate.model.profiling.mixer_cost import costs

WRITERS = {".csv": pd.DataFrame.to_csv, ".parquet": pd.DataFrame.to_parquet}


def main() -> None:
    """Parses the command line, measures, writes."""
    parser = argparse.ArgumentParser(prog="speciate.stages.cost", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, nargs="+", required=True, help="spec.json of each run")
    parser.add_argument("--lengths", type=int, nargs="+", required=True, help="tokens of a block")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take the median of")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="output: .csv or .parquet")
    arguments = parser.parse_args()
    if arguments.output.suffix not in WRITERS:
        raise ValueError(f"{arguments.output}: is neither .csv nor .parquet")
    if arguments.rounds < 1:
        raise ValueError(f"--rounds: needs one round or more, not {arguments.rounds}")
    torch.set_num_threads(1)
    specs = {spec.ablation: spec for spec in (read_spec(RunSpec, file) for file in arguments.spec)}
    measured = costs({name: spec.model for name, spec in specs.items()}, arguments.lengths, arguments.rounds)
    table = pd.DataFrame([dataclasses.asdict(row) for row in measured]).rename(columns={"name": "ablation"})
    table.insert(1, "mixer", [specs[name].model.block_of(0).mixer.kind for name in table["ablation"]])
    with atomic_write(arguments.output) as temp_path:
        WRITERS[arguments.output.suffix](table, temp_path, index=False)
    log(f"measured {', '.join(specs)} at {', '.join(map(str, arguments.lengths))} tokens")


if __name__ == "__main__":
    run(main)
