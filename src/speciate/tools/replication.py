"""Compare a study's verdicts with those of the same study run elsewhere.

Another processor, another instruction set or another number of threads sums in another order, which training amplifies
as another seed would. A verdict that is not the same everywhere is unstable, whatever its interval says.

Example:
    speciate replication --study results/default --against elsewhere/results/default --output replication.csv
"""

import argparse
import json
import pathlib
from typing import Any

import pandas as pd

from speciate.cli import log
from speciate.io import atomic_write

SAME = ("statement", "statistic", "test", "arm", "reference", "direction", "margin", "value", "confidence")
"""What a hypothesis must have in common in both folders."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", type=pathlib.Path, required=True, help="folder of a finished study")
    parser.add_argument(
        "--against", type=pathlib.Path, required=True, nargs="+", help="folders of the same study, run elsewhere"
    )
    parser.add_argument("--output", type=pathlib.Path, help="table to write, .csv")


def main(arguments: argparse.Namespace) -> None:
    """Compare the folders, write the table, and say which verdicts are unstable."""
    table = replication_table([arguments.study, *arguments.against])
    if arguments.output:
        with atomic_write(arguments.output) as temp_path:
            table.to_csv(temp_path, index=False)
    for folder in (arguments.study, *arguments.against):
        log(f"{folder}: {trained_on(folder)}")
    for name, rows in table.groupby("name", sort=False):
        verdicts = "; ".join(
            f"{row.verdict} {row.difference:+.4g} [{row.low:.4g}, {row.high:.4g}]" for row in rows.itertuples()
        )
        log(f"{name}: {'stable' if rows['stable'].all() else 'UNSTABLE'}: {verdicts}")
    held = table.groupby("name")["stable"].all()
    log(f"{int(held.sum())} of {len(held)} verdicts are the same in {len(arguments.against) + 1} folders")


def replication_table(folders: list[pathlib.Path]) -> pd.DataFrame:
    """Return a row for each hypothesis and folder: its verdict there, and whether it is the same in all.

    Raises:
        ValueError: a folder holds no finished study, or another one than the first; names the folder.
    """
    parts: list[pd.DataFrame] = []
    for folder in folders:
        hypotheses = read_hypotheses(folder)
        first = parts[0] if parts else hypotheses
        if list(hypotheses["name"]) != list(first["name"]):
            raise ValueError(f"{folder}: has other hypotheses than {folders[0]}")
        for column in SAME:
            other = first[column].fillna("").ne(hypotheses[column].fillna(""))
            if other.any():
                name = hypotheses["name"][other].iloc[0]
                raise ValueError(f"{folder}: hypothesis {name} has another {column} than in {folders[0]}")
        parts.append(hypotheses.assign(folder=str(folder)))
    table = pd.concat(parts, ignore_index=True)
    order = {name: place for place, name in enumerate(parts[0]["name"])}
    table["stable"] = table.groupby("name")["verdict"].transform("nunique") == 1
    table = table.sort_values("name", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return table[["name", "folder", "verdict", "difference", "low", "high", "stable"]]


def read_hypotheses(folder: pathlib.Path) -> pd.DataFrame:
    """Return table `hypotheses` of a finished study, in the study's order. Raises ValueError naming the folder."""
    if not (folder / "manifest.json").is_file():
        raise ValueError(f"{folder}: holds no finished study, which has a manifest.json")
    return pd.read_parquet(folder / "tables" / "hypotheses.parquet")


def trained_on(folder: pathlib.Path) -> str:
    """Return on what the runs of a study were trained: processors, instruction sets, threads, and numbers of runs."""
    environments: list[dict[str, Any]] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))[
        "environments"
    ]
    return "; ".join(
        f"{each['runs']} runs on {each['processor']}, {each['instructions']}, threads: {each['threads']}"
        for each in environments
    )
