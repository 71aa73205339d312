"""Verb: encode one domain's documents as token ids, and label the probe's tokens with their lexical types."""

import argparse
import contextlib
import json
import os
import pathlib

from speciate.data.encoding import Targets, write_encoded
from speciate.data.tokens import read_tokenizer
from speciate.plan import SPLITS, EncodeSpec
from speciate.spec import read_spec
from speciate.verb import run, say, writing


def main() -> None:
    """Reads the command line, encodes split by split, writes."""
    parser = argparse.ArgumentParser(prog="python -m speciate.encode", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an EncodeSpec: domain and language")
    parser.add_argument(
        "--split-folder", type=pathlib.Path, required=True, help="folder of {train,validation,test,probe}.parquet"
    )
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where tokens and counts.json go")
    parser.add_argument("--threads", type=int, default=1, help="they change the time, not the result (default: 1)")
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)  # read by `tokenizers` at its first use
    spec = read_spec(EncodeSpec, arguments.spec)
    tokenizer = read_tokenizer(arguments.tokenizer_folder)
    counts = {}
    for split in SPLITS:
        with contextlib.ExitStack() as stack:

            def aside(name: str, split: str = split, stack: contextlib.ExitStack = stack) -> pathlib.Path:
                return stack.enter_context(writing(arguments.output_folder / f"{split}.{name}"))

            types = aside("types.npy") if split == "probe" else None
            targets = Targets(aside("tokens.npy"), aside("documents.parquet"), types)
            documents = arguments.split_folder / f"{split}.parquet"
            counts[split] = write_encoded(documents, tokenizer, targets, spec.language)
        found = counts[split]
        say(f"{spec.domain} {split}: {found['documents']} documents, {found['tokens']} tokens, {found['bytes']} bytes")
    summary = {"domain": spec.domain, "tokenizer_fingerprint": tokenizer.manifest.fingerprint, "splits": counts}
    with writing(arguments.output_folder / "counts.json") as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
