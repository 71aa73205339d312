"""The fixed, balanced sets of held-out blocks: validation, test, probe. The same for every run of a study.

Domains take turns (block b is of domain b % D), so any prefix of whole turns is balanced. Within a domain the order is
a seeded shuffle that comes to a document's second block only after the first block of every document, and takes the
groups in turns: the documents are the independent observations, and as many of them as possible should be seen.

A domain's blocks are those of its shards, end to end, and so are its documents. Of their tokens only the chosen blocks'
are read. Memory: one split's table of documents and groups, eight bytes a document more, four a block; else portions.

B blocks of T tokens, P blocks in a pack, S chosen of them, M pieces (`data/packing/segments.py`), D documents, G of them chosen.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import PORTION, index_type
from speciate.data.dedup.union_find import Numbers
from speciate.data.packing import segments
from speciate.data.permutation import long_permutation
from speciate.data.tokens.read import Encoded

TAKEN = 8
"""Blocks that are read before the pages that they lie on are given back."""
KEPT = ("id", "group", "bytes", "surface")


@dataclasses.dataclass(frozen=True)
class Pack:
    """One split of one shard of a domain, packed."""

    blocks_PT: npt.NDArray[Any]
    """Memory-mapped."""
    pieces_M4: segments.Ints
    encoded: Encoded
    types_N: npt.NDArray[np.uint8] | None
    """Each token's lexical type, where the split has them."""


def size(name: str, asked: int, available: Mapping[str, int]) -> tuple[int, list[str]]:
    """How many blocks of each domain the set `name` gets: `asked`, or the most that every domain has, with a warning.

    Raises:
        ValueError: a domain has none; names it.
    """
    smallest = min(available, key=available.__getitem__)
    if not available[smallest]:
        found = ", ".join(f"{domain} {blocks}" for domain, blocks in available.items())
        raise ValueError(f"domains.{smallest}: too small for one block of the {name} split (blocks: {found})")
    if available[smallest] >= asked:
        return asked, []
    there = available[smallest]
    why = f"held_out.{name}_blocks: {smallest} has {there} blocks, not {asked}; every domain gives {there}"
    return there, [why]


def draw(packs: Mapping[str, Sequence[Pack]], blocks_each: int, name: str, seed: int) -> dict[str, Any]:
    """The set `name`: `blocks_each` blocks of every domain, in turns.

    Args:
        packs: each domain's shards, in order.
        blocks_each: no more than each domain has.
        name: of the set.
        seed: of the order in which blocks are taken.

    Returns:
        tokens (B, T) in the packs' own type; document int32 (B, T), each position's row in documents; domain int32
        (B,), a place in `packs`; documents, a table of document, domain, id, group, bytes, surface (`data/tokens/read.py`)
        as they first appear; and types uint8 (B, T) where the packs have them.
    """
    drawn, tables = [], []
    firsts = [0]
    for domain, shards in packs.items():
        tables += [pack.encoded.documents.select(list(KEPT)) for pack in shards]
        documents = np.cumsum([0, *(len(pack.encoded.documents) for pack in shards)])
        length = shards[0].blocks_PT.shape[1]
        main_P = np.concatenate(
            [main_documents(pack.pieces_M4, length) + first for pack, first in zip(shards, documents, strict=False)],
            dtype=index_type(int(documents[-1])),
            casting="same_kind",
        )
        groups = pa.chunked_array(
            [chunk for pack in shards for chunk in pack.encoded.documents["group"].chunks], pa.string()
        )
        rows_S = spread(main_P, _numbered(groups), blocks_each, name, seed, domain)
        parts = read(shards, rows_S)
        drawn.append(parts | {"document": parts["document"] + firsts[-1]})
        firsts.append(firsts[-1] + int(documents[-1]))
    found: dict[str, Any] = {part: _in_turns([one[part] for one in drawn]) for part in drawn[0]}
    found["document"], old_G = number_documents(found["document"])
    table = pa.concat_tables(tables).take(pa.array(old_G)).to_pandas()
    table.insert(0, "document", np.arange(len(table), dtype=np.int32))
    domains = pd.Series(list(packs), dtype="str")
    table.insert(1, "domain", domains.take(np.searchsorted(firsts, old_G, side="right") - 1).to_numpy())
    found["documents"] = table
    return found | {"domain": np.tile(np.arange(len(packs), dtype=np.int32), blocks_each)}


