"""Read the jobs' times, and summarise the manifest: commit, versions, machines, and the time of each stage."""

import csv
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciate.cli import GROUPS
from speciate.reporting.formats import DASH, Table, format_count, format_duration, make_table, plain_name, pluralise

LOG_LINE = re.compile(r"took ([\d.]+) CPU s and at most (\d+) MiB(?: on (.+))?")
"""The line that `speciate.cli` logs when a verb ends well: time, memory, machine."""
MEASURING = [*GROUPS["training"].split(), *GROUPS["analysis"].split()]
"""Stages whose numbers depend on the processor in their last bits."""


def read_benchmarks(places: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Read every job's time and memory from the workflow's benchmark files; a folder stands for all files in it.

    Snakemake samples CPU time and memory every other second. The last line of the job's log (`logs/` next to
    `benchmarks/`) is exact for one process. The larger of the two counts. A job that was never sampled and has no log
    has no CPU time (None).

    Raises:
        ValueError: a file is not a benchmark; names the file.
    """
    jobs = []
    for place in places:
        for file in sorted(place.rglob("*.tsv")) if place.is_dir() else [place]:
            with file.open(newline="", encoding="utf-8") as handle:
                rows = list(csv.DictReader(handle, delimiter="\t"))
            if not rows or "s" not in rows[0]:
                raise ValueError(f"{file}: is not a benchmark of a job")
            parts = file.with_suffix("").parts
            parts = parts[len(parts) - parts[::-1].index("benchmarks") :] if "benchmarks" in parts else parts[-2:]
            seconds = [_parse_number(row["s"]) or 0.0 for row in rows]
            logged_cpu, logged_memory, machine = _read_log(file)
            cpu = [_parse_number(row.get("cpu_time")) for row in rows]
            sampled = None if None in cpu else sum(value or 0.0 for value in cpu)
            memory = [logged_memory, *(_parse_number(row.get("max_rss")) for row in rows)]
            jobs.append(
                {
                    "stage": parts[0],
                    "name": "/".join(parts[1:]),
                    "wall_seconds": sum(seconds),
                    "cpu_seconds": max((value for value in (logged_cpu, sampled) if value is not None), default=None),
                    "max_rss_mib": max((value for value in memory if value is not None), default=None),
                    "machine": machine,
                }
            )
    return jobs


def _read_log(benchmark: pathlib.Path) -> tuple[float | None, float | None, str | None]:
    """Return the CPU seconds, MiB and machine that a job wrote last in its log; None where there is no log."""
    parts = list(benchmark.with_suffix(".log").parts)
    if "benchmarks" not in parts:
        return None, None, None
    parts[len(parts) - 1 - parts[::-1].index("benchmarks")] = "logs"
    log = pathlib.Path(*parts)
    lines = LOG_LINE.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    return (float(lines[-1][0]), float(lines[-1][1]), lines[-1][2] or None) if lines else (None, None, None)


def _parse_number(text: str | None) -> float | None:
    """Parse a benchmark's field; Snakemake writes NA or - for what it could not measure."""
    return None if text in (None, "", "-", "NA") else float(str(text))


def machines_of(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the distinct machines on which jobs ran, each with its stages, in the order of the workflow."""
    stages: dict[str, set[str]] = {}
    for job in jobs:
        if job["machine"] is not None:
            stages.setdefault(job["machine"], set()).add(job["stage"])
    order = " ".join(GROUPS.values()).split()
    return [
        {"machine": machine, "stages": [*(s for s in order if s in names), *sorted(names.difference(order))]}
        for machine, names in sorted(stages.items())
    ]


def sum_by_stage(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sum the jobs by stage, in the order of the workflow."""
    sums: dict[str, dict[str, Any]] = {}
    order = {stage: index for index, stage in enumerate(" ".join(GROUPS.values()).split())}
    for job in sorted(jobs, key=lambda job: order.get(job["stage"], len(order))):
        blank = {"jobs": 0, "wall_seconds": 0.0, "cpu_seconds": 0.0, "unmeasured": 0, "max_rss_mib": 0.0}
        stage = sums.setdefault(job["stage"], {"stage": job["stage"], **blank})
        stage["jobs"] += 1
        stage["wall_seconds"] += job["wall_seconds"]
        stage["cpu_seconds"] += job["cpu_seconds"] or 0.0
        stage["unmeasured"] += job["cpu_seconds"] is None
        stage["max_rss_mib"] = max(stage["max_rss_mib"], job["max_rss_mib"] or 0.0)
    return list(sums.values())


def time_table(manifest: Mapping[str, Any]) -> Table:
    """Return a table of the wall and CPU time of every stage."""
    rows = [
        [
            plain_name(row["stage"]),
            format_count(row["jobs"]),
            format_duration(row["wall_seconds"]),
            format_duration(row["cpu_seconds"]),
        ]
        + [format_count(row["max_rss_mib"]) if row["max_rss_mib"] else DASH]
        for row in manifest["stages"]
    ]
    total = [sum(row[name] for row in manifest["stages"]) for name in ("jobs", "wall_seconds", "cpu_seconds")]
    rows.append(["all", format_count(total[0]), format_duration(total[1]), format_duration(total[2]), DASH])
    short = sum(row["unmeasured"] for row in manifest["stages"])
    note = "Wall times are summed over jobs, which run in parallel."
    note += f" CPU times leave out {pluralise(short, 'job')} too short to be measured." if short else ""
    return make_table("Time", ["stage"], ["jobs", "wall time", "CPU time", "peak memory, MiB"], rows, note=note)


def provenance_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return commit, config, versions and machines as (name, value)."""
    commit = manifest["commit"]
    tree = {True: ", with uncommitted changes", False: "", None: ""}[commit["dirty"]]
    facts = [
        ("commit", f"{commit['revision'] or 'unknown (not a git checkout, or no git)'}{tree}"),
        ("config", f"sha256 {manifest['config_digest']}"),
    ]
    for environment in manifest["environments"]:
        known = {name: version for name, version in environment["versions"].items() if name != "cpu"}
        versions = ", ".join(f"{name} {version}" for name, version in known.items())
        which = f"environment of {pluralise(environment['runs'], 'run')}"
        threads = pluralise(environment["threads"], "thread")
        threads += f" in each of {environment['processes']} processes" if environment["processes"] > 1 else ""
        device = f"; device {environment['device']}" if environment["device"] != "cpu" else ""
        where = f"processor {environment['processor']}; instruction set {environment['instructions']}; {threads}"
        facts.append((which, f"{versions}; {where}{device}"))
    for machine in manifest["machines"]:
        measured = [stage for stage in machine["stages"] if stage in MEASURING]
        facts += [(f"machine of {', '.join(measured)}", machine["machine"])] if measured else []
    return facts
