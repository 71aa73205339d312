"""Sum up one shard of a domain for the data card: its word runs, the lengths of its documents, a few of them to read.

All of it adds up over shards, so a card of a thousand shards reads a thousand small files and no text.
"""

import argparse
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.cli import run, say, writing
from speciate.config.run import read_spec
from speciate.config.stage_specs import SPLITS, SketchSpec
from speciate.data.card.sketch import SIZE
from speciate.data.card.summary import NGRAM, SAMPLES, Summary
from speciate.data.documents import read_tables


def main() -> None:
    """Command line: `python -m speciate.stages.sketch --spec FILE --divided FOLDER --output-folder FOLDER`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.sketch", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the domain, as JSON")
    parser.add_argument("--divided", type=pathlib.Path, required=True, help="what `divide` wrote of one shard")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="gets sketches, samples and counts")
    options = parser.parse_args()
    spec = read_spec(SketchSpec, options.spec)
    found = {split: Summary() for split in SPLITS}
    for split, summary in found.items():
        for table in read_tables(options.divided / f"{split}.parquet", ["id", "group", "text"]):
            summary.add(table)
        with writing(options.output_folder / f"{split}.runs.npy") as aside, aside.open("wb") as file:
            np.save(file, summary.runs.sketch().hashes_K)
    samples = [{"split": split, **sample} for split, summary in found.items() for sample in summary.samples]
    with writing(options.output_folder / "samples.parquet") as aside:
        pq.write_table(pa.Table.from_pylist(samples, schema=SAMPLES), aside)
    counts = {split: summary.as_json() for split, summary in found.items()}
    with writing(options.output_folder / "counts.json") as aside:
        told = {"domain": spec.domain, "ngram": NGRAM, "size": SIZE, "splits": counts}
        aside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    say(f"domain {spec.domain}: {', '.join(f'{split} {each.documents}' for split, each in found.items())} documents")


if __name__ == "__main__":
    run(main)
