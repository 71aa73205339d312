"""Decide which groups of a domain's documents are for training, validation, test and probe."""

import argparse
import json
import pathlib

import numpy as np

from speciate.cli import log, run
from speciate.config.run import read_spec
from speciate.config.stage_specs import SPLITS, AssignSplitsSpec
from speciate.data.dedup.signatures import ORDER, read_shards
from speciate.data.splits.assign import assign, dropped_rows, gather
from speciate.io import atomic_write


def main() -> None:
    """Reads the command line, decides, writes the groups."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.assign_splits", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a SplitSpec: the shares")
    parser.add_argument(
        "--signed", type=pathlib.Path, required=True, help="what `sign` wrote of the domain, a folder a shard"
    )
    parser.add_argument("--duplicates", type=pathlib.Path, required=True, help="parquet of the dropped documents")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="gets groups.npy and counts.json")
    options = parser.parse_args()
    spec = read_spec(AssignSplitsSpec, options.spec)
    parts = []
    for shard in read_shards(spec.domain, options.signed, spec.shards):
        kept = np.ones(len(shard), bool)
        kept[dropped_rows(options.duplicates, spec.domain, shard.shard, len(shard))] = False
        parts.append((shard.digests_D5[kept, ORDER], shard.bytes_D[kept]))
    order_G2, sizes_G = gather(parts)
    chosen = assign(sizes_G, spec.split, spec.domain)
    groups_G3 = np.concatenate([order_G2, np.empty((len(order_G2), 1), np.uint64)], axis=1)
    for split, groups in chosen.items():
        groups_G3[groups, 2] = SPLITS.index(split)
    counts = {
        split: {"groups": len(sizes_G[chosen[split]]), "bytes": int(sizes_G[chosen[split]].sum())} for split in SPLITS
    }
    with (
        atomic_write(options.output_folder / "groups.npy") as temp_path,
        atomic_write(options.output_folder / "counts.json") as counts_aside,
    ):
        with temp_path.open("wb") as file:
            np.save(file, groups_G3)
        counts_aside.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    shares = ", ".join(f"{split} {each['groups']}" for split, each in counts.items())
    log(f"domain {spec.domain}: {len(sizes_G)} groups: {shares}")


if __name__ == "__main__":
    run(main)
