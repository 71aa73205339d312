"""What training and evaluation read: the blocks of a mixture (`balance`), which lie in the domains' packs (`pack`).

B blocks of T tokens, N blocks in the training mixture, G documents of a held-out set.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.config.components import Strict
from speciate.config.run import read_spec
from speciate.data.arrays.npy import read_array
from speciate.data.documents import Shard
from speciate.data.packing import segments


class Mixture(Strict):
    """`mixture.json`."""

    domains: list[str]
    """Of the packs, in the study's order; a block's domain is its place here."""
    labels: list[str]
    """What the held-out documents' domains are called: the same, unless the mixture is a control that renames them."""
    block_length: int
    vocabulary: int
    end_of_text: int
    tokenizer_fingerprint: str
    packs: dict[str, str]
    """Domain -> the folder of its packs, one a shard, relative to the mixture's."""
    shards: dict[str, list[int]]
    """Domain -> training blocks in the pack of each of its shards."""
    train_blocks: dict[str, int]
    """Training blocks that each domain has in the mixture."""
    epochs: dict[str, float]
    """How often each domain's blocks are in the mixture: 1 is each of them once."""
    held_out_blocks: dict[str, int]
    """Held-out set -> blocks that each domain has in it."""
    available_blocks: dict[str, dict[str, int]]
    """Split -> domain -> blocks in its packs."""
    imbalance: float
    """Training tokens of the largest domain over those of the smallest, before balancing."""
    warnings: list[str]


def read_mixture(folder: pathlib.Path) -> Mixture:
    """The `mixture.json` in `folder`. Raises ValueError naming the file."""
    return read_spec(Mixture, folder / "mixture.json")


