"""Read the blocks that training and evaluation use: the mixture that `balance` wrote, over the packs that `pack` wrote.

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

from speciate.data.arrays.npy import read_array
from speciate.data.mixture.manifest import read_mixture
from speciate.data.packing import segments


class TrainBlocks:
    """The training mixture's blocks, memory-mapped; block n is block `train_N2[n, 1]` of domain `train_N2[n, 0]`."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Open the mixture in `folder`. Raises ValueError if a pack is not the one that it was made from."""
        self.mixture = read_mixture(folder)
        self.block_length = self.mixture.block_length
        self.vocabulary = self.mixture.vocabulary
        self._train_N2 = np.array(read_array(folder / "train.npy"))
        self._packs: list[pathlib.Path] = []
        self._blocks: list[npt.NDArray[np.unsignedinteger]] = []
        for domain in self.mixture.domains:
            pack = folder / self.mixture.packs[domain]
            blocks = read_array(pack / "train.blocks.npy")
            shape = (self.mixture.available_blocks["train"][domain], self.block_length)
            if blocks.shape != shape:
                problem = f"has blocks of shape {blocks.shape}, not {shape}"
                raise ValueError(f"{folder / 'mixture.json'}: {domain}'s pack {problem}")
            self._packs.append(pack)
            self._blocks.append(blocks)

    def __len__(self) -> int:
        return len(self._train_N2)

    def tokens(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the token ids of the blocks `rows` (B,), int64 (B, T)."""
        tokens_BT = np.empty((len(rows), self.block_length), np.int64)
        for pack, batch_rows, blocks in self._by_pack(rows):
            tokens_BT[batch_rows] = self._blocks[pack][blocks]
        return tokens_BT

    def domains(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return the domain of each of the blocks `rows`, an index into the mixture's `domains`, int64 (B,)."""
        domain_B: npt.NDArray[np.int64] = self._train_N2[rows, 0].astype(np.int64)
        return domain_B

    def documents(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Return each position's document, numbered within its domain, int64 (B, T), for `separate_documents`."""
        documents_BT = np.empty((len(rows), self.block_length), np.int64)
        for pack, batch_rows, blocks in self._by_pack(rows):
            documents_BT[batch_rows] = segments.documents_at(
                segments.select_blocks(*self._segments(pack), blocks), self.block_length
            )
        return documents_BT

    @functools.cache  # noqa: B019 (one per process; a pack's segments are indexed once, not at every step)
    def _segments(self, pack: int) -> tuple[segments.Ints, segments.Ints]:
        """Return the memory-mapped segments of a pack, and where each block's segments start."""
        file, num_blocks = self._packs[pack] / "train.pieces.npy", len(self._blocks[pack])
        table = read_array(file)
        if (table[-1, segments.BLOCK] + 1 if len(table) else 0) != num_blocks:
            raise ValueError(f"{file}: does not belong to the {num_blocks} blocks in its folder")
        return table, segments.block_edges(table, num_blocks)

    def _by_pack(
        self, rows: npt.NDArray[np.integer]
    ) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """Yield for each domain its index, the batch rows of its blocks, and the rows of these blocks in the pack."""
        domain_B, row_B = self._train_N2[rows].T.astype(np.int64)
        for domain in range(len(self._packs)):
            batch_rows = np.flatnonzero(domain_B == domain)
            if len(batch_rows):
                yield domain, batch_rows, row_B[batch_rows]


@dataclasses.dataclass(frozen=True)
class BlockSet:
    """A held-out set: validation, test or probe. The packs' domains alternate, so a prefix of whole rounds is balanced.

    The analysis uses the domain of a position's document, in `documents`. A block's domain only says which pack the
    block comes from.
    """

    name: str
    domains: tuple[str, ...]
    """Domain labels of the documents: `labels` of mixture.json."""
    tokens: npt.NDArray[np.int64]
    """Token ids, (B, T)."""
    document: npt.NDArray[np.int32]
    """Each position's row in `documents`, (B, T)."""
    domain: npt.NDArray[np.int32]
    """Each block's domain, an index into `domains` of mixture.json, (B,)."""
    documents: pd.DataFrame
    """G rows, in order of first appearance: document (the row's number), domain, id, group, bytes, surface
    (`data/tokens/encoded.py`)."""
    types: npt.NDArray[np.uint8] | None
    """Each token's lexical type (`data/tokens/lexical.py`), (B, T); only the probe set has them."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def label(self) -> npt.NDArray[np.int64]:
        """The domain of each position's document, an index into `domains`, (B, T)."""
        index_of = {domain: index for index, domain in enumerate(self.domains)}
        label_G: npt.NDArray[np.int64] = self.documents["domain"].map(index_of).to_numpy(np.int64)
        return label_G[self.document]

    def prefix(self, blocks_per_domain: int) -> Self:
        """Return the first `blocks_per_domain` blocks of each domain; `documents` stays unchanged.

        Raises:
            ValueError: the set has fewer blocks.
        """
        num_blocks = blocks_per_domain * len(self.domains)
        if num_blocks > len(self):
            available = len(self) // len(self.domains)
            raise ValueError(
                f"the {self.name} set has {available} blocks of each domain, fewer than {blocks_per_domain}"
            )
        return dataclasses.replace(
            self,
            tokens=self.tokens[:num_blocks],
            document=self.document[:num_blocks],
            domain=self.domain[:num_blocks],
            types=None if self.types is None else self.types[:num_blocks],
        )


def read_block_set(folder: pathlib.Path, name: str) -> BlockSet:
    """Read the held-out set `name` (validation, test or probe) of the mixture in `folder`.

    Raises:
        ValueError: a document's domain is not among the mixture's labels, or a file is damaged; names the file.
    """
    types, labels = folder / f"{name}.types.npy", read_mixture(folder).labels
    documents = pd.read_parquet(folder / f"{name}.documents.parquet")
    unknown = set(documents["domain"]) - set(labels)
    if unknown:
        raise ValueError(
            f"{folder / name}.documents.parquet: has domains that are not labels: {', '.join(sorted(unknown))}"
        )
    return BlockSet(
        name=name,
        domains=tuple(labels),
        tokens=read_array(folder / f"{name}.tokens.npy").astype(np.int64),
        document=np.array(read_array(folder / f"{name}.document.npy")),
        domain=np.array(read_array(folder / f"{name}.domain.npy")),
        documents=documents,
        types=np.array(read_array(types)) if types.exists() else None,
    )
