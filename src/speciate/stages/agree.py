r"""Compare how the runs of a study divide the same tokens among slots.

The stage reads the choices that `evaluate` wrote. It compares every pair of seeds of an arm, and every arm with the
reference at the same seed, where runs of a seed share their initial weights. A pair counts where both have a selector
of that path.

Example:
    speciate agree --spec results/specs/<digest>.json --runs results/smoke/runs --output-folder tables
"""

import argparse
import itertools
import pathlib
from collections.abc import Iterator

import pandas as pd
import safetensors.numpy

from speciate.analysis import tables
from speciate.analysis.draws import Integers
from speciate.analysis.effects.agreement import adjusted_mutual_information, partition
from speciate.analysis.observation import layer_of
from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import AGREED, AgreeSpec
from speciate.io import atomic_write

Run = tuple[str, int]
"""(ablation, seed)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an AgreeSpec: arms, seeds, reference")
    parser.add_argument(
        "--runs", type=pathlib.Path, required=True, help="the folder that holds ablation/seed<k> of all runs"
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the table as .csv and .parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Compare the runs, and write the table."""
    spec = read_spec(AgreeSpec, arguments.spec)
    runs = itertools.product(spec.arms, spec.seeds)
    folders = {run: arguments.runs / run[0] / f"seed{run[1]}" for run in runs}
    rows = agreement_table(spec, {run: partitions(folder) for run, folder in folders.items()})
    with atomic_write(arguments.output_folder / f"{AGREED}.parquet") as temp_path:
        tables.write_parquet(rows, AGREED, temp_path)
    with atomic_write(arguments.output_folder / f"{AGREED}.csv") as temp_path:
        tables.write_csv(rows, temp_path)
    log(f"{len(rows)} pairs of selectors")


def partitions(folder: pathlib.Path) -> dict[str, Integers]:
    """Return how each selector of a run divides the positions of the probe set, by its path; none without its file."""
    file = folder / "probe.safetensors"
    arrays = safetensors.numpy.load_file(file) if file.is_file() else {}
    return {
        name.removesuffix("/choice"): partition(choice_PS)
        for name, choice_PS in arrays.items()
        if name.endswith("/choice")
    }


def pairs(spec: AgreeSpec) -> Iterator[tuple[Run, Run]]:
    """Yield the pairs of runs: the seeds of each arm, and each arm with the reference."""
    for ablation in spec.arms:
        for one, other in itertools.combinations(spec.seeds, 2):
            yield (ablation, one), (ablation, other)
    for ablation, seed in itertools.product(spec.arms, spec.seeds):
        if ablation != spec.reference:
            yield (ablation, seed), (spec.reference, seed)


def agreement_table(spec: AgreeSpec, divided: dict[Run, dict[str, Integers]]) -> pd.DataFrame:
    """Return a row for each pair of runs and each selector that both have."""
    rows = []
    for one, other in pairs(spec):
        for path, part_P in divided.get(one, {}).items():
            if path in divided.get(other, {}):
                value, decisions = adjusted_mutual_information(part_P, divided[other][path])
                names = {"ablation": one[0], "seed": one[1], "other_ablation": other[0], "other_seed": other[1]}
                rows.append({**names, "selector": path, "layer": layer_of(path), "decisions": decisions, "ami": value})
    return tables.conform(AGREED, pd.DataFrame(rows))
