r"""Measure one run's selectors and losses, and write them as tables.

The stage reads what training and evaluation wrote of the run, and the probe set on which it was observed. It writes one
parquet file for each table that a single run can fill. A run that failed has a row only in the table `missing`, which
says why.

Example:
    speciate measure --spec results/specs/<digest>.json --run-folder results/smoke/runs/top1/seed0 \
        --mixture-folder MIXTURE --output-folder measures
"""

import argparse
import json
import pathlib
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

from speciate.analysis import collapse, losses, measurements, selectors, summary, tables
from speciate.analysis.layers import predictors, stability, telling
from speciate.analysis.observation import Groups, ObservedSelector, Settings, Texts, group_documents, group_tally_fields
from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import MEASURED, MeasureSpec
from speciate.io import atomic_write
from speciate.selection.tally import Tally


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a MeasureSpec")
    parser.add_argument(
        "--run-folder",
        type=pathlib.Path,
        required=True,
        help="what `train` and `evaluate` wrote for the run",
    )
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where to write the tables, .parquet")


def main(arguments: argparse.Namespace) -> None:
    """Measure the run, and write its tables."""
    spec = read_spec(MeasureSpec, arguments.spec)
    try:
        measured = measure(spec, arguments.run_folder, arguments.mixture_folder)
    except ValueError as error:
        raise ValueError(f"run {spec.ablation}, seed {spec.seed}: {error}") from None
    for name, rows in measured.items():
        with atomic_write(arguments.output_folder / f"{name}.parquet") as temp_path:
            tables.write_parquet(rows, name, temp_path)
    for failure in measured["missing"].itertuples():
        log(f"{spec.ablation} seed {spec.seed}: the run failed: {failure.reason}")
        return
    row = measured["runs"].iloc[0]
    load = f", largest share {row['max_share']:.2f}" if row["num_selectors"] else ""
    log(f"{spec.ablation} seed {spec.seed}: {row['loss']:.4f} nats a token{load}")


def measure(spec: MeasureSpec, run_folder: pathlib.Path, mixture_folder: pathlib.Path) -> dict[str, pd.DataFrame]:
    """Return every table of one run, by name (`MEASURED`).

    Raises:
        ValueError: the run's files do not belong together, or not to this mixture; names the file or selector.
    """
    settings = Settings(
        num_steps=spec.num_steps,
        seed=spec.draw_seed,
        permutations=spec.permutations,
        resamples=spec.resamples,
        confidence=spec.confidence,
        armed_after=spec.armed_after,
        min_occurrences=spec.min_occurrences,
    )
    facts = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    if facts.get("state") == "failed":
        return tables_of_failed_run(spec, facts)
    texts = read_texts(mixture_folder, spec.languages)
    observed = read_observed(run_folder, texts.groups, len(texts.token_P))
    likelihood = pd.read_parquet(run_folder / "likelihood.parquet")
    logged = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    noted = json.loads((run_folder / "measured.json").read_text(encoding="utf-8"))

    rows = {
        "selectors": selectors.selectors_table(observed, texts, settings),
        "experts": selectors.experts_table(observed, texts, settings),
        "types": selectors.types_table(observed, texts),
        "losses": losses.losses_table(likelihood, texts.groups.domains, settings),
        "verdicts": verdicts_table(observed, texts.groups, settings),
        "stability": stability.stability_table(observed, texts, settings),
        "telling": telling.telling_table(observed, texts, settings),
        "predictors": predictors.predictors_table(observed, texts, settings),
        "curves": losses.curves_table(logged),
        "measurements": measurements.measurements_table(logged, noted, spec.num_steps),
        "details": pd.read_parquet(run_folder / "details.parquet"),
    }
    needed = ("parameters_total", "parameters_active", "num_steps", "train_tokens", "skipped", "spikes")
    absent = [name for name in needed if name not in facts]
    if absent:
        raise ValueError(f"{run_folder / 'run.json'}: has no {', '.join(absent)}")
    _, error = losses.standard_errors(likelihood, texts.groups.domains)
    known = {name: facts[name] for name in needed} | {"spikes": len(facts["spikes"]), "loss_error": error}
    rows["runs"] = summary.run_row(known, rows["losses"], rows["selectors"], rows["verdicts"])
    rows["missing"] = pd.DataFrame(columns=list(tables.COLUMNS["missing"]))
    rows["draws"] = tables.stack(
        [
            selectors.information_draws(observed, texts.groups, settings),
            losses.loss_draws(likelihood, texts.groups.domains, settings),
        ]
    )
    named = {name: rows[name].assign(ablation=spec.ablation, seed=spec.seed) for name in MEASURED}
    return {name: tables.conform(name, named[name], later=tables.LATER.get(name, ())) for name in MEASURED}


