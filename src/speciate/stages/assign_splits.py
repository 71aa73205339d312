"""Assign a domain's documents to training, validation, test and probe.

Documents of one group go to the same split.

Example:
    speciate assign_splits --spec spec.json --signed signed/code --duplicates duplicates.parquet --output-folder splits
"""

import argparse
import json
import pathlib

import numpy as np
from pydantic import Field

from speciate.cli import log
from speciate.config.components import Strict
from speciate.config.data import Split
from speciate.config.run import Name, read_spec
from speciate.config.stage import SIGNED, SPLITS, Stage
from speciate.data.dedup.signatures import ORDER_COLUMNS, read_signed_shards
from speciate.data.splits.assign import assign_groups, merge_groups
from speciate.data.splits.read import read_dropped_rows
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    split: Split
    shards: int = Field(1, ge=1)


STAGE = Stage(
    per="domain",
    reads={
        "sign": SIGNED,
        "cluster": ("duplicates.parquet",),
    },
    writes=("groups.npy", "counts.json"),
    spec=lambda graph, name: Spec(domain=name, split=graph.domain_split(name), **graph.domain_settings(name, "shards")),
    sharded=False,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: the share of each split")
    parser.add_argument(
        "--signed", type=pathlib.Path, required=True, help="what `sign` wrote for the domain: one folder for each shard"
    )
    parser.add_argument(
        "--duplicates", type=pathlib.Path, required=True, help="parquet of the dropped documents, from `cluster`"
    )
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write groups.npy and counts.json"
    )


def main(arguments: argparse.Namespace) -> None:
    """Assign the groups of documents to splits, and write them."""
    spec = read_spec(Spec, arguments.spec)
    groups_of_shards = []
    for shard in read_signed_shards(spec.domain, arguments.signed, spec.shards):
        kept = np.ones(len(shard), bool)
        kept[read_dropped_rows(arguments.duplicates, spec.domain, shard.shard, len(shard))] = False
        groups_of_shards.append((shard.digests_D5[kept, ORDER_COLUMNS], shard.bytes_D[kept]))
    keys_G2, sizes_G = merge_groups(groups_of_shards)
    groups_of_splits = assign_groups(sizes_G, spec.split, spec.domain)
    groups_G3 = np.concatenate([keys_G2, np.empty((len(keys_G2), 1), np.uint64)], axis=1)
    for split, groups in groups_of_splits.items():
        groups_G3[groups, 2] = SPLITS.index(split)
    counts = {
        split: {"groups": len(sizes_G[groups_of_splits[split]]), "bytes": int(sizes_G[groups_of_splits[split]].sum())}
        for split in SPLITS
    }
    with (
        atomic_write(arguments.output_folder / "groups.npy") as temp_path,
        atomic_write(arguments.output_folder / "counts.json") as counts_path,
    ):
        with temp_path.open("wb") as file:
            np.save(file, groups_G3)
        counts_path.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    shares = ", ".join(f"{split} {split_counts['groups']}" for split, split_counts in counts.items())
    log(f"domain {spec.domain}: {len(sizes_G)} groups: {shares}")
