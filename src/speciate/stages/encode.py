"""Encode one shard's documents as token ids.

The probe's tokens are labelled with their lexical types as well.

Example:
    speciate encode --spec spec.json --split-folder code --tokenizer-folder tokenizer --output-folder tokens
"""

import argparse
import contextlib
import json
import os
import pathlib
from typing import Any

from speciate.cli import log
from speciate.config.run import read_spec
from speciate.config.stage_specs import SPLITS, EncodeSpec
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import read_tokenizer
from speciate.data.tokens.write import Targets, write_encoded
from speciate.io import atomic_write


def told(counts: dict[str, Any]) -> str:
    """What was done with one split, in words."""
    left_out = counts["documents_left_out"]
    beyond = f", {left_out} documents left out beyond max_tokens" if left_out else ""
    return f"{counts['documents']} documents, {counts['tokens']} tokens, {counts['bytes']} bytes{beyond}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of an EncodeSpec: domain and language")
    parser.add_argument(
        "--split-folder", type=pathlib.Path, required=True, help="folder of {train,validation,test,probe}.parquet"
    )
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the tokens and counts.json"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of the tokenizer; the result does not depend on them (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Encode the documents split by split, and write the tokens."""
    # read by `tokenizers` and `fastokens` at their first use
    os.environ["RAYON_NUM_THREADS"] = os.environ["FASTOKENS_BPE_THREADS"] = str(arguments.threads)
    spec = read_spec(EncodeSpec, arguments.spec)
    encoder = Encoder(read_tokenizer(arguments.tokenizer_folder))
    log(f"{spec.domain}: {encoder.name} encodes" + (f", since {encoder.reason}" if encoder.reason else ""))
    share = None if spec.max_tokens is None else -(-spec.max_tokens // spec.shards)
    counts = {}
    for split in SPLITS:
        with contextlib.ExitStack() as stack:

            def aside(name: str, split: str = split, stack: contextlib.ExitStack = stack) -> pathlib.Path:
                return stack.enter_context(atomic_write(arguments.output_folder / f"{split}.{name}"))

            types = aside("types.npy") if split == "probe" else None
            targets = Targets(aside("tokens.npy"), aside("documents.parquet"), types)
            documents = arguments.split_folder / f"{split}.parquet"
            limit = share if split == "train" else None
            counts[split] = write_encoded(documents, encoder, targets, spec.language, limit)
        log(f"{spec.domain} {split}: {told(counts[split])}")
    summary = {
        "domain": spec.domain,
        "tokenizer_fingerprint": encoder.fitted.manifest.fingerprint,
        "encoder": encoder.name,
        "encoder_reason": encoder.reason,
        "documents_checked": encoder.documents_checked,
        "splits": counts,
    }
    with atomic_write(arguments.output_folder / "counts.json") as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
