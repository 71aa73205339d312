"""Pack a domain's tokens into blocks of a fixed length.

An end-of-text token follows each document. One job packs all shards of a domain, one after the other, so the blocks do
not depend on their number. With `max_tokens` the training text ends with the document that reaches the limit.

Example:
    speciate pack --spec spec.json --encoded-folder tokens/code --tokenizer-folder tokenizer --output-folder blocks
"""

import argparse
import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from speciate.cli import log
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import PackingOptions
from speciate.config.run import Name, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.arrays.npy import chunks, read_array, release_pages
from speciate.data.arrays.npy_writers import GrowingArray
from speciate.data.packing import segments
from speciate.data.packing.fill_blocks import fill_blocks
from speciate.data.packing.summary import PackingSummary
from speciate.data.shard import Shard
from speciate.data.tokens.encoded import EncodedSplit
from speciate.data.tokens.manifest import TokenizerManifest, read_manifest
from speciate.data.tokens.read import read_encoded_shards
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domain: Name
    packing: Annotated[PackingOptions, OneOf("data/packing")]
    block_length: int = Field(ge=2)
    max_tokens: int | None = None
    """Limit on the domain's training tokens, without end-of-text tokens; None: no limit."""
    shards: int = Field(1, ge=1)


STAGE = Stage(
    per="domain",
    reads={
        "encode": tuple(f"{split}.{part}" for split in SPLITS for part in ("tokens.npy", "documents.parquet")),
        "fit": ("tokenizer_manifest.json",),
    },
    writes=(*(f"{split}.{part}.npy" for split in SPLITS for part in ("blocks", "pieces")), "counts.json"),
    spec=lambda graph, name: Spec(
        domain=name,
        packing=graph.study.packing,
        block_length=graph.study.block_length,
        **graph.domain_settings(name, "max_tokens", "shards"),
    ),
    sharded=False,
)


MAX_TOKENS = 1 << 18
"""Number of tokens that are copied into blocks before the memory of the tokens' pages is released."""
MAX_JUMPS = 1 << 7
"""Number of jumps after which that memory is released; each jump touches further pages."""
JUMP_TOKENS = 1 << 13
"""Distance, in tokens, between consecutive segments that counts as a jump."""


def pack_split(encoded: EncodedSplit, spec: Spec, end: int, folder: pathlib.Path, *, split: str) -> dict[str, int]:
    """Pack one split into `folder`, chunk by chunk; return the counts of `PackingSummary`."""
    tokens_N, starts_D, lengths_D = encoded.tokens_N, encoded.starts_D, encoded.lengths_D
    summary = PackingSummary(lengths_D, spec.block_length)
    with contextlib.ExitStack() as stack:
        temp_paths = [
            stack.enter_context(atomic_write(folder / f"{split}.{name}.npy")) for name in ("blocks", "pieces")
        ]
        with (
            GrowingArray(temp_paths[0], tokens_N.dtype, spec.block_length) as blocks,
            GrowingArray(temp_paths[1], np.int64, 4) as rows,
        ):
            for chunk_M4 in spec.packing.component().plan(spec.packing, lengths_D, spec.block_length):
                rows.append(chunk_M4)
                summary.add(chunk_M4)
                for part_M4 in chunk_segments(chunk_M4, starts_D, spec.block_length):
                    blocks_BT = np.empty((int(part_M4[-1, segments.BLOCK]) + 1, spec.block_length), tokens_N.dtype)
                    fill_blocks(tokens_N, starts_D, lengths_D, part_M4, end=end, blocks_BT=blocks_BT)
                    release_pages(tokens_N)
                    blocks.append(blocks_BT)
    return summary.counts()


def check_tokens(file: pathlib.Path, tokenizer: TokenizerManifest) -> None:
    """Raise ValueError, naming the file, if it holds a token beyond the vocabulary."""
    highest = max((int(part.max()) for _, part in chunks(read_array(file, ndim=1), MAX_TOKENS)), default=0)
    if highest >= tokenizer.vocabulary:
        raise ValueError(f"{file}: holds token {highest}, but the vocabulary has {tokenizer.vocabulary}")


def limit_documents(encoded: EncodedSplit, max_tokens: int | None) -> EncodedSplit:
    """Return the split up to the document with which it has `max_tokens` tokens; None keeps all documents."""
    if max_tokens is None or len(encoded.tokens_N) < max_tokens:
        return encoded
    kept = int(np.searchsorted(encoded.starts_D, max_tokens))
    documents = encoded.documents.slice(0, kept)
    return EncodedSplit(encoded.tokens_N[: documents["stop"][-1].as_py()], documents)


def chunk_segments(segments_M4: segments.Ints, starts_D: segments.Ints, block_length: int) -> Iterator[segments.Ints]:
    """Yield the segments of a few blocks at a time, with blocks renumbered from 0; limits the pages that are touched.

    Args:
        segments_M4: segments of whole blocks.
        starts_D: index of each document's first token.
        block_length: number of tokens in a block.
    """
    start, block_M = 0, np.ascontiguousarray(segments_M4[:, segments.BLOCK])
    source_M = starts_D[segments_M4[:, segments.DOCUMENT]] + segments_M4[:, segments.POSITION]
    jumps_M = np.cumsum(np.abs(np.diff(source_M, prepend=source_M[:1])) > JUMP_TOKENS)
    max_blocks = max(1, MAX_TOKENS // block_length)
    while start < len(block_M):
        block = int(block_M[start])
        stop = int(np.searchsorted(jumps_M, jumps_M[start] + MAX_JUMPS))
        stop = min(stop, int(np.searchsorted(block_M, block + max_blocks)))
        if stop < len(block_M):  # go back to the start of a block, but keep at least one block
            stop = int(np.searchsorted(block_M, max(int(block_M[stop]), block + 1)))
        yield segments_M4[start:stop] - (block, 0, 0, 0)
        start = stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the stage's spec: packing, block length")
    parser.add_argument(
        "--encoded-folder",
        type=pathlib.Path,
        required=True,
        help="what `encode` wrote for the domain: one folder a shard",
    )
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument(
        "--output-folder", type=pathlib.Path, required=True, help="where to write the blocks and counts.json"
    )


def main(arguments: argparse.Namespace) -> None:
    """Pack the tokens split by split, and write the blocks."""
    spec = read_spec(Spec, arguments.spec)
    tokenizer = read_manifest(arguments.tokenizer_folder)
    folders = [arguments.encoded_folder / str(Shard(index, spec.shards)) for index in range(spec.shards)]
    counts = {}
    for split in SPLITS:
        for folder in folders:
            check_tokens(folder / f"{split}.tokens.npy", tokenizer)
        found = read_encoded_shards(folders, split, tokenizer, ("start", "stop", "bytes"))
        encoded = limit_documents(found, spec.max_tokens if split == "train" else None)
        counts[split] = pack_split(encoded, spec, tokenizer.end_of_text, arguments.output_folder, split=split)
        counts[split]["bytes"] = int(pc.sum(encoded.documents["bytes"]).as_py() or 0)
        split_counts = counts[split]
        log(
            f"{spec.domain} {split}: {split_counts['blocks']} blocks; of {split_counts['tokens_in']} tokens "
            f"{split_counts['tokens_truncated']} truncated and {split_counts['tokens_dropped']} dropped; "
            f"{split_counts['short_documents_split']} of {split_counts['documents']} documents split needlessly"
        )
    summary = {"domain": spec.domain, "packing": spec.packing.kind, "block_length": spec.block_length, "splits": counts}
    with atomic_write(arguments.output_folder / "counts.json") as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
