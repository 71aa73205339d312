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
from speciate.config.components import Strict
from speciate.config.run import Name, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import read_tokenizer
from speciate.data.tokens.loss import Loss
from speciate.data.tokens.write import Targets, check_language, write_encoded
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    language: str | None


STAGE = Stage(
    per="domain",
    reads={
        "write_splits": tuple(f"{split}.parquet" for split in SPLITS),
        "fit": ("tokenizer.json", "tokenizer_manifest.json"),
    },
    writes=(
        *(f"{split}.{part}" for split in SPLITS for part in ("tokens.npy", "documents.parquet")),
        *("probe.types.npy", "counts.json"),
    ),
    spec=lambda graph, name: Spec(domain=name, **graph.domain_settings(name, "language")),
)


def describe(counts: dict[str, Any]) -> str:
    """Describe the counts of one split in a log line."""
    return f"{counts['documents']} documents, {counts['tokens']} tokens, {counts['bytes']} bytes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: domain and language")
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
    spec = read_spec(Spec, arguments.spec)
    encoder = Encoder(read_tokenizer(arguments.tokenizer_folder))
    check_language(encoder.fitted, spec.language, f"domains.{spec.domain}.language")
    log(f"{spec.domain}: encoding with {encoder.name}" + (f" because {encoder.reason}" if encoder.reason else ""))
    counts = {}
    for split in SPLITS:
        with contextlib.ExitStack() as stack:

            def temp_path(name: str, split: str = split, stack: contextlib.ExitStack = stack) -> pathlib.Path:
                return stack.enter_context(atomic_write(arguments.output_folder / f"{split}.{name}"))

            types = temp_path("types.npy") if split == "probe" else None
            targets = Targets(temp_path("tokens.npy"), temp_path("documents.parquet"), types)
            documents = arguments.split_folder / f"{split}.parquet"
            counts[split] = write_encoded(documents, encoder, targets, spec.language)
        log(f"{spec.domain} {split}: {describe(counts[split])}")
        loss = Loss.from_counts(counts[split])
        if loss.lost_characters:
            log(f"warning: domain {spec.domain}, {split}: {loss.describe()}")
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