def tables_of_failed_run(spec: MeasureSpec, facts: dict[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the tables of a run that failed: empty but for the reason, so that no mean or test includes it."""
    rows = {name: pd.DataFrame(columns=list(tables.COLUMNS[name])) for name in MEASURED}
    failure = {"ablation": spec.ablation, "seed": spec.seed, "step": float(facts["step"]), "reason": facts["reason"]}
    rows["missing"] = pd.DataFrame([failure])
    return {name: tables.conform(name, rows[name]) for name in MEASURED}


def read_texts(folder: pathlib.Path, languages: tuple[str, ...]) -> Texts:
    """Read the probe set from a mixture's folder."""
    mixture = json.loads((folder / "mixture.json").read_text(encoding="utf-8"))
    documents = pd.read_parquet(folder / "probe.documents.parquet")
    groups = group_documents(documents, tuple(mixture["labels"]))
    document_BT = np.load(folder / "probe.document.npy")
    document_P = document_BT.reshape(-1).astype(np.int64)
    return Texts(
        groups=groups,
        token_P=np.load(folder / "probe.tokens.npy").reshape(-1).astype(np.int64),
        group_P=np.where(document_P >= 0, groups.group_R[document_P], -1),
        document_P=document_P,
        block_length=document_BT.shape[1],
        type_P=np.load(folder / "probe.types.npy").reshape(-1).astype(np.int64),
        languages=languages,
    )


def read_observed(folder: pathlib.Path, groups: Groups, num_positions: int) -> list[ObservedSelector]:
    """Read the selectors of the run in `folder`, in the order of their layers; a dense run has none."""
    early = safetensors.numpy.load_file(folder / "telemetry.safetensors")
    final = safetensors.numpy.load_file(folder / "probe.safetensors")
    paths = [name.removesuffix("/choice") for name in final if name.endswith("/choice")]
    watched = {name.rsplit("/", 1)[0] for name in early if "/" in name}
    if watched != set(paths):
        raise ValueError(f"telemetry and probe have different selectors: {sorted(watched)}, {sorted(paths)}")
    observed: list[ObservedSelector] = []
    for path in paths:
        choice_PS = final[f"{path}/choice"]
        if len(choice_PS) != num_positions:
            raise ValueError(f"selector {path}: {len(choice_PS)} choices for the probe set's {num_positions} positions")
        bits_KPB = early.get(f"{path}/choice")
        if bits_KPB is None or len(bits_KPB) != len(early["steps"]):
            problem = "has no choices" if bits_KPB is None else f"has choices of {len(bits_KPB)} checks"
            raise ValueError(
                f"selector {path}: telemetry {problem}, but {len(early['steps'])} steps; train the run anew"
            )
        checks = zip(*group_tally_fields(path, early, groups, axis=1), strict=True)
        observed.append(
            ObservedSelector(
                path=path,
                steps_K=early["steps"].astype(np.int64),
                early=tuple(Tally(*fields) for fields in checks),
                final=Tally(*group_tally_fields(path, final, groups, axis=0)),
                choice_PS=choice_PS,
                early_bits_KPB=bits_KPB,
            )
        )
    return sorted(observed, key=lambda selector: (selector.layer, selector.path))


def verdicts_table(observed: list[ObservedSelector], groups: Groups, settings: Settings) -> pd.DataFrame:
    """Return a row for each rule and selector, 'any' included.

    The alarm's guaranteed rate of false alarms is 1 - confidence.
    """
    layers = {selector.path: selector.layer for selector in observed}
    steps_K = observed[0].steps_K if observed else np.zeros(0, dtype=np.int64)
    histories = {
        selector.path: collapse.History(selector.share_KS, selector.for_alarm(groups)) for selector in observed
    }
    verdicts = collapse.apply_rules(histories, steps_K, settings.armed_step, 1 - settings.confidence)
    columns = ["selector", "rule", "fired", "first_step", "checks_to_fire"]
    rows = [[getattr(verdict, column) for column in columns] for verdict in verdicts]
    return pd.DataFrame(rows, columns=columns).assign(layer=[layers.get(verdict.selector, -1) for verdict in verdicts])
