"""Compare two results folders of one study, made by two versions of the code: same weights, tables, figures, specs?

    python benchmarks/compare_results.py OLD/results NEW/results --study smoke

A refactoring must change no result. Files are paired by their path, the keys of data folders aside; names that changed
on purpose are listed in RENAMED. Every file is equal byte for byte, equal in its values after renaming, or reported.
Exit status 1: something differs that RENAMED does not explain.
"""

import argparse
import hashlib
import json
import pathlib
import re
import sys
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import safetensors.numpy

RENAMED = {
    # stages
    "split": "assign_splits",
    "divide": "write_splits",
    # columns of tables, and the rules they name
    "s1_step": "rule_60_percent_step",
    "s4_step": "rule_3_over_e_step",
    "s1": "rule_60_percent",
    "s4": "rule_3_over_e",
    # keys of specs and of metrics.jsonl
    "rate": "lr",
    "rate_scales": "lr_scales",
    "adamw_rate": "adamw_lr",
    "clip": "max_grad_norm",
    "accumulation": "grad_accumulation",
    "teacher": "oracle_model",
}
KEPT_KEYS = {"balance"}
"""Components whose own key `rate` is still called so."""
VOLATILE = {"timing.json", "manifest.json", "folders.json"}
"""Times, versions, digests of the config, and keys of data folders."""
TEXTS = {"report.html", "data.html"}
"""Pages: their words were rewritten."""


def canonical_path(path: pathlib.PurePath) -> str:
    """Return a path without the keys of data folders, and with a stage's present name."""
    parts = [re.sub(r"-[0-9a-f]{10}$", "", part) for part in path.parts]
    if parts[0] == "data":
        parts[1] = RENAMED.get(parts[1], parts[1])
    return "/".join(parts)


def results(folder: pathlib.Path, study: str) -> dict[str, pathlib.Path]:
    """Return the files of a study and of the data stages, by canonical path."""
    skipped = {"logs", "benchmarks", "checkpoints", ".snakemake"}
    files = [file for top in (study, "data") for file in (folder / top).rglob("*") if file.is_file()]
    # a dry run writes specs of stages that never ran
    planned = {file.parent for file in files if file.name == "spec.json" and len([*file.parent.iterdir()]) == 1}
    files = [file for file in files if file.parent not in planned or "data" not in file.relative_to(folder).parts[:1]]
    relative = [(file.relative_to(folder), file) for file in files]
    return {canonical_path(path): file for path, file in relative if not skipped & set(path.parts)}


def renamed(value: Any, inside: str = "") -> Any:
    """Return JSON data with present names of keys and kinds."""
    if isinstance(value, dict):
        keep = inside in KEPT_KEYS
        items = [(key, item) for key, item in value.items() if key != "config_digest"]
        return {(key if keep else RENAMED.get(key, key)): renamed(item, key) for key, item in items}
    if isinstance(value, list):
        return [renamed(item, inside) for item in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"(?<=-)[0-9a-f]{10}(?=/|$)", "", value)  # the key of a data folder
    return RENAMED.get(value, value) if inside in ("kind", "rule") else value


def read(file: pathlib.Path, old: bool) -> Any:
    """Return the content of a file, comparable after renaming."""
    change = renamed
    match file.suffix:
        case ".json":
            return change(json.loads(file.read_text(encoding="utf-8")))
        case ".jsonl":
            return [change(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        case ".parquet" | ".csv":
            table = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
            if old:
                table = table.rename(columns=RENAMED)
                if "rule" in table:
                    table["rule"] = table["rule"].replace(RENAMED)
            return table
        case ".safetensors":
            return safetensors.numpy.load_file(file)
    return file.read_bytes()


def equal(one: Any, other: Any) -> bool:
    """Tell whether two contents are equal, a NaN being equal to a NaN."""
    if isinstance(one, pd.DataFrame):
        return isinstance(other, pd.DataFrame) and one.equals(other)
    if isinstance(one, dict) and one and all(isinstance(value, np.ndarray) for value in one.values()):
        return set(one) == set(other) and all(np.array_equal(one[key], other[key], equal_nan=True) for key in one)
    return bool(one == other)


def differing(one: Any, other: Any) -> str:
    """Describe in a few words where two contents differ."""
    if isinstance(one, pd.DataFrame):
        if list(one.columns) != list(other.columns) or len(one) != len(other):
            return f"columns or rows: {sorted(set(one.columns) ^ set(other.columns))}, {len(one)} and {len(other)} rows"
        return f"columns {[name for name in one.columns if not one[name].equals(other[name])]}"
    if isinstance(one, dict) and isinstance(other, dict):
        return f"keys {sorted(key for key in one.keys() | other.keys() if not _same(one.get(key), other.get(key)))}"
    return "content"


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)


def main() -> int:
    """Compare, print a line for each kind of file and each difference, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=pathlib.Path)
    parser.add_argument("new", type=pathlib.Path)
    parser.add_argument("--study", default="smoke")
    arguments = parser.parse_args()
    old, new = (results(folder, arguments.study) for folder in (arguments.old, arguments.new))
    counts: Counter[tuple[str, str]] = Counter()
    unexplained = []
    for path in sorted(old.keys() | new.keys()):
        name = path.rpartition("/")[2]
        kind = "figures" if "/figures/" in path else name.rpartition(".")[2]
        if path not in old or path not in new:
            unexplained.append(f"{path}: only in {'new' if path in new else 'old'}")
            continue
        digests = [hashlib.sha256(file.read_bytes()).digest() for file in (old[path], new[path])]
        if digests[0] == digests[1]:
            counts[kind, "same bytes"] += 1
        elif name in VOLATILE or name in TEXTS:
            counts[name, "not compared"] += 1
        else:
            contents = read(old[path], old=True), read(new[path], old=False)
            if equal(*contents):
                counts[kind, "same values after renaming"] += 1
            elif kind == "figures":
                counts[kind, "other texts or pixels (see the tables that they draw)"] += 1
            else:
                unexplained.append(f"{path}: {differing(*contents)}")
    for (kind, state), count in sorted(counts.items()):
        print(f"{kind:20} {state:45} {count:5}")
    print(*unexplained, sep="\n")
    print(f"{len(unexplained)} unexplained differences")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
