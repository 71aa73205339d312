"""Part one shard's documents into train, validation, test and probe, duplicates left out."""

import argparse
import contextlib
import json
import pathlib

from speciate.cli import log, run
from speciate.config.run import read_spec
from speciate.config.stage_specs import SPLITS, WriteSplitsSpec
from speciate.data.documents import Shard, Writer, num_documents, read_documents
from speciate.data.splits.assign import Groups, dropped_rows
from speciate.io import atomic_write


def main() -> None:
    """Reads the command line, writes one file a split."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.write_splits", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a DivideSpec")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the shard's documents")
    parser.add_argument("--duplicates", type=pathlib.Path, required=True, help="parquet of the dropped documents")
    parser.add_argument("--groups", type=pathlib.Path, required=True, help="groups.npy of `split`")
    parser.add_argument("--shard", default="0-of-1", metavar="k-of-n", help="which shard it is (default: %(default)s)")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="gets a file a split, and counts")
    options = parser.parse_args()
    spec = read_spec(WriteSplitsSpec, options.spec)
    shard = Shard.parse(options.shard)
    if shard.count != spec.shards:
        raise ValueError(f"--shard: {shard} of domain {spec.domain}, which has {spec.shards}")
    groups = Groups(options.groups, spec.seed)
    count = num_documents(options.documents)
    dropped = set(dropped_rows(options.duplicates, spec.domain, shard, count).tolist())
    counts = {split: {"documents": 0, "bytes": 0} for split in SPLITS}
    with contextlib.ExitStack() as stack:
        aside = {
            split: stack.enter_context(atomic_write(options.output_folder / f"{split}.parquet")) for split in SPLITS
        }
        counts_aside = stack.enter_context(atomic_write(options.output_folder / "counts.json"))
        with contextlib.ExitStack() as writers:
            files = {split: writers.enter_context(Writer(aside[split])) for split in SPLITS}
            for row, document in enumerate(read_documents(options.documents)):
                if row not in dropped:
                    split = SPLITS[groups.split(document.group)]
                    files[split].write(document)
                    counts[split]["documents"] += 1
                    counts[split]["bytes"] += len(document.text.encode())
        counts_aside.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    shares = ", ".join(f"{split} {each['documents']}" for split, each in counts.items())
    log(f"domain {spec.domain}, shard {shard}: documents: {shares}; {len(dropped)} duplicates left out")


if __name__ == "__main__":
    run(main)
