"""Summarise one shard of a domain for the data card.

The summary holds a sketch of the shard's word n-grams, the lengths of its documents and a few sample documents.
Summaries of shards add up, so the card of a thousand shards reads a thousand small files and no text.

Example:
    speciate sketch --spec spec.json --splits code --output-folder sketch
"""

import argparse
import json
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.cli import log
from speciate.config.components import Strict
from speciate.config.run import Name, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.card.sketch import SIZE
from speciate.data.card.summary import NGRAM, SAMPLES, SplitSummary
from speciate.data.documents import read_tables
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name


STAGE = Stage(
    per="domain",
    reads={"write_splits": tuple(f"{split}.parquet" for split in SPLITS)},
    writes=(*(f"{split}.runs.npy" for split in SPLITS), "samples.parquet", "counts.json"),
    spec=lambda graph, name: Spec(domain=name),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: the domain")
    parser.add_argument("--splits", type=pathlib.Path, required=True, help="what `write_splits` wrote for the shard")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the sketches, samples and counts"
    )


def main(arguments: argparse.Namespace) -> None:
    """Sum up the shard, and write its sketches, samples and counts."""
    spec = read_spec(Spec, arguments.spec)
    summaries = {split: SplitSummary() for split in SPLITS}
    for split, summary in summaries.items():
        for table in read_tables(arguments.splits / f"{split}.parquet", ["id", "group", "text"]):
            summary.add(table)
        with atomic_write(arguments.output_folder / f"{split}.runs.npy") as temp_path, temp_path.open("wb") as file:
            np.save(file, summary.runs.sketch().hashes_K)
    samples = [{"split": split, **sample} for split, summary in summaries.items() for sample in summary.samples]
    with atomic_write(arguments.output_folder / "samples.parquet") as temp_path:
        # by column, since from_pylist would write a null wherever a sample lacks one
        columns = {name: [sample[name] for sample in samples] for name in SAMPLES.names}
        pq.write_table(pa.table(columns, schema=SAMPLES), temp_path)
    counts = {split: summary.as_json() for split, summary in summaries.items()}
    with atomic_write(arguments.output_folder / "counts.json") as temp_path:
        content = {"domain": spec.domain, "ngram": NGRAM, "size": SIZE, "splits": counts}
        temp_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    documents = ", ".join(f"{split} {summary.documents}" for split, summary in summaries.items())
    log(f"domain {spec.domain}: documents: {documents}")
