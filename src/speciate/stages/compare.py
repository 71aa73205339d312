r"""Compare the arms of a study and decide its hypotheses.

The tables of the study's runs become the study's tables. Arms are compared with the reference arm, paired by seed;
specialisation is compared with the study's controls; each hypothesis of the study file is decided by its interval. Runs
that do not exist are named in the table `missing` and counted wherever they are missed.

Example:
    speciate compare --spec results/smoke/specs/compare.json --measures results/smoke/measures/*/seed* \
        --output-folder tables
"""

import argparse
import pathlib

import pandas as pd

from speciate.analysis import comparison, excess, tables
from speciate.analysis.measurements import statistics_of
from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import CompareSpec
from speciate.io import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--spec", type=pathlib.Path, required=True, help="JSON of a CompareSpec: arms, reference, hypotheses"
    )
    parser.add_argument(
        "--measures",
        type=pathlib.Path,
        nargs="+",
        required=True,
        help="the folders that `measure` wrote, one for each run",
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write each table as .csv and .parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Read the runs' tables, compare, and write the study's tables."""
    spec = read_spec(CompareSpec, arguments.spec)
    found = compare(spec, read_measures(spec, arguments.measures))
    for name, rows in found.items():
        with atomic_write(arguments.output_folder / f"{name}.parquet") as temp_path:
            tables.write_parquet(rows, name, temp_path)
        with atomic_write(arguments.output_folder / f"{name}.csv") as temp_path:
            tables.write_csv(rows, temp_path)
    for row in found["missing"].itertuples():
        log(f"missing: {row.ablation}, seed {row.seed}{f': {row.reason}' if row.reason else ''}")
    for row in found["hypotheses"].itertuples():
        log(f"{row.verdict}: {row.statement}")


def read_measures(spec: CompareSpec, folders: list[pathlib.Path]) -> dict[str, pd.DataFrame]:
    """The runs' tables, each over all runs, in the order of the study file whatever the order of `folders`.

    Raises:
        ValueError: a run that the study does not have, or one that two folders hold; names the folder.
    """
    runs = [(arm.name, seed) for arm in spec.arms for seed in spec.seeds]
    found: dict[tuple[str, int], pathlib.Path] = {}
    for folder in folders:
        # a run that failed has its row in the other table
        there = [tables.read(folder / f"{name}.parquet", name)[["ablation", "seed"]] for name in ("runs", "missing")]
        (row,) = pd.concat(there).itertuples()
        if (row.ablation, row.seed) not in runs:
            raise ValueError(f"{folder}: the study has no run {row.ablation}, seed {row.seed}")
        if (row.ablation, row.seed) in found:
            raise ValueError(f"{folder}: run {row.ablation}, seed {row.seed} is in {found[row.ablation, row.seed]} too")
        found[row.ablation, row.seed] = folder
    ordered = [found[key] for key in runs if key in found]
    return {
        name: tables.frame(
            name, pd.concat([tables.read(folder / f"{name}.parquet", name) for folder in ordered], ignore_index=True)
        )
        for name in tables.MEASURED
    }


def compare(spec: CompareSpec, measured: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Every table of the study, by name (`tables.COMPARED`)."""
    confidence, draws = spec.confidence, measured["draws"]
    about, present = {arm.name: arm.about for arm in spec.arms}, measured["runs"]
    ablations = tuple(about)
    rows = dict(measured)
    rows["selectors"] = excess.with_excess(measured["selectors"], spec.controls, len(spec.domains))
    told = present.assign(about=[about[ablation] for ablation in present["ablation"]])
    rows["runs"] = tables.frame("runs", excess.with_states(told, rows["selectors"], draws, spec.controls, confidence))
    rows["losses"] = comparison.with_differences(measured["losses"], draws, spec.reference, confidence)
    with_measured = rows["runs"].merge(statistics_of(measured["measurements"]), "left", ["ablation", "seed"])
    rows["comparisons"] = comparison.comparisons_table(
        with_measured, rows["losses"], ablations, spec.reference, spec.seeds, confidence
    )
    rows["collapse"] = comparison.collapse_table(rows["runs"], ablations, len(spec.seeds), confidence)
    hypotheses = [hypothesis.model_dump() for hypothesis in spec.hypotheses]
    rows["hypotheses"] = comparison.hypotheses_table(with_measured, hypotheses, spec.seeds, confidence)
    there = set(zip(present["ablation"], present["seed"], strict=True))
    gone = [(ablation, seed) for ablation in ablations for seed in spec.seeds if (ablation, seed) not in there]
    rows["missing"] = (
        pd.DataFrame(gone, columns=["ablation", "seed"]).merge(measured["missing"], "left").fillna({"reason": ""})
    )
    return {name: tables.frame(name, rows[name]) for name in tables.COMPARED}
