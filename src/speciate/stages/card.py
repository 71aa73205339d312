r"""Write the tables of the data card from what each data stage counted.

Example:
    speciate card --spec results/specs/<digest>.json --clean code=results/data/clean/code-<key> ... \
        --cluster all=results/data/cluster/all-<key> --mixture-folder results/data/balance/mixture-<key> \
        --output-folder results/smoke/tables
"""

import argparse
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from speciate.analysis.tables import conform, write_csv, write_parquet
from speciate.cli import log, parse_named_paths
from speciate.config.run import read_spec
from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CardSpec
from speciate.data.arrays.npy import read_array
from speciate.data.card import counts, texts, warnings
from speciate.data.card.columns import BLANK, COLUMNS
from speciate.data.card.stage_outputs import StageOutputs, compared_scopes
from speciate.data.clean.pipeline import CONTROL_CHARACTERS
from speciate.data.mixture.manifest import read_mixture
from speciate.io import atomic_write

STAGES = ("clean", "sort", "assign_splits", "write_splits", "sketch", "encode", "pack")
"""Stages that write one folder per domain."""


def folders_of(pairs: list[str], names: list[str], argument: str) -> dict[str, pathlib.Path]:
    """Parse `NAME=DIR` arguments. Raises ValueError unless each of `names` is given once."""
    message = f"{argument}: needs NAME=DIR once for each of {', '.join(names)}, not {' '.join(pairs)}"
    return parse_named_paths(pairs, names, message)


def blocks_used(folder: pathlib.Path, spec: CardSpec) -> dict[str, dict[str, int]]:
    """Count the blocks of each domain in the mixture, repeats included, and in the held-out sets: split -> domain."""
    names = [domain.name for domain in spec.domains]
    mixture = read_mixture(folder)
    if mixture.domains != names:
        raise ValueError(
            f"{folder / 'mixture.json'}: has the domains {', '.join(mixture.domains)}, not {', '.join(names)}"
        )
    files = {"train": "train.npy", **{split: f"{split}.domain.npy" for split in SPLITS[1:]}}
    domain_of_blocks = {
        split: np.asarray(read_array(folder / file)).reshape(-1, 2 if split == "train" else 1)[:, 0]
        for split, file in files.items()
    }
    return {
        split: dict(zip(names, np.bincount(domain_B, minlength=len(names)).tolist(), strict=True))
        for split, domain_B in domain_of_blocks.items()
    }


def tables(spec: CardSpec, written: StageOutputs) -> Mapping[str, pd.DataFrame]:
    """Build every table of the card."""
    rows = counts.count_tables(spec, written, blocks_used(written.mixture, spec)) | texts.text_tables(spec, written)
    rows |= warnings.warning_table(rows, read_mixture(written.mixture).warnings)
    assert set(rows) == set(COLUMNS), set(rows) ^ set(COLUMNS)
    return {name: conform(name, pd.DataFrame(_complete_rows(name, rows[name])), COLUMNS) for name in COLUMNS}


def _complete_rows(name: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Fill what only other rows have with empty texts, and escape control characters, which csv cannot hold.

    Raises:
        ValueError: a row lacks a column that every row of the table has; pandas would fill it with NaN.
    """
    texts_of_table = [column for column, kind in COLUMNS[name].items() if kind == "str"]
    complete = [{**dict.fromkeys(BLANK.get(name, ()), ""), **row} for row in rows]
    absent = sorted({column for row in complete for column in COLUMNS[name].keys() - row.keys()})
    if absent:
        raise ValueError(f"{name}.parquet: some rows lack {', '.join(absent)}")
    escaped = [{column: CONTROL_CHARACTERS.sub(_escape, row[column]) for column in texts_of_table} for row in complete]
    return [row | texts for row, texts in zip(complete, escaped, strict=True)]


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a CardSpec: the study's data")
    for stage in ("clean", "sort", "assign_splits", "write_splits", "sketch", "encode", "pack"):
        parser.add_argument(
            f"--{stage}", nargs="+", required=True, metavar="DOMAIN=DIR", help=f"what `{stage}` wrote, for each domain"
        )
    parser.add_argument(
        "--cluster", nargs="+", required=True, metavar="SCOPE=DIR", help="what `cluster` wrote, for each scope"
    )
    parser.add_argument("--mixture-folder", type=pathlib.Path, required=True, help="what `balance` wrote")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write data_*.csv and data_*.parquet"
    )


def main(arguments: argparse.Namespace) -> None:
    """Gather the tables, and write them."""
    spec = read_spec(CardSpec, arguments.spec)
    domains = [domain.name for domain in spec.domains]
    folders = {stage: folders_of(vars(arguments)[stage], domains, f"--{stage}") for stage in STAGES}
    cluster = folders_of(arguments.cluster, compared_scopes(spec), "--cluster")
    card_tables = tables(spec, StageOutputs(**folders, cluster=cluster, mixture=arguments.mixture_folder))
    for name, table in card_tables.items():
        with atomic_write(arguments.output_folder / f"{name}.parquet") as temp_path:
            write_parquet(table, name, temp_path, COLUMNS)
        with atomic_write(arguments.output_folder / f"{name}.csv") as temp_path:
            write_csv(table, temp_path)
    for text in card_tables["data_warnings"]["warning"]:
        log(f"warning: {text}")
    used = card_tables["data_domains"].groupby("split")["tokens_used"].sum()["train"]
    log(f"{len(domains)} domains, {used} training tokens used, {len(card_tables['data_samples'])} sample documents")
