"""Draw the fixed, balanced sets of held-out blocks: validation, test and probe. All runs of a study share them.

The domains alternate (block b is of domain b % D), so any prefix of whole rounds is balanced. Within a domain the order
is a seeded shuffle with two rules: a document's second block comes after the first block of every document, and groups
alternate. The documents are the independent observations, so as many of them as possible should be seen.

Only the tokens of the chosen blocks are read. Memory holds one split's table of documents and groups, eight bytes more
per document, four bytes per block, and otherwise chunks.

B blocks of T tokens, P blocks in a pack, S of them chosen, M segments (`data/packing/segments.py`), D documents, G of
them chosen.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from speciate.data.arrays.indexing import Numbers, index_dtype
from speciate.data.arrays.npy import chunks, release_pages
from speciate.data.arrays.scratch import CHUNK_ROWS
from speciate.data.disk_permutation import disk_permutation
from speciate.data.packing import segments
from speciate.data.packing.fill_blocks import fill_blocks
from speciate.data.packing.mapped_segments import find_block_starts, whole_block_chunks
from speciate.data.tokens.encoded import EncodedSplit

BLOCKS_PER_RELEASE = 8
"""Number of blocks that are read before their pages are released."""
DOCUMENT_COLUMNS = ("id", "group", "bytes", "surface")


@dataclasses.dataclass(frozen=True)
class Pack:
    """One split of a domain, packed into blocks."""

    blocks_PT: npt.NDArray[Any]
    """Memory-mapped."""
    segments_M4: segments.Ints
    encoded: EncodedSplit
    types_N: npt.NDArray[np.uint8] | None
    """Each token's lexical type, if the split has them."""


def blocks_per_domain(name: str, requested: int, available: Mapping[str, int]) -> tuple[int, list[str]]:
    """Return the blocks per domain of set `name`: `requested`, or else the most that all have, with a warning.

    Raises:
        ValueError: a domain has no block; names the domain.
    """
    smallest = min(available, key=available.__getitem__)
    if not available[smallest]:
        blocks_of_domains = ", ".join(f"{domain} {blocks}" for domain, blocks in available.items())
        raise ValueError(
            f"domains.{smallest}: too small for one block of the {name} split (blocks: {blocks_of_domains})"
        )
    if available[smallest] >= requested:
        return requested, []
    fewest = available[smallest]
    warning = f"held_out.{name}_blocks: {smallest} has {fewest} blocks, not {requested}; every domain gives {fewest}"
    return fewest, [warning]


def draw_set(packs: Mapping[str, Pack], blocks_each: int, name: str, seed: int) -> dict[str, Any]:
    """Draw the set `name`: `blocks_each` blocks of every domain, with the domains alternating.

    Args:
        packs: the blocks of each domain.
        blocks_each: number of blocks per domain, at most as many as each domain has.
        name: the set's name.
        seed: the seed of the order in which blocks are taken.

    Returns:
        tokens: (B, T), of the packs' type.
        document: int32 (B, T), each position's row in documents.
        domain: int32 (B,), an index into `packs`.
        documents: a table of document, domain, id, group, bytes, surface (`data/tokens/encoded.py`), in order of first
            appearance.
        types: uint8 (B, T), only if the packs have lexical types.
    """
    drawn, tables = [], []
    firsts = [0]
    for domain, pack in packs.items():
        documents = pack.encoded.documents
        tables.append(documents.select(list(DOCUMENT_COLUMNS)))
        main_P = main_documents(pack.segments_M4, pack.blocks_PT.shape[1]).astype(index_dtype(len(documents)))
        rows_S = choose_blocks(main_P, _group_numbers(documents["group"]), blocks_each, name, seed, domain)
        arrays = read_blocks(pack, rows_S)
        drawn.append(arrays | {"document": arrays["document"] + firsts[-1]})
        firsts.append(firsts[-1] + len(documents))
    block_set: dict[str, Any] = {part: _interleave([arrays[part] for arrays in drawn]) for part in drawn[0]}
    block_set["document"], old_G = renumber_documents(block_set["document"])
    table = pa.concat_tables(tables).take(pa.array(old_G)).to_pandas()
    table.insert(0, "document", np.arange(len(table), dtype=np.int32))
    domains = pd.Series(list(packs), dtype="str")
    table.insert(1, "domain", domains.take(np.searchsorted(firsts, old_G, side="right") - 1).to_numpy())
    block_set["documents"] = table
    return block_set | {"domain": np.tile(np.arange(len(packs), dtype=np.int32), blocks_each)}


