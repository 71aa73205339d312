"""The fixed, balanced sets of held-out blocks: validation, test, probe. The same for every run of a study.

Domains take turns (block b is of domain b % D), so any prefix of whole turns is balanced. Within a domain the order is
a seeded shuffle that comes to a document's second block only after the first block of every document, and takes the
groups in turns: the documents are the independent observations, and as many of them as possible should be seen.

B blocks of T tokens, P blocks in a pack, S chosen of them, M pieces (`data/pieces.py`), D documents, G of them chosen.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.data import pieces
from speciate.data.encoded import Encoded
from speciate.data.order import permutation


@dataclasses.dataclass(frozen=True)
class Pack:
    """One split of one domain, packed."""

    blocks_PT: npt.NDArray[Any]
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


def draw(packs: Mapping[str, Pack], blocks_each: int, name: str, seed: int) -> dict[str, Any]:
    """The set `name`: `blocks_each` blocks of every domain, in turns.

    Returns:
        tokens (B, T) in the packs' own type; document int32 (B, T), each position's row in documents; domain int32
        (B,); documents, a table of document, domain, id, group as they first appear; and types uint8 (B, T) where the
        packs have them.
    """
    tokens, documents, types, tables = [], [], [], []
    first = 0
    for domain, pack in packs.items():
        length = pack.blocks_PT.shape[1]
        groups = pd.factorize(pack.encoded.documents["group"].to_pandas())[0]
        rows_S = spread(pack.pieces_M4, groups, length, name, seed, domain)[:blocks_each]
        chosen = pieces.select(pack.pieces_M4, rows_S)
        tokens.append(pack.blocks_PT[rows_S])
        documents.append(pieces.document_of(chosen, length) + first)
        if pack.types_N is not None:
            types.append(np.zeros((blocks_each, length), np.uint8))
            pieces.lay(pack.types_N, pack.encoded.starts_D, pack.encoded.lengths_D, chosen, 0, types[-1])
        tables.append(pack.encoded.documents.select(["id", "group"]).to_pandas().assign(domain=domain))
        first += len(tables[-1])
    document_BT, old_G = number_documents(_in_turns(documents))
    table = pd.concat(tables, ignore_index=True).iloc[old_G].reset_index(drop=True)
    table.insert(0, "document", np.arange(len(table), dtype=np.int32))
    domain_B = np.tile(np.arange(len(packs), dtype=np.int32), blocks_each)
    found = {"tokens": _in_turns(tokens), "document": document_BT, "domain": domain_B}
    found["documents"] = table[["document", "domain", "id", "group"]]
    return found | ({"types": _in_turns(types)} if types else {})


def spread(pieces_M4: pieces.Ints, group_D: pieces.Ints, block_length: int, *purpose: str | int) -> pieces.Ints:
    """The rows of a pack's blocks, int64 (P,), in the order in which they should be taken.

    Args:
        pieces_M4: the pack's pieces.
        group_D: a number for each document's group.
        block_length: T.
        purpose: names the shuffle (see `data/order.py`).
    """
    main_P = _main_document(pieces.document_of(pieces_M4, block_length))
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


def _main_document(document_PT: pieces.Ints) -> pieces.Ints:
    """The document that has most of each block, int64 (P,); the lower number of equals."""
    sorted_PT = np.sort(document_PT, axis=1)
    place_T = np.arange(sorted_PT.shape[1])
    starts_PT = np.diff(sorted_PT, axis=1, prepend=-1) != 0
    run_PT = place_T - np.maximum.accumulate(np.where(starts_PT, place_T, 0), axis=1)
    return np.take_along_axis(sorted_PT, run_PT.argmax(axis=1)[:, None], axis=1)[:, 0]


def _turn(label_P: pieces.Ints) -> pieces.Ints:
    """How often each label came before its place, int64 (P,)."""
    order = np.argsort(label_P, kind="stable")
    place = np.arange(len(label_P))
    starts = np.diff(label_P[order], prepend=-1) != 0
    turn = np.empty_like(place)
    turn[order] = place - np.maximum.accumulate(np.where(starts, place, 0))
    return turn
