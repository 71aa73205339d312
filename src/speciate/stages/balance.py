r"""Mix the domains' training blocks and draw the held-out sets.

The held-out sets are validation, test and probe; each holds the same number of blocks of every domain.

Example:
    speciate balance --spec spec.json --packed code=blocks/code prose=blocks/prose \
        --encoded code=tokens/code prose=tokens/prose --tokenizer-folder tokenizer --output-folder mixture
"""

import argparse
import dataclasses
import os
import pathlib
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pydantic

from speciate.cli import log, parse_named_paths
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import MixtureOptions
from speciate.config.data import HeldOut
from speciate.config.run import Names, canonical_json, read_spec
from speciate.config.stage import SPLITS, Stage
from speciate.data.arrays.npy import chunks, read_array
from speciate.data.arrays.npy_writers import write_array
from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.mixture.manifest import MixtureManifest
from speciate.data.packing.mapped_segments import is_consistent
from speciate.data.packing.segments import BLOCK
from speciate.data.shard import Shard
from speciate.data.splits.held_out import Pack, blocks_per_domain, draw_set
from speciate.data.tokens.loss import Loss, read_loss
from speciate.data.tokens.manifest import TokenizerManifest, read_manifest
from speciate.data.tokens.read import read_encoded_shards, read_types
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads."""

    domains: Names
    shards: Annotated[tuple[int, ...], pydantic.Strict(False)]
    """Number of shards of each domain."""
    mixture: Annotated[MixtureOptions, OneOf("data/mixture")]
    held_out: HeldOut


STAGE = Stage(
    per="study",
    name="mixture",
    reads={
        "pack": tuple(f"{split}.{part}.npy" for split in SPLITS for part in ("blocks", "pieces")),
        "encode": (*(f"{split}.documents.parquet" for split in SPLITS), "probe.types.npy", "counts.json"),
        "fit": ("tokenizer_manifest.json",),
    },
    writes=(
        *("mixture.json", "train.npy"),
        *(f"{held_out}.{part}.npy" for held_out in SPLITS[1:] for part in ("tokens", "document", "domain")),
        *(f"{held_out}.documents.parquet" for held_out in SPLITS[1:]),
        "probe.types.npy",
    ),
    spec=lambda graph, name: Spec(
        domains=tuple(graph.study.domains),
        shards=tuple(domain.shards for domain in graph.study.domains.values()),
        mixture=graph.study.mixture,
        held_out=graph.study.held_out,
    ),
    sharded=False,
)


DOCUMENTS = pa.schema(
    [
        ("document", pa.int32()),
        *((name, pa.string()) for name in ("domain", "id", "group")),
        *((name, pa.int64()) for name in ("bytes", "surface")),
    ]
)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of the mixture: each domain's folder, as written by `pack` and (one folder a shard) by `encode`."""

    spec: Spec
    packed: dict[str, pathlib.Path]
    encoded: dict[str, pathlib.Path]
    tokenizer: TokenizerManifest

    def encoded_shards(self, domain: str) -> list[pathlib.Path]:
        """Return what `encode` wrote for each shard of a domain, in order."""
        count = self.spec.shards[self.spec.domains.index(domain)]
        return [self.encoded[domain] / str(Shard(index, count)) for index in range(count)]

    def shapes(self, split: str) -> dict[str, tuple[int, int]]:
        """Return the number and the length of the blocks of each domain.

        Raises:
            ValueError: blocks are of another tokenizer, or files do not belong together.
        """
        shapes = {}
        for domain in self.spec.domains:
            blocks, table = read_blocks(self.packed[domain], split, self.tokenizer)
            if len(blocks) != (int(table[-1, BLOCK]) + 1 if len(table) else 0):
                file = self.packed[domain] / f"{split}.pieces.npy"
                raise ValueError(f"{file}: does not belong to the blocks in its folder")
            shapes[domain] = (len(blocks), blocks.shape[1])
        return shapes

    def pack(self, split: str, domain: str) -> Pack:
        """Read one split of a domain. Raises ValueError if the files are damaged or do not belong together."""
        folders = self.encoded_shards(domain)
        source = read_encoded_shards(folders, split, self.tokenizer)
        types = read_types(folders, len(source.tokens_N)) if split == "probe" else None
        blocks, table = read_blocks(self.packed[domain], split, self.tokenizer)
        if not is_consistent(table, len(blocks), blocks.shape[1], len(source.documents)):
            file = self.packed[domain] / f"{split}.pieces.npy"
            raise ValueError(f"{file}: does not belong to the blocks in its folder and to {self.encoded[domain]}")
        return Pack(blocks, table, source, types)

    def loss(self, domain: str) -> Loss:
        """Return how much text of a domain the tokenizer lost, over all splits and shards."""
        return sum((read_loss(folder) for folder in self.encoded_shards(domain)), Loss())

    @property
    def labels(self) -> tuple[str, ...]:
        """The domain labels of the held-out documents."""
        return self.spec.mixture.labels(self.spec.domains)


