"""Verb: balance the domains' training blocks, and draw the fixed held-out sets: validation, test, probe."""

import argparse
import io
import os
import pathlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.data.arrays import read_array
from speciate.data.blocks import Mixture
from speciate.data.encoded import read_encoded
from speciate.data.held_out import Pack, draw, size
from speciate.data.pieces import BLOCK, DOCUMENT
from speciate.data.vocabulary import TokenizerManifest, read_manifest
from speciate.kinds import component
from speciate.plan import SPLITS, BalanceSpec
from speciate.spec import dump, read_spec
from speciate.verb import run, say, writing

DOCUMENTS = pa.schema([("document", pa.int32()), ("domain", pa.string()), ("id", pa.string()), ("group", pa.string())])


def by_domain(pairs: list[str], domains: tuple[str, ...], argument: str) -> dict[str, pathlib.Path]:
    """`DOMAIN=DIR` arguments as folders in the order of `domains`. Raises ValueError unless each is given once."""
    given = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if len(given) != len(pairs) or set(given) != set(domains):
        raise ValueError(f"{argument}: needs DOMAIN=DIR once for each of {', '.join(domains)}, not {' '.join(pairs)}")
    return {domain: pathlib.Path(given[domain]) for domain in domains}


def read_pack(packed: pathlib.Path, encoded: pathlib.Path, split: str, tokenizer: TokenizerManifest) -> Pack:
    """One split of one domain. Raises ValueError where the files are damaged or do not belong together."""
    source = read_encoded(encoded, split, tokenizer)
    types = read_array(encoded / "probe.types.npy") if split == "probe" else None
    blocks, table = (read_array(packed / f"{split}.{part}.npy") for part in ("blocks", "pieces"))
    if len(table) and (table[-1, BLOCK] + 1, table[:, DOCUMENT].max() < len(source.documents)) != (len(blocks), True):
        raise ValueError(f"{packed / f'{split}.pieces.npy'}: does not belong to the blocks beside it and to {encoded}")
    return Pack(blocks, table, source, types)


def save(file: pathlib.Path, value: np.ndarray | pd.DataFrame) -> None:
    """Writes an array as .npy, or a table of documents as parquet."""
    with writing(file) as aside:
        if isinstance(value, pd.DataFrame):
            pq.write_table(pa.Table.from_pandas(value, schema=DOCUMENTS, preserve_index=False), aside)
        else:
            stream = io.BytesIO()
            np.save(stream, value)
            aside.write_bytes(stream.getvalue())


def main() -> None:
    """Reads the command line, balances, writes."""
    parser = argparse.ArgumentParser(prog="python -m speciate.balance", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a BalanceSpec")
    parser.add_argument("--packed", nargs="+", required=True, metavar="DOMAIN=DIR", help="what `pack` wrote")
    parser.add_argument("--encoded", nargs="+", required=True, metavar="DOMAIN=DIR", help="what `encode` wrote")
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where the mixture goes")
    arguments = parser.parse_args()
    spec, folder = read_spec(BalanceSpec, arguments.spec), arguments.output_folder
    tokenizer = read_manifest(arguments.tokenizer_folder)
    packed = by_domain(arguments.packed, spec.domains, "--packed")
    encoded = by_domain(arguments.encoded, spec.domains, "--encoded")

    shapes = {
        split: {domain: read_array(pack / f"{split}.blocks.npy").shape for domain, pack in packed.items()}
        for split in SPLITS
    }
    lengths = {length for shape in shapes.values() for _, length in shape.values()}
    if len(lengths) != 1:
        raise ValueError(f"--packed: the packs have blocks of different lengths: {sorted(lengths)}")
    available = {split: {domain: blocks for domain, (blocks, _) in shape.items()} for split, shape in shapes.items()}
    train_N2, warnings = component(spec.mixture).mix(spec.mixture, available["train"])
    save(folder / "train.npy", train_N2)
    sizes = {}
    for name in SPLITS[1:]:
        asked = getattr(spec.held_out, f"{name}_blocks")
        sizes[name], found = size(name, asked, available[name])
        warnings += found
        packs = {domain: read_pack(packed[domain], encoded[domain], name, tokenizer) for domain in spec.domains}
        for part, value in draw(packs, sizes[name], name, spec.held_out.seed).items():
            save(folder / f"{name}.{part}{'.parquet' if part == 'documents' else '.npy'}", value)
    mixture = Mixture(
        domains=list(spec.domains),
        block_length=lengths.pop(),
        vocabulary=tokenizer.vocabulary,
        end_of_text=tokenizer.end_of_text,
        tokenizer_fingerprint=tokenizer.fingerprint,
        packs={domain: pathlib.Path(os.path.relpath(pack, folder)).as_posix() for domain, pack in packed.items()},
        train_blocks={domain: int((train_N2[:, 0] == index).sum()) for index, domain in enumerate(spec.domains)},
        held_out_blocks=sizes,
        available_blocks=available,
        imbalance=max(available["train"].values()) / min(available["train"].values()),
        warnings=warnings,
    )
    with writing(folder / "mixture.json") as file:
        file.write_text(dump(mixture), encoding="utf-8")
    for warning in warnings:
        say(f"warning: {warning}")
    say(f"{len(train_N2)} training blocks of {mixture.block_length} tokens, equal parts of {', '.join(spec.domains)}")


if __name__ == "__main__":
    run(main)