class TrainBlocks:
    """The training mixture's blocks, memory-mapped; block n is block `train_N2[n, 1]` of domain `train_N2[n, 0]`.

    A domain's blocks are those of its shards' packs, end to end.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Opens the mixture in `folder`. Raises ValueError where a pack is not the one that it was made from."""
        self.mixture = read_mixture(folder)
        self.block_length = self.mixture.block_length
        self.vocabulary = self.mixture.vocabulary
        self._train_N2 = np.array(read_array(folder / "train.npy"))
        self._packs: list[pathlib.Path] = []
        self._blocks: list[npt.NDArray[np.unsignedinteger]] = []
        self._domain_of: list[int] = []
        first: list[int] = []
        for index, domain in enumerate(self.mixture.domains):
            counts = self.mixture.shards[domain]
            for shard, count in enumerate(counts):
                pack = folder / self.mixture.packs[domain] / str(Shard(shard, len(counts)))
                blocks = read_array(pack / "train.blocks.npy")
                if blocks.shape != (count, self.block_length):
                    why = f"has blocks {blocks.shape}, not {(count, self.block_length)}"
                    raise ValueError(f"{folder / 'mixture.json'}: {domain}'s pack {pack.name} {why}")
                first.append(sum(counts[:shard]))
                self._packs.append(pack)
                self._blocks.append(blocks)
                self._domain_of.append(index)
        self._first = np.array(first)

    def __len__(self) -> int:
        return len(self._train_N2)

    def tokens(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The token ids of the blocks `rows` (B,), int64 (B, T)."""
        tokens_BT = np.empty((len(rows), self.block_length), np.int64)
        for pack, here, blocks in self._by_pack(rows):
            tokens_BT[here] = self._blocks[pack][blocks]
        return tokens_BT

    def domains(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The domain of each of the blocks `rows`, its place in the mixture's `domains`, int64 (B,)."""
        domain_B: npt.NDArray[np.int64] = self._train_N2[rows, 0].astype(np.int64)
        return domain_B

    def documents(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Each position's document, a number within its shard, int64 (B, T): what `separate_documents` compares."""
        documents_BT = np.empty((len(rows), self.block_length), np.int64)
        for pack, here, blocks in self._by_pack(rows):
            documents_BT[here] = segments.document_of(segments.select(*self._pieces(pack), blocks), self.block_length)
        return documents_BT

    @functools.cache  # noqa: B019 (one a process; a pack's pieces are looked through once, not at every step)
    def _pieces(self, pack: int) -> tuple[segments.Ints, segments.Ints]:
        """The pieces of a pack, memory-mapped, and their edges."""
        file, num_blocks = self._packs[pack] / "train.pieces.npy", len(self._blocks[pack])
        table = read_array(file)
        if (table[-1, segments.BLOCK] + 1 if len(table) else 0) != num_blocks:
            raise ValueError(f"{file}: does not belong to the {num_blocks} blocks beside it")
        return table, segments.edges_of(table, num_blocks)

    def _by_pack(
        self, rows: npt.NDArray[np.integer]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """For each pack: its number, the places in the batch that hold its blocks, and their rows in it."""
        domain_B, row_B = self._train_N2[rows].T.astype(np.int64)
        for pack, (domain, first, blocks) in enumerate(zip(self._domain_of, self._first, self._blocks, strict=True)):
            here = np.flatnonzero((domain_B == domain) & (row_B >= first) & (row_B < first + len(blocks)))
            if len(here):
                yield pack, here, row_B[here] - first


@dataclasses.dataclass(frozen=True)
class BlockSet:
    """A held-out set: validation, test or probe. The packs' domains take turns, so a prefix of whole turns is balanced.

    What the analysis calls a text's domain is its document's, in `documents`; a block's is only where it comes from.
    """

    name: str
    domains: tuple[str, ...]
    """Of the documents: `labels` of mixture.json."""
    tokens: npt.NDArray[np.int64]
    """(B, T)"""
    document: npt.NDArray[np.int32]
    """(B, T): each position's row in `documents`."""
    domain: npt.NDArray[np.int32]
    """(B,): each block's place in `domains` of mixture.json."""
    documents: pd.DataFrame
    """G rows, as they first appear: document (the row's number), domain, id, group, bytes, surface
    (`data/tokens/read.py`)."""
    types: npt.NDArray[np.uint8] | None
    """(B, T): each token's lexical type (`data/tokens/lexical.py`); only the probe set has it."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """(B, T): the domain of each position's document, its index in `domains`."""
        places = {domain: index for index, domain in enumerate(self.domains)}
        label_G: npt.NDArray[np.int64] = self.documents["domain"].map(places).to_numpy(np.int64)
        return label_G[self.document]

    def prefix(self, blocks_per_domain: int) -> Self:
        """The first `blocks_per_domain` blocks for each domain; `documents` and their numbers stay as they are.

        Raises:
            ValueError: the set has fewer.
        """
        num_blocks = blocks_per_domain * len(self.domains)
        if num_blocks > len(self):
            there = len(self) // len(self.domains)
            raise ValueError(f"the {self.name} set has {there} blocks of each domain, fewer than {blocks_per_domain}")
        return dataclasses.replace(
            self,
            tokens=self.tokens[:num_blocks],
            document=self.document[:num_blocks],
            domain=self.domain[:num_blocks],
            types=None if self.types is None else self.types[:num_blocks],
        )


def read_set(folder: pathlib.Path, name: str) -> BlockSet:
    """The held-out set `name` (validation, test or probe) of the mixture in `folder`.

    Raises:
        ValueError: a document of a domain that is none of the mixture's labels, or a damaged file; names it.
    """
    types, labels = folder / f"{name}.types.npy", read_mixture(folder).labels
    documents = pd.read_parquet(folder / f"{name}.documents.parquet")
    unknown = set(documents["domain"]) - set(labels)
    if unknown:
        raise ValueError(f"{folder / name}.documents.parquet: has {', '.join(sorted(unknown))} beside the labels")
    return BlockSet(
        name=name,
        domains=tuple(labels),
        tokens=read_array(folder / f"{name}.tokens.npy").astype(np.int64),
        document=np.array(read_array(folder / f"{name}.document.npy")),
        domain=np.array(read_array(folder / f"{name}.domain.npy")),
        documents=documents,
        types=np.array(read_array(types)) if types.exists() else None,
    )
