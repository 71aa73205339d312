"""Verb: pack one domain's tokens into blocks of a fixed length, an end-of-text token after each document."""

import argparse
import json
import pathlib

import numpy as np

from speciate.data import pieces
from speciate.data.arrays import let_go, new_array
from speciate.data.encoded import Encoded, read_encoded
from speciate.data.vocabulary import read_manifest
from speciate.kinds import component
from speciate.spec import read_spec
from speciate.stages import SPLITS, PackSpec
from speciate.verb import run, say, writing

TOKENS_AT_ONCE = 1 << 24
"""What is packed before the memory of the files' pages is given back."""


def pack_split(encoded: Encoded, spec: PackSpec, end: int, folder: pathlib.Path, split: str) -> dict[str, int]:
    """Packs one split into `folder`; returns what was done, as `pieces.summary` counts it."""
    lengths_D = encoded.lengths_D
    pieces_M4 = component(spec.packing).plan(spec.packing, lengths_D, spec.block_length)
    num_blocks = int(pieces_M4[-1, pieces.BLOCK]) + 1 if len(pieces_M4) else 0
    with writing(folder / f"{split}.blocks.npy") as file:
        blocks_BT = new_array(file, encoded.tokens_N.dtype, (num_blocks, spec.block_length))
        step = max(1, TOKENS_AT_ONCE // spec.block_length)
        for first in range(0, num_blocks, step):
            part_BT = blocks_BT[first : first + step]
            edges = np.searchsorted(pieces_M4[:, pieces.BLOCK], (first, first + step))
            rows_M4 = pieces_M4[slice(*edges)] - (first, 0, 0, 0)
            pieces.lay(encoded.tokens_N, encoded.starts_D, lengths_D, rows_M4, end, part_BT)
            let_go(blocks_BT)
            let_go(encoded.tokens_N)
        blocks_BT.flush()
    with writing(folder / f"{split}.pieces.npy") as file:
        np.save(file, pieces_M4)
    return pieces.summary(lengths_D, pieces_M4, num_blocks, spec.block_length)


def main() -> None:
    """Reads the command line, packs split by split, writes."""
    parser = argparse.ArgumentParser(prog="python -m speciate.pack", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a PackSpec: packing, block length")
    parser.add_argument("--encoded-folder", type=pathlib.Path, required=True, help="what `encode` wrote")
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where blocks and counts.json go")
    arguments = parser.parse_args()
    spec = read_spec(PackSpec, arguments.spec)
    tokenizer = read_manifest(arguments.tokenizer_folder)
    counts = {}
    for split in SPLITS:
        encoded = read_encoded(arguments.encoded_folder, split, tokenizer)
        highest = int(encoded.tokens_N.max(initial=0))
        let_go(encoded.tokens_N)
        if highest >= tokenizer.vocabulary:
            file = arguments.encoded_folder / f"{split}.tokens.npy"
            raise ValueError(f"{file}: holds token {highest}, beyond the vocabulary of {tokenizer.vocabulary}")
        counts[split] = pack_split(encoded, spec, tokenizer.end_of_text, arguments.output_folder, split)
        found = counts[split]
        say(
            f"{spec.domain} {split}: {found['blocks']} blocks; of {found['tokens_in']} tokens "
            f"{found['tokens_truncated']} cut off, {found['tokens_dropped']} dropped; "
            f"{found['short_documents_split']} of {found['documents']} documents split without need"
        )
    summary = {"domain": spec.domain, "packing": spec.packing.kind, "block_length": spec.block_length, "splits": counts}
    with writing(arguments.output_folder / "counts.json") as file:
        file.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
