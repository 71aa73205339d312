"""Fit the tokenizer to the training text, or read a published one.

Example:
    speciate fit --spec spec.json --documents code/train.parquet prose/train.parquet --output-folder tokenizer
"""

import argparse
import os
import pathlib
from typing import Annotated

from speciate.cli import log
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import TokenizerOptions
from speciate.config.run import read_spec
from speciate.config.stage import Stage
from speciate.data.tokens.fitted import FittedTokenizer, switch_off
from speciate.data.tokens.training_texts import training_texts
from speciate.io import atomic_write


class Spec(Strict):
    """Spec of the stage."""

    tokenizer: Annotated[TokenizerOptions, OneOf("data/tokens/tokenizer")]


STAGE = Stage(
    per="study",
    name="tokenizer",
    reads={"write_splits": ("train.parquet",), "fetch": ("archive",)},
    writes=("tokenizer.json", "token_bytes.npy", "tokenizer_manifest.json"),
    spec=lambda graph, name: Spec(tokenizer=graph.study.tokenizer),
    sharded=False,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: the tokenizer's options")
    parser.add_argument(
        "--documents",
        type=pathlib.Path,
        nargs="*",
        default=[],
        help="train.parquet of every domain, in the study's order; a published tokenizer reads none",
    )
    parser.add_argument("--archive", type=pathlib.Path, help="the fetched archive of a published tokenizer")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where to write the tokenizer")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of the tokenizer; the result does not depend on them (default: %(default)s)",
    )


def main(arguments: argparse.Namespace) -> None:
    """Fit the tokenizer, and write it."""
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)  # read by `tokenizers` at its first use
    options = read_spec(Spec, arguments.spec).tokenizer
    component = options.component()
    texts = training_texts(arguments.documents, options.max_fitting_bytes())
    tokenizer = component.build(options, texts, arguments.archive)
    end = component.end_of_text(options, tokenizer, arguments.archive)
    switched_off = switch_off(tokenizer)
    for what in switched_off:
        log(f"tokenizer.json: {what}: switched off")
    fitted = FittedTokenizer(tokenizer.to_str(pretty=False) + "\n", options.kind, end, switched_off)
    for name, content in fitted.files().items():
        with atomic_write(arguments.output_folder / name) as temp_path:
            temp_path.write_bytes(content)
    manifest = fitted.manifest
    log(
        f"{manifest.kind}: {manifest.vocabulary} entries, end-of-text token {manifest.end_token}, "
        f"fingerprint {manifest.fingerprint[:10]}"
    )
    if fitted.why_not_lossless:
        log(
            f"its tokens do not keep every byte of a text, since {fitted.why_not_lossless}: bytes per token are "
            "estimated from each token's spelling"
        )
    if fitted.missing_bytes:
        log(f"its vocabulary lacks {len(fitted.missing_bytes)} of the 256 bytes; a character that has one is lost")