def folders_by_domain(pairs: list[str], domains: tuple[str, ...], argument: str) -> dict[str, pathlib.Path]:
    """Parse `DOMAIN=DIR` arguments, in the order of `domains`. Raises ValueError unless each is given once."""
    message = f"{argument}: needs DOMAIN=DIR once for each of {', '.join(domains)}, not {' '.join(pairs)}"
    return parse_named_paths(pairs, domains, message)


def read_blocks(
    packed: pathlib.Path, split: str, tokenizer: TokenizerManifest
) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.int64]]:
    """Read the blocks of one split of one domain, and their segments. Raises ValueError naming a broken file."""
    blocks = read_array(packed / f"{split}.blocks.npy", tokenizer.dtype, 2)
    table = read_array(packed / f"{split}.pieces.npy", np.int64, 2)
    if table.shape[1] != 4:
        raise ValueError(f"{packed / f'{split}.pieces.npy'}: does not hold segments")
    return blocks, table


def hold_out(inputs: Inputs, name: str, domains: list[str], blocks_each: int) -> dict[str, Any]:
    """Draw the held-out set `name` of `domains`: part of `draw_set` -> array or table, with labelled documents.

    Raises:
        ValueError: packs do not belong together, or no document has a label.
    """
    spec = inputs.spec
    packs = {domain: inputs.pack(name, domain) for domain in domains}
    held_out = draw_set(packs, blocks_each, name, spec.held_out.seed)
    held_out["domain"] = np.array([spec.domains.index(domain) for domain in domains], np.int32)[held_out["domain"]]
    if spec.mixture.relabels:
        held_out["documents"] = spec.mixture.component().relabel(spec.mixture, held_out["documents"], name)
    missing = [label for label in inputs.labels if label not in set(held_out["documents"]["domain"])]
    if missing:
        reason = f"its {blocks_each} blocks of {', '.join(domains)} have {len(held_out['documents'])} documents"
        raise ValueError(f"held_out.{name}_blocks: no document of the {name} set is labelled {missing[0]}: {reason}")
    return held_out


def check_losses(inputs: Inputs) -> list[str]:
    """Return a warning for every domain of which the tokenizer lost text. Raises ValueError if it lost most of one."""
    losses = {domain: inputs.loss(domain) for domain in inputs.spec.domains}
    for domain, loss in losses.items():
        if loss.most:
            raise ValueError(
                f"domains.{domain}: {loss.describe()}: choose a tokenizer that can spell this text, or remove the "
                "domain"
            )
    return [f"domain {domain}: {loss.describe()}" for domain, loss in losses.items() if loss.lost_characters]


def save(file: pathlib.Path, value: npt.NDArray[Any] | pd.DataFrame) -> None:
    """Write an array as .npy, or a table of documents as parquet."""
    with atomic_write(file) as temp_path:
        if isinstance(value, pd.DataFrame):
            pq.write_table(pa.Table.from_pandas(value, schema=DOCUMENTS, preserve_index=False), temp_path)
        else:
            write_array(temp_path, value)


