r"""Compare the arms of a study and decide its hypotheses.

The stage turns the tables of the study's runs into the study's tables. It compares arms with the reference arm, paired
by seed, and specialisation with the study's controls. The interval of each hypothesis decides it. Runs that do not
exist are named in the table `missing` and counted wherever a comparison lacks them.

Example:
    speciate compare --spec results/specs/<digest>.json --measures results/smoke/measures --output-folder tables
"""

import argparse
import pathlib

import pandas as pd

from speciate.analysis import comparison, critical, excess, tables
from speciate.analysis.effects import effects
from speciate.analysis.hypotheses import hypotheses_table
from speciate.analysis.measurements import measured_statistics
from speciate.analysis.parts_of_runs import statistics_of_parts
from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import COMPARED, INTERVENED, MEASURED, CompareSpec
from speciate.io import atomic_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=pathlib.Path, required=True, help="JSON of a CompareSpec: arms, reference, hypotheses"
    )
    parser.add_argument(
        "--measures",
        type=pathlib.Path,
        nargs="+",
        required=True,
        help="the folder that `measure` wrote of each run, or the one that holds ablation/seed<k> of all runs",
    )
    parser.add_argument(
        "--interventions",
        type=pathlib.Path,
        nargs="*",
        default=[],
        help="the table that `intervene` wrote of each run, or the folder that holds ablation/seed<k> of all runs; left"
        " out in a study without interventions",
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write each table as .csv and .parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Read the runs' tables, compare, and write the study's tables."""
    spec = read_spec(CompareSpec, arguments.spec)
    folders = [run for folder in arguments.measures for run in run_folders(spec, folder)]
    files = [file for folder in arguments.interventions for file in intervention_files(spec, folder)]
    compared = compare(spec, read_measures(spec, folders), read_interventions(spec, files))
    for name, rows in compared.items():
        with atomic_write(arguments.output_folder / f"{name}.parquet") as temp_path:
            tables.write_parquet(rows, name, temp_path)
        with atomic_write(arguments.output_folder / f"{name}.csv") as temp_path:
            tables.write_csv(rows, temp_path)
    for row in compared["missing"].itertuples():
        log(f"missing: {row.ablation}, seed {row.seed}{f': {row.reason}' if row.reason else ''}")
    for row in compared["hypotheses"].itertuples():
        log(f"{row.verdict}: {row.statement}")


def run_folders(spec: CompareSpec, folder: pathlib.Path) -> list[pathlib.Path]:
    """Return the folders of the study's runs in `folder`, in the order of the study file; `folder` itself if it is one.

    Raises:
        ValueError: there is none.
    """
    if (folder / f"{MEASURED[0]}.parquet").is_file():
        return [folder]
    runs = [folder / arm.name / f"seed{seed}" for arm in spec.arms for seed in spec.seeds]
    if not any(run.is_dir() for run in runs):
        raise ValueError(f"{folder}: holds no tables of a run, nor ablation/seed<k> of a run of the study")
    return [run for run in runs if run.is_dir()]


def read_measures(spec: CompareSpec, folders: list[pathlib.Path]) -> dict[str, pd.DataFrame]:
    """Read the runs' tables, each over all runs, in the order of the study file whatever the order of `folders`.

    Raises:
        ValueError: the study does not have a folder's run, or two folders hold the same run; names the folder.
    """
    runs = [(arm.name, seed) for arm in spec.arms for seed in spec.seeds]
    folder_of_run: dict[tuple[str, int], pathlib.Path] = {}
    for folder in folders:
        # a failed run has its row in table `missing` instead of `runs`
        frames = [tables.read_table(folder / f"{name}.parquet", name) for name in ("runs", "missing")]
        (row,) = pd.concat([frame[["ablation", "seed"]] for frame in frames]).itertuples()
        run = (row.ablation, row.seed)
        if run not in runs:
            raise ValueError(f"{folder}: the study has no run {row.ablation}, seed {row.seed}")
        if run in folder_of_run:
            raise ValueError(f"{folder}: run {row.ablation}, seed {row.seed} is also in {folder_of_run[run]}")
        folder_of_run[run] = folder
    ordered = [folder_of_run[run] for run in runs if run in folder_of_run]
    return {
        # without the columns that are to be filled here, so that one that is forgotten is noticed
        name: tables.conform(
            name, tables.stack([tables.read_table(folder / f"{name}.parquet", name) for folder in ordered])
        ).drop(columns=list(tables.LATER.get(name, ())))
        for name in MEASURED
    }


def intervention_files(spec: CompareSpec, path: pathlib.Path) -> list[pathlib.Path]:
    """Return the tables of the study's runs in the folder `path`, in the order of the study file; a file is itself."""
    if path.is_file():
        return [path]
    files = [path / arm.name / f"seed{seed}" / f"{INTERVENED}.parquet" for arm in spec.arms for seed in spec.seeds]
    return [file for file in files if file.is_file()]


def read_interventions(spec: CompareSpec, files: list[pathlib.Path]) -> pd.DataFrame:
    """Read the tables of the runs' interventions as one, in the order of the study file.

    Raises:
        ValueError: a file is no such table, holds more than one run, or one that the study does not have; names it.
    """
    order = [(arm.name, seed) for arm in spec.arms for seed in spec.seeds]
    of_run: dict[tuple[str, int], pd.DataFrame] = {}
    for file in files:
        rows = tables.read_table(file, INTERVENED)
        runs = list(dict.fromkeys(zip(rows["ablation"], rows["seed"], strict=True)))
        if not runs:  # a run without selectors, or one that failed
            continue
        if len(runs) > 1 or runs[0] not in order:
            named = ", ".join(f"{ablation}, seed {seed}" for ablation, seed in runs)
            raise ValueError(f"{file}: must hold one run of the study, and holds {named}")
        of_run[runs[0]] = rows
    return tables.conform(INTERVENED, tables.stack([of_run[run] for run in order if run in of_run]))


def compare(
    spec: CompareSpec, measured: dict[str, pd.DataFrame], interventions: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """Return every table of the study, by name (`COMPARED`); without `interventions` no run counts as specialised."""
    confidence, draws = spec.confidence, measured["draws"]
    about, present = {arm.name: arm.about for arm in spec.arms}, measured["runs"]
    ablations = tuple(about)
    rows = dict(measured)
    rows["selectors"] = excess.add_load_states(
        excess.add_excess(measured["selectors"], spec.controls, len(spec.domains)), spec.controls
    )
    rows[INTERVENED] = tables.conform(INTERVENED, pd.DataFrame()) if interventions is None else interventions
    rows["effects"] = effects.effects_table(rows[INTERVENED], measured["experts"], spec.controls, spec.margin)
    described = present.assign(about=[about[ablation] for ablation in present["ablation"]])
    with_states = excess.add_states(
        described,
        rows["selectors"],
        draws,
        uses=effects.uses_by_run(rows["effects"]),
        controls=spec.controls,
        confidence=confidence,
    )
    with_effects = with_states.merge(effects.means_of_runs(rows["effects"]), "left", ["ablation", "seed"])
    rows["runs"] = tables.conform("runs", with_effects)
    rows["losses"] = comparison.add_loss_differences(measured["losses"], draws, spec.reference, confidence)
    with_measured = rows["runs"].merge(measured_statistics(measured["measurements"]), "left", ["ablation", "seed"])
    rows["comparisons"] = comparison.comparisons_table(
        with_measured,
        rows["losses"],
        ablations=ablations,
        reference=spec.reference,
        seeds=spec.seeds,
        confidence=confidence,
    )
    rows["collapse"] = comparison.collapse_table(rows["runs"], ablations, len(spec.seeds), confidence)
    hypotheses = [hypothesis.model_dump() for hypothesis in spec.hypotheses]
    names = [hypothesis.statistic for hypothesis in spec.hypotheses]
    of_parts = statistics_of_parts(names, measured["losses"], measured["selectors"], measured["types"])
    with_parts = with_measured.merge(of_parts, "left", ["ablation", "seed"])
    rows["hypotheses"] = hypotheses_table(with_parts, hypotheses, spec.seeds, confidence)
    collapsed = critical.collapsed_runs(rows["selectors"])
    rows["cells"] = critical.cells_table(spec.sweeps)
    rows["sweeps"] = critical.sweeps_table(spec.sweeps, rows["runs"], collapsed, confidence)
    rows["critical"] = tables.stack(
        [critical.critical_table(sweep, collapsed, confidence=confidence) for sweep in spec.sweeps if sweep.critical]
    )
    done = set(zip(present["ablation"], present["seed"], strict=True))
    missing = [(ablation, seed) for ablation in ablations for seed in spec.seeds if (ablation, seed) not in done]
    rows["missing"] = (
        pd.DataFrame(missing, columns=["ablation", "seed"]).merge(measured["missing"], "left").fillna({"reason": ""})
    )
    return {name: tables.conform(name, rows[name]) for name in COMPARED}
