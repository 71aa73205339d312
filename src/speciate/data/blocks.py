"""What training and evaluation read: the blocks of a mixture (`balance`), which lie in the domains' packs (`pack`).

B blocks of T tokens, N blocks in the training mixture, G documents of a held-out set.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.data import pieces
from speciate.data.arrays import read_array
from speciate.kinds import Strict
from speciate.spec import read_spec


class Mixture(Strict):
    """`mixture.json`."""

    domains: list[str]
    """In the study's order; a domain's index everywhere is its place here."""
    block_length: int
    vocabulary: int
    end_of_text: int
    tokenizer_fingerprint: str
    packs: dict[str, str]
    """Domain -> the folder of its pack, relative to the mixture's."""
    train_blocks: dict[str, int]
    """Training blocks that each domain has in the mixture."""
    held_out_blocks: dict[str, int]
    """Held-out set -> blocks that each domain has in it."""
    available_blocks: dict[str, dict[str, int]]
    """Split -> domain -> blocks in its pack."""
    imbalance: float
    """Training tokens of the largest domain over those of the smallest, before balancing."""
    warnings: list[str]


def read_mixture(folder: pathlib.Path) -> Mixture:
    """The `mixture.json` in `folder`. Raises ValueError naming the file."""
    return read_spec(Mixture, folder / "mixture.json")


class TrainBlocks:
    """The training mixture's blocks, memory-mapped; block n is block `train_N2[n, 1]` of domain `train_N2[n, 0]`."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Opens the mixture in `folder`. Raises ValueError where a pack is not the one that it was made from."""
        self.mixture = read_mixture(folder)
        self.block_length = self.mixture.block_length
        self.vocabulary = self.mixture.vocabulary
        self._packs = [folder / self.mixture.packs[domain] for domain in self.mixture.domains]
        self._train_N2 = np.array(read_array(folder / "train.npy"))
        self._blocks = [read_array(pack / "train.blocks.npy") for pack in self._packs]
        for domain, blocks in zip(self.mixture.domains, self._blocks, strict=True):
            found, made_from = blocks.shape, (self.mixture.available_blocks["train"][domain], self.block_length)
            if found != made_from:
                raise ValueError(f"{folder / 'mixture.json'}: {domain}'s pack has blocks {found}, not {made_from}")

    def __len__(self) -> int:
        return len(self._train_N2)

    def tokens(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """The token ids of the blocks `rows` (B,), int64 (B, T)."""
        tokens_BT = np.empty((len(rows), self.block_length), np.int64)
        for domain, here, blocks in self._by_domain(rows):
            tokens_BT[here] = self._blocks[domain][blocks]
        return tokens_BT

    def documents(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Each position's document, a number within its domain, int64 (B, T): what an intra-document mask compares."""
        documents_BT = np.empty((len(rows), self.block_length), np.int64)
        for domain, here, blocks in self._by_domain(rows):
            of_domain = read_array(self._packs[domain] / "train.pieces.npy")
            documents_BT[here] = pieces.document_of(pieces.select(of_domain, blocks), self.block_length)
        return documents_BT

    def _by_domain(
        self, rows: npt.NDArray[np.integer]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int32]]]:
        """For each domain: its index, the places in the batch that hold its blocks, and their rows in its pack."""
        domain_B, block_B = self._train_N2[rows].T
        for domain in np.unique(domain_B).tolist():
            here = np.flatnonzero(domain_B == domain)
            yield domain, here, block_B[here]


@dataclasses.dataclass(frozen=True)
class BlockSet:
    """A held-out set: validation, test or probe. Block b is of domain b % D, so a prefix of whole turns is balanced."""

    name: str
    domains: tuple[str, ...]
    tokens: npt.NDArray[np.int64]
    """(B, T)"""
    document: npt.NDArray[np.int32]
    """(B, T): each position's row in `documents`."""
    domain: npt.NDArray[np.int32]
    """(B,): each block's index in `domains`."""
    documents: pd.DataFrame
    """G rows, as they first appear: document (the row's number), domain, id, group."""
    types: npt.NDArray[np.uint8] | None
    """(B, T): each token's lexical type (`data/lexical.py`); only the probe set has it."""

    def __len__(self) -> int:
        return len(self.tokens)

    def prefix(self, blocks_per_domain: int) -> Self:
        """The first `blocks_per_domain` blocks of each domain; `documents` and their numbers stay as they are.

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
    """The held-out set `name` (validation, test or probe) of the mixture in `folder`."""
    types = folder / f"{name}.types.npy"
    return BlockSet(
        name=name,
        domains=tuple(read_mixture(folder).domains),
        tokens=read_array(folder / f"{name}.tokens.npy").astype(np.int64),
        document=np.array(read_array(folder / f"{name}.document.npy")),
        domain=np.array(read_array(folder / f"{name}.domain.npy")),
        documents=pd.read_parquet(folder / f"{name}.documents.parquet"),
        types=np.array(read_array(types)) if types.exists() else None,
    )