def balance(inputs: Inputs, folder: pathlib.Path) -> MixtureManifest:
    """Mix the training blocks, draw the held-out sets, and write both into `folder`; return the manifest.

    Raises:
        ValueError: the packs have different block lengths, a domain has no block or lost most of its text, or the
            mixture refuses the domains.
    """
    spec, losses = inputs.spec, check_losses(inputs)
    shapes = {split: inputs.shapes(split) for split in SPLITS}
    lengths = {length for shape in shapes.values() for _, length in shape.values()}
    if len(lengths) != 1:
        raise ValueError(f"--packed: the packs have blocks of different lengths: {sorted(lengths)}")
    available = {split: {domain: blocks for domain, (blocks, _) in shape.items()} for split, shape in shapes.items()}
    train_N2, warnings = spec.mixture.component().mix(spec.mixture, available["train"])
    warnings = losses + warnings
    save(folder / "train.npy", train_N2)
    counts = np.zeros(len(spec.domains), np.int64)
    for _, chunk_N2 in chunks(train_N2, CHUNK_ROWS):
        counts += np.bincount(chunk_N2[:, 0], minlength=len(spec.domains))
    train_blocks = dict(zip(spec.domains, counts.tolist(), strict=True))
    used = [domain for domain, blocks in train_blocks.items() if blocks]
    requested = {
        "validation": spec.held_out.validation_blocks,
        "test": spec.held_out.test_blocks,
        "probe": spec.held_out.probe_blocks,
    }
    sizes = {}
    for name, blocks_per_label in requested.items():
        # a domain that is split into several labels gives the blocks of all of them
        blocks_each = blocks_per_label * len(inputs.labels) // len(used)
        available_blocks = {domain: available[name][domain] for domain in used}
        sizes[name], set_warnings = blocks_per_domain(name, blocks_each, available_blocks)
        warnings += set_warnings
        for part, value in hold_out(inputs, name, used, sizes[name]).items():
            save(folder / f"{name}.{part}{'.parquet' if part == 'documents' else '.npy'}", value)
    available_train = [available["train"][domain] for domain in used]
    return MixtureManifest(
        domains=list(spec.domains),
        labels=list(inputs.labels),
        block_length=lengths.pop(),
        vocabulary=inputs.tokenizer.vocabulary,
        end_of_text=inputs.tokenizer.end_of_text,
        tokenizer_fingerprint=inputs.tokenizer.fingerprint,
        packs={
            domain: pathlib.Path(os.path.relpath(pack, folder)).as_posix() for domain, pack in inputs.packed.items()
        },
        train_blocks=train_blocks,
        epochs={domain: blocks / max(1, available["train"][domain]) for domain, blocks in train_blocks.items()},
        held_out_blocks=sizes,
        available_blocks=available,
        imbalance=max(available_train) / min(available_train),
        warnings=warnings,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="JSON of a Spec")
    parser.add_argument(
        "--packed",
        nargs="+",
        required=True,
        metavar="DOMAIN=DIR",
        help="what `pack` wrote, for each domain",
    )
    parser.add_argument(
        "--encoded",
        nargs="+",
        required=True,
        metavar="DOMAIN=DIR",
        help="folder of the shards' folders (0-of-n, ...) that `encode` wrote, for each domain",
    )
    parser.add_argument("--tokenizer-folder", type=pathlib.Path, required=True, help="what `fit` wrote")
    parser.add_argument("--output-folder", type=pathlib.Path, required=True, help="where to write the mixture")


def main(arguments: argparse.Namespace) -> None:
    """Balance the domains, and write the mixture."""
    spec, folder = read_spec(Spec, arguments.spec), arguments.output_folder
    inputs = Inputs(
        spec=spec,
        packed=folders_by_domain(arguments.packed, spec.domains, "--packed"),
        encoded=folders_by_domain(arguments.encoded, spec.domains, "--encoded"),
        tokenizer=read_manifest(arguments.tokenizer_folder),
    )
    mixture = balance(inputs, folder)
    with atomic_write(folder / "mixture.json") as file:
        file.write_text(canonical_json(mixture), encoding="utf-8")
    for warning in mixture.warnings:
        log(f"warning: {warning}")
    parts = ", ".join(f"{domain} {blocks}" for domain, blocks in mixture.train_blocks.items())
    log(f"{sum(mixture.train_blocks.values())} training blocks of {mixture.block_length} tokens: {parts}")
