"""Sum up one shard of a domain for the data card: its word runs, the lengths of its documents, a few of them to read.

All of it adds up over shards, so a card of a thousand shards reads a thousand small files and no text.
"""

import argparse
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.cli import log, run
from speciate.config.run import read_spec
from speciate.config.stage_specs import SPLITS, SketchSpec
from speciate.data.card.sketch import SIZE
from speciate.data.card.summary import NGRAM, SAMPLES, Summary
from speciate.data.documents import read_tables
from speciate.io import atomic_write


def main() -> None:
    """Command line: `python -m speciate.stages.sketch --spec FILE --splits FOLDER --output-folder FOLDER`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.sketch", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the domain, as JSON")
    parser.add_argument("--splits", type=pathlib.Path, required=True, help="what `write_splits` wrote of one shard")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="gets sketches, samples and counts")
    options = parser.parse_args()
    spec = read_spec(SketchSpec, options.spec)
    found = {split: Summary() for split in SPLITS}
    for split, summary in found.items():
        for table in read_tables(options.splits / f"{split}.parquet", ["id", "group", "text"]):
            summary.add(table)
        with atomic_write(options.output_folder / f"{split}.runs.npy") as temp_path, temp_path.open("wb") as file:
            np.save(file, summary.runs.sketch().hashes_K)
    samples = [{"split": split, **sample} for split, summary in found.items() for sample in summary.samples]
    with atomic_write(options.output_folder / "samples.parquet") as temp_path:
        pq.write_table(pa.Table.from_pylist(samples, schema=SAMPLES), temp_path)
    counts = {split: summary.as_json() for split, summary in found.items()}
    with atomic_write(options.output_folder / "counts.json") as temp_path:
        told = {"domain": spec.domain, "ngram": NGRAM, "size": SIZE, "splits": counts}
        temp_path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    log(f"domain {spec.domain}: {', '.join(f'{split} {each.documents}' for split, each in found.items())} documents")


if __name__ == "__main__":
    run(main)