def read(shards: Sequence[Pack], rows_S: segments.Ints) -> dict[str, npt.NDArray[Any]]:
    """The blocks `rows_S` of a domain: tokens (S, T), document (S, T) numbered in the domain, and types where known."""
    length = shards[0].blocks_PT.shape[1]
    tokens_ST = np.empty((len(rows_S), length), shards[0].blocks_PT.dtype)
    document_ST = np.empty((len(rows_S), length), np.int64)
    types_ST = np.empty((len(rows_S), length), np.uint8)
    block = document = 0
    for pack in shards:
        here = np.flatnonzero((rows_S >= block) & (rows_S < block + len(pack.blocks_PT)))
        rows = rows_S[here] - block
        starts_S, stops_S = (segments.edges_at(pack.pieces_M4, each) for each in (rows, rows + 1))
        for few in range(0, len(here), TAKEN):
            part, taken = slice(few, few + TAKEN), here[few : few + TAKEN]
            chosen = segments.gather(pack.pieces_M4, starts_S[part], stops_S[part])
            tokens_ST[taken] = pack.blocks_PT[rows[part]]
            document_ST[taken] = segments.document_of(chosen, length) + document
            if pack.types_N is not None:
                types = np.empty((len(taken), length), np.uint8)
                segments.lay(pack.types_N, pack.encoded.starts_D, pack.encoded.lengths_D, chosen, 0, types)
                types_ST[taken] = types
                release_pages(pack.types_N)
            release_pages(pack.blocks_PT)
            release_pages(pack.pieces_M4)
        block += len(pack.blocks_PT)
        document += len(pack.encoded.documents)
    found: dict[str, npt.NDArray[Any]] = {"tokens": tokens_ST, "document": document_ST}
    return found if shards[0].types_N is None else found | {"types": types_ST}


def spread(main_P: Numbers, group_D: Numbers, count: int, *purpose: str | int) -> segments.Ints:
    """The rows of the first `count` blocks of a domain in the order in which they should be taken, int64 (S,).

    Turn by turn: the shuffle is gone through once for every document's first blocks, once more for their second ones
    and so on, until there are enough.

    Args:
        main_P: each block's main document.
        group_D: a number for each document's group.
        count: S; all blocks where there are fewer.
        purpose: names the shuffle (see `data/permutation.py`).
    """
    order_P = long_permutation(len(main_P), *purpose)
    rows_S = np.zeros(0, np.int64)
    groups_G = np.zeros(int(group_D.max(initial=-1)) + 1, np.int32)  # blocks of each group so far
    turn = 0
    while len(rows_S) < min(count, len(main_P)):
        documents_D = np.zeros(len(group_D), np.int32)  # blocks of each document so far
        turns_X, rows_X = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for _, rows in chunks(order_P, PORTION):
            now = _turn(main_P[rows], documents_D) == turn
            turns_X = np.append(turns_X, _turn(group_D[main_P[rows[now]]], groups_G))
            rows_X = np.append(rows_X, rows[now])
            best = np.argsort(turns_X, kind="stable")[: count - len(rows_S)]
            turns_X, rows_X = turns_X[best], rows_X[best]
        rows_S = np.append(rows_S, rows_X)
        turn += 1
    return rows_S


def number_documents(document_BT: segments.Ints) -> tuple[npt.NDArray[np.int32], segments.Ints]:
    """Numbers documents 0 .. G-1 as they first appear, so that a prefix of the blocks has a prefix of the documents.

    Returns:
        row_BT: int32 (B, T), the new number at each position.
        old_G: int64 (G,), the old number of each new one.
    """
    found, first, inverse = np.unique(document_BT, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].reshape(document_BT.shape).astype(np.int32), found[order]


def _in_turns(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Arrays (S, T), one a domain, as one array (S * D, T) in which the domains take turns."""
    return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])


def main_documents(pieces_M4: segments.Ints, block_length: int) -> segments.Ints:
    """The document that has most of each block, int64 (P,); the lower number of equals."""
    parts = [_main_documents(part_M4, block_length) for part_M4 in segments.by_blocks(pieces_M4, block_length)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _main_documents(pieces_M4: segments.Ints, block_length: int) -> segments.Ints:
    block_M, document_M = pieces_M4[:, segments.BLOCK], pieces_M4[:, segments.DOCUMENT]
    order = np.lexsort((document_M, block_M))
    block_M, document_M = block_M[order], document_M[order]
    new_M = (np.diff(block_M, prepend=-1) != 0) | (np.diff(document_M, prepend=-1) != 0)
    starts_X = np.flatnonzero(new_M)  # a place for each document in each block
    tokens_X = np.add.reduceat(segments.piece_lengths(pieces_M4, block_length)[order], starts_X)
    most_X = np.lexsort((document_M[starts_X], -tokens_X, block_M[starts_X]))
    first_X = np.diff(block_M[starts_X][most_X], prepend=-1) != 0
    main_P: segments.Ints = document_M[starts_X][most_X][first_X]
    return main_P


def _numbered(groups: pa.ChunkedArray) -> Numbers:
    """A number for each document's group."""
    chunks = groups.dictionary_encode().unify_dictionaries().chunks
    return np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in chunks)])


def _turn(label_P: Numbers, so_far: npt.NDArray[np.int32]) -> segments.Ints:
    """How often each label came before its place, int64 (P,), `so_far` of each label included; adds to that."""
    order = np.argsort(label_P, kind="stable")
    place = np.arange(len(label_P))
    starts = np.diff(label_P[order], prepend=-1) != 0
    turn = np.empty_like(place)
    turn[order] = place - np.maximum.accumulate(np.where(starts, place, 0))
    turn += so_far[label_P]
    np.maximum.at(so_far, label_P, (turn + 1).astype(np.int32))
    return turn
