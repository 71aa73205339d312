"""Pack one shard's tokens into blocks of a fixed length.

An end-of-text token follows each document.

Example:
    speciate pack --spec spec.json --encoded-folder tokens --tokenizer-folder tokenizer --output-folder blocks
"""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from speciate.cli import log
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import PackingOptions
from speciate.config.run import Name, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.arrays.npy import GrowingArray, chunks, release_pages
from speciate.data.packing import segments
from speciate.data.tokens.manifest import read_manifest
from speciate.data.tokens.read import Encoded, read_encoded
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    packing: Annotated[PackingOptions, OneOf("data/packing")]
    block_length: int = Field(ge=2)


STAGE = Stage(
    per="domain",
    reads={
        "encode": tuple(f"{split}.{part}" for split in SPLITS for part in ("tokens.npy", "documents.parquet")),
        "fit": ("tokenizer_manifest.json",),
    },
    writes=(*(f"{split}.{part}.npy" for split in SPLITS for part in ("blocks", "pieces")), "counts.json"),
    spec=lambda graph, name: Spec(domain=name, packing=graph.study.packing, block_length=graph.study.block_length),
)


TOKENS_AT_ONCE = 1 << 18
JUMPS_AT_ONCE = 1 << 7
"""What is laid before the memory of the tokens' pages is given back: a piece that is far from the one before it in the
tokens lies on pages of its own."""
FAR = 1 << 13


def pack_split(encoded: Encoded, spec: Spec, end: int, folder: pathlib.Path, split: str) -> dict[str, int]:
    """Packs one split into `folder`, portion by portion; returns what was done, as `pieces.Summary` counts it."""
    tokens_N, starts_D, lengths_D = encoded.tokens_N, encoded.starts_D, encoded.lengths_D
    done = segments.Summary(lengths_D, spec.block_length)
    with contextlib.ExitStack() as stack:
        aside = [stack.enter_context(atomic_write(folder / f"{split}.{name}.npy")) for name in ("blocks", "pieces")]
        with (
            GrowingArray(aside[0], tokens_N.dtype, spec.block_length) as blocks,
            GrowingArray(aside[1], np.int64, 4) as rows,
        ):
            for portion_M4 in spec.packing.component().plan(spec.packing, lengths_D, spec.block_length):
                rows.append(portion_M4)
                done.add(portion_M4)
                for part_M4 in few(portion_M4, starts_D, spec.block_length):
                    blocks_BT = np.empty((int(part_M4[-1, segments.BLOCK]) + 1, spec.block_length), tokens_N.dtype)
                    segments.lay(tokens_N, starts_D, lengths_D, part_M4, end, blocks_BT)
                    release_pages(tokens_N)
                    blocks.append(blocks_BT)
    return done.counts()


def few(pieces_M4: segments.Ints, starts_D: segments.Ints, block_length: int) -> Iterator[segments.Ints]:
    """Pieces a few blocks at a time, numbered from 0; `starts_D` is where each document's tokens are."""
    start, block_M = 0, np.ascontiguousarray(pieces_M4[:, segments.BLOCK])
    place_M = starts_D[pieces_M4[:, segments.DOCUMENT]] + pieces_M4[:, segments.POSITION]
    jumps_M = np.cumsum(np.abs(np.diff(place_M, prepend=place_M[:1])) > FAR)
    most = max(1, TOKENS_AT_ONCE // block_length)
    while start < len(block_M):
        block = int(block_M[start])
        stop = int(np.searchsorted(jumps_M, jumps_M[start] + JUMPS_AT_ONCE))
        stop = min(stop, int(np.searchsorted(block_M, block + most)))
        if stop < len(block_M):  # back to where a block starts, but one block at least
            stop = int(np.searchsorted(block_M, max(int(block_M[stop]), block + 1)))
        yield pieces_M4[start:stop] - (block, 0, 0, 0)
        start = stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: packing, block length")
    parser.add_argument("--encoded-folder", type=pathlib.Path, required=True, help="what `encode` wrote")
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the blocks and counts.json"
    )


def main(arguments: argparse.Namespace) -> None:
    """Pack the tokens split by split, and write the blocks."""
    spec = read_spec(Spec, arguments.spec)
    tokenizer = read_manifest(arguments.tokenizer_folder)
    counts = {}
    for split in SPLITS:
        encoded = read_encoded(arguments.encoded_folder, split, tokenizer, ("start", "stop"))
        highest = max((int(part.max()) for _, part in chunks(encoded.tokens_N, TOKENS_AT_ONCE)), default=0)
        if highest >= tokenizer.vocabulary:
            file = arguments.encoded_folder / f"{split}.tokens.npy"
            raise ValueError(f"{file}: holds token {highest}, beyond the vocabulary of {tokenizer.vocabulary}")
        counts[split] = pack_split(encoded, spec, tokenizer.end_of_text, arguments.output_folder, split)
        found = counts[split]
        log(
            f"{spec.domain} {split}: {found['blocks']} blocks; of {found['tokens_in']} tokens "
            f"{found['tokens_truncated']} cut off, {found['tokens_dropped']} dropped; "
            f"{found['short_documents_split']} of {found['documents']} documents split without need"
        )
    summary = {"domain": spec.domain, "packing": spec.packing.kind, "block_length": spec.block_length, "splits": counts}
    with atomic_write(arguments.output_folder / "counts.json") as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
