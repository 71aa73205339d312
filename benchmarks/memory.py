"""Measure the largest memory of every data stage's jobs, from 10 MB to 1 GB of text.

    python benchmarks/memory.py [--megabytes 10 100 1000]

For each size, Snakemake runs the whole data part of a study with one shard in a temporary folder. The texts are
random words (log-normal lengths, one text in fifty a near copy of another) in parquet files of 25 MB. Every job
reports its own largest memory at its end. One shard is one job; a larger corpus is spread over more of them.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = pathlib.Path(__file__).parents[1]
COPIED = ("Snakefile", "config.yaml", "studies", "workflow", "profiles", "src", "containers")
FILE_BYTES = 25_000_000
STUDY = """\
extends: ../config.yaml
keep: {domains: []}
study: memory
domains:
  own:
    sources: {papers: {kind: files, paths: ["papers/*.parquet"]}}
    filters: [{kind: length, min_characters: 100}, pii]
    duplicates: near
tokenizer: {kind: bpe, entries: 4096, max_bytes: 10000000}
"""
BAR = 2.0
"""The most that a hundred times the input may multiply a stage's memory by."""


def texts(num_bytes: int, seed: int) -> list[str]:
    """Yield texts of about `num_bytes` bytes together."""
    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(draw.choice(letters, size)) for size in draw.integers(1, 11, 20_000)]  # the same in every file
    draw = np.random.default_rng(seed)
    chance = 1 / np.arange(10, 20_010)
    chance /= chance.sum()
    found: list[str] = []
    size = 0
    while size < num_bytes:
        length = int(draw.lognormal(5.5, 0.8)) + 20
        text = " ".join([words[index] for index in draw.choice(20_000, length, p=chance)])
        found += [text, f"{text} again"] if len(found) % 50 == 0 else [text]
        size += len(text) * (1 + (len(found) % 50 == 1))
    return found


def prepare(folder: pathlib.Path, megabytes: int) -> None:
    """Set up a copy of the workflow in `folder`, its study, and the input of that size."""
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / ".envs").symlink_to(ROOT / ".envs")
    (folder / "studies" / "memory.yaml").write_text(STUDY)
    (folder / "papers").mkdir()
    for number in range(max(1, megabytes * 1_000_000 // FILE_BYTES)):
        table = pa.table({"text": texts(min(FILE_BYTES, megabytes * 1_000_000), number)})
        pq.write_table(table, folder / "papers" / f"{number:03}.parquet", row_group_size=2000)


def peaks(folder: pathlib.Path) -> dict[str, float]:
    """Return the largest memory in MiB of each data stage's jobs, from their logs."""
    snakemake = str(ROOT / ".envs/host/bin/snakemake")
    command = [snakemake, "--configfile", "studies/memory.yaml", "--cores", "1", "--quiet", "all", "--", "data"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(done.stdout.decode())
    found: dict[str, float] = {}
    for file in sorted((folder / "results" / "data" / "logs").rglob("*.log")):
        stage = file.relative_to(folder / "results" / "data" / "logs").parts[0]
        for told in re.findall(r"at most (\d+) MiB", file.read_text()):
            found[stage] = max(found.get(stage, 0.0), float(told))
    return found


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    sizes = parser.parse_args().megabytes
    found: dict[str, dict[str, float]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            prepare(pathlib.Path(name), size)
            for stage, peak in peaks(pathlib.Path(name)).items():
                found.setdefault(stage, {})[f"{size} MB"] = peak
    for stage, peak in found.items():
        small, large = f"{sizes[0]} MB", f"{sizes[-1]} MB"
        over = {small: {"ratio": round(peak[large] / peak[small], 3), "bar": BAR}}
        print(
            json.dumps({"benchmark": f"memory of {stage}", "mib": peak, "ours": large, "ours_over": over}), flush=True
        )


if __name__ == "__main__":
    main()