def read_blocks(pack: Pack, rows_S: segments.Ints) -> dict[str, npt.NDArray[Any]]:
    """Read the blocks `rows_S` of a domain: tokens (S, T), document (S, T) within the domain, and types if known."""
    length = pack.blocks_PT.shape[1]
    tokens_ST = np.empty((len(rows_S), length), pack.blocks_PT.dtype)
    document_ST = np.empty((len(rows_S), length), np.int64)
    types_ST = np.empty((len(rows_S), length), np.uint8)
    starts_S, stops_S = (find_block_starts(pack.segments_M4, blocks) for blocks in (rows_S, rows_S + 1))
    for start in range(0, len(rows_S), BLOCKS_PER_RELEASE):
        part = slice(start, start + BLOCKS_PER_RELEASE)
        chosen = segments.gather_segments(pack.segments_M4, starts_S[part], stops_S[part])
        tokens_ST[part] = pack.blocks_PT[rows_S[part]]
        document_ST[part] = segments.documents_at(chosen, length)
        if pack.types_N is not None:
            types = np.empty((len(rows_S[part]), length), np.uint8)
            fill_blocks(pack.types_N, pack.encoded.starts_D, pack.encoded.lengths_D, chosen, end=0, blocks_BT=types)
            types_ST[part] = types
            release_pages(pack.types_N)
        release_pages(pack.blocks_PT)
        release_pages(pack.segments_M4)
    arrays: dict[str, npt.NDArray[Any]] = {"tokens": tokens_ST, "document": document_ST}
    return arrays if pack.types_N is None else arrays | {"types": types_ST}


def choose_blocks(main_P: Numbers, group_D: Numbers, count: int, *purpose: str | int) -> segments.Ints:
    """Return the rows of the first `count` blocks of a domain, in the order in which to take them, int64 (S,).

    The shuffle is traversed once for every document's first block, again for every second block, and so on until there
    are enough blocks.

    Args:
        main_P: the main document of each block.
        group_D: the group number of each document.
        count: S; all blocks are taken if there are fewer.
        purpose: the name of the shuffle (see `data/permutation.py`).
    """
    order_P = disk_permutation(len(main_P), *purpose)
    rows_S = np.zeros(0, np.int64)
    groups_G = np.zeros(int(group_D.max(initial=-1)) + 1, np.int32)  # blocks of each group so far
    round_ = 0
    while len(rows_S) < min(count, len(main_P)):
        documents_D = np.zeros(len(group_D), np.int32)  # blocks of each document so far
        group_rounds_X, rows_X = np.zeros(0, np.int64), np.zeros(0, np.int64)
        for _, rows in chunks(order_P, CHUNK_ROWS):
            candidates = rows[_occurrences(main_P[rows], documents_D) == round_]
            group_rounds_X = np.append(group_rounds_X, _occurrences(group_D[main_P[candidates]], groups_G))
            rows_X = np.append(rows_X, candidates)
            best = np.argsort(group_rounds_X, kind="stable")[: count - len(rows_S)]
            group_rounds_X, rows_X = group_rounds_X[best], rows_X[best]
        rows_S = np.append(rows_S, rows_X)
        round_ += 1
    return rows_S


def renumber_documents(document_BT: segments.Ints) -> tuple[npt.NDArray[np.int32], segments.Ints]:
    """Assign 0 .. G-1 to documents in order of appearance, so that a prefix of the blocks has a prefix of them.

    Returns:
        row_BT: int32 (B, T), the new number at each position.
        old_G: int64 (G,), the old number of each new number.
    """
    documents, first, inverse = np.unique(document_BT, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse].reshape(document_BT.shape).astype(np.int32), documents[order]


def _interleave(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Interleave one array (S, T) per domain into one array (S * D, T) in which the domains alternate."""
    return np.stack(parts, axis=1).reshape(-1, parts[0].shape[1])


def main_documents(segments_M4: segments.Ints, block_length: int) -> segments.Ints:
    """Return the document with the most tokens in each block, int64 (P,); on a tie, the one with the lower number."""
    parts = [_main_documents(part_M4, block_length) for part_M4 in whole_block_chunks(segments_M4, block_length)]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def _main_documents(segments_M4: segments.Ints, block_length: int) -> segments.Ints:
    block_M, document_M = segments_M4[:, segments.BLOCK], segments_M4[:, segments.DOCUMENT]
    order = np.lexsort((document_M, block_M))
    block_M, document_M = block_M[order], document_M[order]
    new_M = (np.diff(block_M, prepend=-1) != 0) | (np.diff(document_M, prepend=-1) != 0)
    starts_X = np.flatnonzero(new_M)  # one entry per document per block
    tokens_X = np.add.reduceat(segments.segment_lengths(segments_M4, block_length)[order], starts_X)
    most_X = np.lexsort((document_M[starts_X], -tokens_X, block_M[starts_X]))
    first_X = np.diff(block_M[starts_X][most_X], prepend=-1) != 0
    main_P: segments.Ints = document_M[starts_X][most_X][first_X]
    return main_P


def _group_numbers(groups: pa.ChunkedArray) -> Numbers:
    """Return a number for each document's group."""
    chunks = groups.dictionary_encode().unify_dictionaries().chunks
    return np.concatenate([np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in chunks)])


def _occurrences(label_P: Numbers, so_far: npt.NDArray[np.int32]) -> segments.Ints:
    """Count the earlier occurrences of each label, int64 (P,), starting from `so_far`, which is updated in place."""
    order = np.argsort(label_P, kind="stable")
    index = np.arange(len(label_P))
    starts = np.diff(label_P[order], prepend=-1) != 0
    occurrences = np.empty_like(index)
    occurrences[order] = index - np.maximum.accumulate(np.where(starts, index, 0))
    occurrences += so_far[label_P]
    np.maximum.at(so_far, label_P, (occurrences + 1).astype(np.int32))
    return occurrences
