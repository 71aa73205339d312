"""The fixed, balanced sets of held-out blocks: validation, test, probe. The same for every run of a study.

Domains take turns (block b is of domain b % D), so any prefix of whole turns is balanced. Within a domain the order is
a seeded shuffle that comes to a document's second block only after the first block of every document, and takes the
groups in turns: the documents are the independent observations, and as many of them as possible should be seen.

A domain's blocks are those of its shards, end to end, and so are its documents. Of their tokens only the chosen blocks'
are read.

B blocks of T tokens, P blocks in a pack, S chosen of them, M pieces (`data/pieces.py`), D documents, G of them chosen.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.data import pieces
from speciate.data.encoded import Encoded
from speciate.data.order import permutation

KEPT = ("id", "group", "bytes", "surface")


@dataclasses.dataclass(frozen=True)
class Pack:
    """One split of one shard of a domain, packed."""

    blocks_PT: npt.NDArray[Any]
    """Memory-mapped."""
    pieces_M4: pieces.Ints
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
        (B,), a place in `packs`; documents, a table of document, domain, id, group, bytes, surface (`data/encoded.py`)
        as they first appear; and types uint8 (B, T) where the packs have them.
    """
    drawn, tables = [], []
    first = 0
    for domain, shards in packs.items():
        columns = [pack.encoded.documents.select(list(KEPT)).to_pandas() for pack in shards]
        table = pd.concat(columns, ignore_index=True).assign(domain=domain)
        length = shards[0].blocks_PT.shape[1]
        groups = pd.factorize(table["group"])[0]
        rows_S = spread(joined(shards), groups, length, name, seed, domain)[:blocks_each]
        parts = read(shards, rows_S)
        drawn.append(parts | {"document": parts["document"] + first})
        tables.append(table)
        first += len(table)
    found: dict[str, Any] = {part: _in_turns([one[part] for one in drawn]) for part in drawn[0]}
    found["document"], old_G = number_documents(found["document"])
    table = pd.concat(tables, ignore_index=True).iloc[old_G].reset_index(drop=True)
    table.insert(0, "document", np.arange(len(table), dtype=np.int32))
    found["documents"] = table[["document", "domain", *KEPT]]
    return found | {"domain": np.tile(np.arange(len(packs), dtype=np.int32), blocks_each)}


def joined(shards: Sequence[Pack]) -> pieces.Ints:
    """The pieces of a domain, its shards' blocks and documents numbered end to end."""
    blocks = np.cumsum([0, *(len(pack.blocks_PT) for pack in shards)])
    documents = np.cumsum([0, *(len(pack.encoded.documents) for pack in shards)])
    parts = [np.array(pack.pieces_M4) for pack in shards]
    for part, block, document in zip(parts, blocks, documents, strict=False):
        part[:, pieces.BLOCK] += block
        part[:, pieces.DOCUMENT] += document
    return np.concatenate(parts)


def read(shards: Sequence[Pack], rows_S: pieces.Ints) -> dict[str, npt.NDArray[Any]]:
    """The blocks `rows_S` of a domain: tokens (S, T), document (S, T) numbered in the domain, and types where known."""
    length = shards[0].blocks_PT.shape[1]
    tokens_ST = np.empty((len(rows_S), length), shards[0].blocks_PT.dtype)
    document_ST = np.empty((len(rows_S), length), np.int64)
    types_ST = np.empty((len(rows_S), length), np.uint8)
    block = document = 0
    for pack in shards:
        here = np.flatnonzero((rows_S >= block) & (rows_S < block + len(pack.blocks_PT)))
        rows = rows_S[here] - block
        chosen = pieces.select(pack.pieces_M4, pieces.edges_of(pack.pieces_M4, len(pack.blocks_PT)), rows)
        tokens_ST[here] = pack.blocks_PT[rows]
        document_ST[here] = pieces.document_of(chosen, length) + document
        if pack.types_N is not None:
            types = np.empty((len(rows), length), np.uint8)
            pieces.lay(pack.types_N, pack.encoded.starts_D, pack.encoded.lengths_D, chosen, 0, types)
            types_ST[here] = types
        block += len(pack.blocks_PT)
        document += len(pack.encoded.documents)
    found: dict[str, npt.NDArray[Any]] = {"tokens": tokens_ST, "document": document_ST}
    return found if shards[0].types_N is None else found | {"types": types_ST}


def spread(pieces_M4: pieces.Ints, group_D: pieces.Ints, block_length: int, *purpose: str | int) -> pieces.Ints:
    """The rows of a pack's blocks, int64 (P,), in the order in which they should be taken.

    Args:
        pieces_M4: the pack's pieces.
        group_D: a number for each document's group.
        block_length: T.
        purpose: names the shuffle (see `data/order.py`).
    """
    main_P = _main_document(pieces_M4, block_length)
    order_P = permutation(len(main_P), *purpose)
    order_P = order_P[np.argsort(_turn(main_P[order_P]), kind="stable")]
    return order_P[np.lexsort((_turn(group_D[main_P[order_P]]), _turn(main_P[order_P])))]


def number_documents(document_BT: pieces.Ints) -> tuple[npt.NDArray[np.int32], pieces.Ints]:
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


def _main_document(pieces_M4: pieces.Ints, block_length: int) -> pieces.Ints:
    """The document that has most of each block, int64 (P,); the lower number of equals."""
    block_M, document_M = pieces_M4[:, pieces.BLOCK], pieces_M4[:, pieces.DOCUMENT]
    order = np.lexsort((document_M, block_M))
    block_M, document_M = block_M[order], document_M[order]
    new_M = (np.diff(block_M, prepend=-1) != 0) | (np.diff(document_M, prepend=-1) != 0)
    starts_X = np.flatnonzero(new_M)  # a place for each document in each block
    tokens_X = np.add.reduceat(pieces.piece_lengths(pieces_M4, block_length)[order], starts_X)
    most_X = np.lexsort((document_M[starts_X], -tokens_X, block_M[starts_X]))
    first_X = np.diff(block_M[starts_X][most_X], prepend=-1) != 0
    main_P: pieces.Ints = document_M[starts_X][most_X][first_X]
    return main_P


def _turn(label_P: pieces.Ints) -> pieces.Ints:
    """How often each label came before its place, int64 (P,)."""
    order = np.argsort(label_P, kind="stable")
    place = np.arange(len(label_P))
    starts = np.diff(label_P[order], prepend=-1) != 0
    turn = np.empty_like(place)
    turn[order] = place - np.maximum.accumulate(np.where(starts, place, 0))
    return turn
