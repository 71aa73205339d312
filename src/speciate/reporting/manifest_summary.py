"""How the study was made: the manifest's versions and times."""

import csv
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciate.reporting.formats import DASH, Table, pluralise, format_duration, plain_name, make_table, format_count

STAGES = (
    *(
        "fetch",
        "clean",
        "sign",
        "bucket",
        "cluster",
        "assign_splits",
        "write_splits",
        "sketch",
        "fit",
        "encode",
        "pack",
        "balance",
    ),
    *("card", "train", "evaluate", "measure", "compare", "draw"),
)
"""The order in which a study runs its stages; others follow."""

LOG_LINE = re.compile(r"took ([\d.]+) CPU s and at most (\d+) MiB")
"""What `speciate.cli` says when a verb ends well."""


def read_benchmarks(places: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Every job's time and memory from the workflow's benchmark files (a folder stands for all in it), by path.

    Snakemake samples CPU time and memory every other second; what the job's verb said of itself, last in its log
    (`logs/` beside `benchmarks/`), is exact for one process. The larger of the two counts. A job that was never
    sampled and has no log has no CPU time (None).

    Raises:
        ValueError: a file is no benchmark; names it.
    """
    jobs = []
    for place in places:
        for file in sorted(place.rglob("*.tsv")) if place.is_dir() else [place]:
            with file.open(newline="", encoding="utf-8") as handle:
                rows = list(csv.DictReader(handle, delimiter="\t"))
            if not rows or "s" not in rows[0]:
                raise ValueError(f"{file}: is no benchmark of a job")
            parts = file.with_suffix("").parts
            parts = parts[len(parts) - parts[::-1].index("benchmarks") :] if "benchmarks" in parts else parts[-2:]
            seconds = [_parse_number(row["s"]) or 0.0 for row in rows]
            told_cpu, told_memory = _read_log(file)
            cpu = [_parse_number(row.get("cpu_time")) for row in rows]
            sampled = None if None in cpu else sum(value or 0.0 for value in cpu)
            memory = [told_memory, *(_parse_number(row.get("max_rss")) for row in rows)]
            jobs.append(
                {
                    "stage": parts[0],
                    "name": "/".join(parts[1:]),
                    "wall_seconds": sum(seconds),
                    "cpu_seconds": max((value for value in (told_cpu, sampled) if value is not None), default=None),
                    "max_rss_mib": max((value for value in memory if value is not None), default=None),
                }
            )
    return jobs


def _read_log(benchmark: pathlib.Path) -> tuple[float | None, float | None]:
    """CPU seconds and MiB that the job of a benchmark file said last in its log; None where there is none."""
    parts = list(benchmark.with_suffix(".log").parts)
    if "benchmarks" not in parts:
        return None, None
    parts[len(parts) - 1 - parts[::-1].index("benchmarks")] = "logs"
    log = pathlib.Path(*parts)
    said = LOG_LINE.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    return (float(said[-1][0]), float(said[-1][1])) if said else (None, None)


def _parse_number(text: str | None) -> float | None:
    """A benchmark's field; Snakemake writes NA or - for what it could not measure."""
    return None if text in (None, "", "-", "NA") else float(str(text))


def sum_by_stage(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The jobs summed by stage, in the order of the pipeline."""
    found: dict[str, dict[str, Any]] = {}
    order = {stage: index for index, stage in enumerate(STAGES)}
    for job in sorted(jobs, key=lambda job: order.get(job["stage"], len(order))):
        blank = {"jobs": 0, "wall_seconds": 0.0, "cpu_seconds": 0.0, "unmeasured": 0, "max_rss_mib": 0.0}
        stage = found.setdefault(job["stage"], {"stage": job["stage"], **blank})
        stage["jobs"] += 1
        stage["wall_seconds"] += job["wall_seconds"]
        stage["cpu_seconds"] += job["cpu_seconds"] or 0.0
        stage["unmeasured"] += job["cpu_seconds"] is None
        stage["max_rss_mib"] = max(stage["max_rss_mib"], job["max_rss_mib"] or 0.0)
    return list(found.values())


def time_table(manifest: Mapping[str, Any]) -> Table:
    """Wall and CPU time of every stage."""
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
    note = "Wall times are sums over jobs, which run side by side."
    note += f" {pluralise(short, 'job')} too short for a CPU time to be measured." if short else ""
    return make_table("Time", ["stage"], ["jobs", "wall time", "CPU time", "peak memory, MiB"], rows, note)


def provenance_facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commit, config and versions as (name, value)."""
    commit = manifest["commit"]
    tree = {True: ", with uncommitted changes", False: "", None: ""}[commit["dirty"]]
    found = [
        ("commit", f"{commit['revision'] or 'unknown (not a git checkout, or no git)'}{tree}"),
        ("config", f"sha256 {manifest['config_digest']}"),
    ]
    for environment in manifest["environments"]:
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        which = f"environment of {pluralise(environment['runs'], 'run')}"
        found.append((which, f"{versions}; threads {environment['threads']}"))
    return found
