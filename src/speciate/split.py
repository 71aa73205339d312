"""Part the documents of a domain into train, validation, test and probe, whole groups at a time."""

import argparse
import contextlib
import json
import pathlib

from speciate.data.documents import Writer, read_documents
from speciate.data.split import assign, group_bytes
from speciate.plan import SPLITS, SplitSpec
from speciate.spec import read_spec
from speciate.verb import run, say, writing


def main() -> None:
    """Command line: `python -m speciate.split --spec FILE --documents FILE --output-folder FOLDER`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.split", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the shares, as JSON")
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet of the domain's documents")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="gets one file a split, and counts")
    options = parser.parse_args()
    spec = read_spec(SplitSpec, options.spec)
    sizes = group_bytes(options.documents)
    chosen = assign(sizes, spec.split, spec.domain)
    counts = {split: {"documents": 0, "groups": 0, "bytes": 0} for split in SPLITS}
    for group, split in chosen.items():
        counts[split]["groups"] += 1
        counts[split]["bytes"] += sizes[group]
    with contextlib.ExitStack() as stack:
        aside = {name: stack.enter_context(writing(options.output_folder / f"{name}.parquet")) for name in SPLITS}
        counts_aside = stack.enter_context(writing(options.output_folder / "counts.json"))
        with contextlib.ExitStack() as writers:
            files = {split: writers.enter_context(Writer(aside[split])) for split in SPLITS}
            for document in read_documents(options.documents):
                split = chosen[document.group]
                files[split].write(document)
                counts[split]["documents"] += 1
        counts_aside.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    shares = ", ".join(f"{split} {counts[split]['documents']}" for split in SPLITS)
    say(f"domain {spec.domain}: {len(sizes)} groups; documents: {shares}")


if __name__ == "__main__":
    run(main)
