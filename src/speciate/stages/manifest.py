"""Record how the results were made, and what they answer.

One file holds the commit, the digest of the config, the versions of all packages, the sha256 of every table, the wall
and processor time of every stage, the processor, instruction set and threads on which it ran, and the study's question
and answers.

Example:
    speciate manifest --spec results/specs/<digest>.json --tables results/smoke/tables --output manifest.json
"""

import argparse
import dataclasses
import importlib.metadata
import json
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

import yaml

from speciate.config.definitions import PACKAGE
from speciate.config.run import read_spec
from speciate.config.stage_specs import ReportSpec
from speciate.io import atomic_write, sha256
from speciate.reporting import answer, page
from speciate.reporting.manifest_summary import machines_of, read_benchmarks, sum_by_stage


def read_commit(folder: pathlib.Path) -> dict[str, Any]:
    """Return the git revision of `folder` and whether tracked files differ from it; None for what git cannot say."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    changes = git("status", "--porcelain", "--untracked-files=no")
    return {"revision": git("rev-parse", "--verify", "HEAD"), "dirty": None if changes is None else bool(changes)}


def run_records(spec: ReportSpec, path: pathlib.Path) -> list[pathlib.Path]:
    """Return the run.json of each finished run of the study in a folder of runs; `path` itself if it is a file."""
    if not path.is_dir():
        return [path]
    files = [path / arm.name / f"seed{seed}" / "run.json" for arm in spec.arms for seed in spec.seeds]
    return [file for file in files if file.is_file()]


def count_environments(files: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Return the distinct environments in which runs were trained, each with its number of runs."""
    counts: dict[str, dict[str, Any]] = {}
    for file in files:
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            environment = {
                "versions": facts["versions"],
                "processor": facts.get("processor", "not recorded"),  # runs of earlier versions do not name it
                "instructions": facts["versions"].get("cpu", "not recorded"),
                "threads": facts["threads"],
                "processes": facts.get("processes", 1),
                "device": facts.get("device", "cpu"),
            }
        except (OSError, json.JSONDecodeError, KeyError) as error:
            raise ValueError(f"{file}: is not a run.json: {error}") from None
        key = json.dumps(environment, sort_keys=True)
        counts.setdefault(key, {**environment, "runs": 0})["runs"] += 1
    return list(counts.values())


def package_versions() -> dict[str, str]:
    """Return the version of every package in this environment, which is the same for all stages."""
    return dict(sorted((package.name.lower(), package.version) for package in importlib.metadata.distributions()))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a ReportSpec")
    parser.add_argument("--tables", type=pathlib.Path, required=True, help="folder of the study's tables")
    parser.add_argument(
        "--runs",
        type=pathlib.Path,
        nargs="*",
        default=[],
        help="run.json of every run, or the folder that holds ablation/seed<k> of all runs",
    )
    parser.add_argument(
        "--benchmarks", type=pathlib.Path, nargs="*", default=[], help="benchmark files, or folders of them"
    )
    parser.add_argument("--built", type=pathlib.Path, help="the environment builder's record, JSON or YAML")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="manifest to write, .json")


def main(arguments: argparse.Namespace) -> None:
    """Gather the facts, and write the manifest."""
    spec = read_spec(ReportSpec, arguments.spec)
    files = sorted(file for file in arguments.tables.iterdir() if file.suffix in (".csv", ".parquet"))
    if not files:
        raise ValueError(f"{arguments.tables}: holds no tables")
    tables = page.read_tables(arguments.tables, ("runs", "effects", "hypotheses"))
    records = [file for path in arguments.runs for file in run_records(spec, path)]
    jobs = read_benchmarks(arguments.benchmarks)
    manifest = {
        "study": spec.study,
        "question": spec.question,
        "answers": [dataclasses.asdict(part) for part in answer.answers(tables, spec)],
        "commit": read_commit(PACKAGE),
        "config_digest": spec.config_digest,
        "environments": count_environments(records),
        "built": yaml.safe_load(arguments.built.read_text(encoding="utf-8")) if arguments.built else None,
        "packages": package_versions(),
        "tables": {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files},
        "machines": machines_of(jobs),
        "stages": sum_by_stage(jobs),
        "jobs": jobs,
    }
    with atomic_write(arguments.output) as temp_path:
        temp_path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
