"""How the study was made: what each data stage read and dropped, and the manifest's versions, digests and times."""

import csv
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from speciate.reporting.cells import NOTHING, Table, counted, duration, fixed, size, spoken, table, whole

SPLITS = ("train", "validation", "test", "probe")
STAGES = (
    *("fetch", "clean", "split", "fit", "encode", "pack", "balance"),
    *("train", "evaluate", "measure", "compare", "draw"),
)
"""The order in which a study runs its stages; others follow."""
Counts = dict[str, dict[str, Any]]
"""Stage -> domain (or the mixture) -> its counts."""


def read_counts(files: Iterable[pathlib.Path]) -> Counts:
    """The counts that data stages wrote, from `<stage>/<name>-<key>/counts.json` (or mixture.json).

    Raises:
        ValueError: a file is not JSON; names it.
    """
    found: Counts = {}
    for file in files:
        stage, name = file.parent.parent.name, file.parent.name.rsplit("-", 1)[0]
        try:
            found.setdefault(stage, {})[name] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{file}: holds no counts: {error}") from None
    return found


def mixture_of(counts: Counts) -> dict[str, Any]:
    """mixture.json, or nothing."""
    return next(iter(counts.get("balance", {}).values()), {})


def data_tables(counts: Counts, domains: Sequence[str]) -> list[Table]:
    """Documents by domain with every reason for a drop; tokens and blocks by domain."""
    return [*_documents(counts, domains), *_tokens(counts, domains)]


def _documents(counts: Counts, domains: Sequence[str]) -> list[Table]:
    clean, split = counts.get("clean", {}), counts.get("split", {})
    if not clean:
        return []
    reasons = list(dict.fromkeys(reason for domain in domains for reason in clean.get(domain, {}).get("dropped", {})))
    rows = []
    for domain in domains:
        mine, parts = clean.get(domain, {}), split.get(domain, {})
        dropped = mine.get("dropped", {})
        numbers = [mine.get("read"), *(dropped.get(reason, 0) for reason in reasons), mine.get("kept")]
        numbers += [parts.get(name, {}).get("documents") for name in SPLITS]
        rows.append([spoken(domain), *(whole(value) for value in numbers), size(mine.get("bytes_kept"))])
    numbers = ["read", *(f"dropped: {spoken(reason)}" for reason in reasons), "kept", *SPLITS, "bytes kept"]
    return [table("Documents", ["domain"], numbers, rows, "Every document is in one split only.")]


def _tokens(counts: Counts, domains: Sequence[str]) -> list[Table]:
    encode, pack, mixture = counts.get("encode", {}), counts.get("pack", {}), mixture_of(counts)
    if not encode and not mixture:
        return []
    length = mixture.get("block_length", 0)
    rows = []
    for domain in domains:
        tokens = [_of(encode, domain, split, "tokens") for split in SPLITS]
        packed = [_of(pack, domain, "train", name) for name in ("tokens_dropped", "documents_split")]
        blocks = mixture.get("train_blocks", {}).get(domain)
        available = mixture.get("available_blocks", {}).get("train", {}).get(domain)
        used = None if blocks is None else blocks * length
        numbers = [*tokens, *packed, available, blocks, used]
        rows.append([spoken(domain), *(whole(value) for value in numbers)])
    numbers = [*(f"{split} tokens" for split in SPLITS), "dropped in packing", "documents split"]
    numbers += ["blocks packed", "blocks used", "tokens used"]
    held = ", ".join(f"{count} {name} blocks" for name, count in mixture.get("held_out_blocks", {}).items())
    note = f"Blocks of {length} tokens." + (f" Held out of every domain: {held}." if held else "")
    return [table("Tokens", ["domain"], numbers, rows, note if length else "")]


def _of(stage: Mapping[str, Any], domain: str, split: str, name: str) -> Any:
    mine = stage.get(domain, {})
    return mine.get("splits", mine).get(split, {}).get(name)


def read_benchmarks(places: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
    """Every job's time and memory from the workflow's benchmark files (a folder stands for all in it), by path.

    A job so short that it was never sampled has no CPU time (None).

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
            seconds = [_number(row["s"]) or 0.0 for row in rows]
            cpu = [_number(row.get("cpu_time")) for row in rows]
            memory = [_number(row.get("max_rss")) for row in rows]
            jobs.append(
                {
                    "stage": parts[0],
                    "name": "/".join(parts[1:]),
                    "wall_seconds": sum(seconds),
                    "cpu_seconds": None if None in cpu else sum(value or 0.0 for value in cpu),
                    "max_rss_mib": max((value for value in memory if value is not None), default=None),
                }
            )
    return jobs


def _number(text: str | None) -> float | None:
    """A benchmark's field; Snakemake writes NA or - for what it could not measure."""
    return None if text in (None, "", "-", "NA") else float(str(text))


def stages(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
        [spoken(row["stage"]), whole(row["jobs"]), duration(row["wall_seconds"]), duration(row["cpu_seconds"])]
        + [whole(row["max_rss_mib"]) if row["max_rss_mib"] else NOTHING]
        for row in manifest["stages"]
    ]
    total = [sum(row[name] for row in manifest["stages"]) for name in ("jobs", "wall_seconds", "cpu_seconds")]
    rows.append(["all", whole(total[0]), duration(total[1]), duration(total[2]), NOTHING])
    short = sum(row["unmeasured"] for row in manifest["stages"])
    note = "Wall times are sums over jobs, which run side by side."
    note += f" {counted(short, 'job')} too short for a CPU time to be measured." if short else ""
    return table("Time", ["stage"], ["jobs", "wall time", "CPU time", "peak memory, MiB"], rows, note)


def facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Commit, config and versions as (name, value)."""
    commit = manifest["commit"]
    tree = {True: ", with uncommitted changes", False: "", None: ""}[commit["dirty"]]
    found = [
        ("commit", f"{commit['revision'] or 'unknown (not a git checkout, or no git)'}{tree}"),
        ("config", f"sha256 {manifest['config_digest']}"),
    ]
    for environment in manifest["environments"]:
        versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
        which = f"environment of {counted(environment['runs'], 'run')}"
        found.append((which, f"{versions}; threads {environment['threads']}"))
    return found


def mixture_facts(counts: Counts) -> list[str]:
    """How uneven the domains were before balancing, and every warning."""
    mixture = mixture_of(counts)
    if not mixture:
        return []
    ratio = mixture.get("imbalance")
    told = [] if ratio is None else [f"Before balancing, the largest domain had {fixed(ratio, 2)} times the smallest."]
    return told + [f"Warning: {warning}." for warning in mixture.get("warnings", [])]
