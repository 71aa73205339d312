"""Best-fit packing: only documents longer than a block are cut (Ding et al. 2024, "Fewer Truncations Improve Language
Modeling", arXiv 2404.10830), and no token is lost.

1. A document of more than T tokens is cut into full blocks; what remains of it is an item like any short document.
2. Best-fit decreasing (`data/bins.py`): items from the longest to the shortest, each into the open block with the least
   space that still holds it, or into a new one.
3. Decision: blocks are never padded, so the gaps that are left must be filled. The emptiest blocks are given up and
   their items, end to end, are cut over the gaps of the others, the fullest first. This makes as many blocks as
   concatenating would, with at most one cut a gap, and few documents are cut: those of the blocks given up. The tail
   that fills no block (fewer than T tokens) is dropped, as it is in concatenation.

D documents, I items, G bins (open blocks), M pieces (`data/pieces.py`), T = block_length.
"""

import numpy as np

from speciate.data.bins import best_fit_decreasing, by_place, rows
from speciate.data.pieces import Ints
from speciate.kinds import Kind


class Options(Kind):
    """Best fit has none."""


def plan(options: Options, lengths_D: Ints, block_length: int) -> Ints:
    """The pieces, int64 (M, 4), of documents of `lengths_D` tokens, their end-of-text tokens not counted."""
    full_D, rest_D = np.divmod(lengths_D + 1, block_length)
    document_F = np.repeat(np.arange(len(lengths_D)), full_D)
    num_full = len(document_F)
    chunk_F = np.arange(num_full) - np.repeat(np.cumsum(full_D) - full_D, full_D)
    full = rows(np.arange(num_full), np.zeros(num_full), document_F, chunk_F * block_length)
    document_I = np.flatnonzero(rest_D)
    size_I = rest_D[document_I]
    bin_I, offset_I = best_fit_decreasing(size_I, block_length)
    items = rows(bin_I, offset_I, document_I, full_D[document_I] * block_length)
    packed = fill_gaps(items, size_I, block_length)
    packed[:, 0] += num_full
    return np.concatenate((full, packed))


def fill_gaps(items_I4: Ints, size_I: Ints, block_length: int) -> Ints:
    """Full blocks, numbered from 0, made of the items' bins: their pieces (M, 4). Step 3 of this module's docstring.

    Args:
        items_I4: pieces whose `block` is a bin that may have space left at its end.
        size_I: tokens of each item.
        block_length: T.
    """
    filled_G = np.bincount(items_I4[:, 0], weights=size_I).astype(np.int64)
    fullest_G = np.argsort(-filled_G, kind="stable")
    num_blocks = int(filled_G.sum()) // block_length
    rank_G = np.empty_like(fullest_G)
    rank_G[fullest_G] = np.arange(len(fullest_G))
    items_I4[:, 0] = rank_G[items_I4[:, 0]]
    kept_I = items_I4[:, 0] < num_blocks

    donors = np.flatnonzero(~kept_I)
    donors = donors[by_place(items_I4[donors], block_length)]
    stops_J = np.cumsum(size_I[donors])
    starts_J = stops_J - size_I[donors]
    filled_B = filled_G[fullest_G[:num_blocks]]
    gaps_B = np.cumsum(block_length - filled_B)
    total = int(gaps_B[-1]) if num_blocks else 0
    from_B = gaps_B - (block_length - filled_B)
    place = np.union1d(starts_J[starts_J < total], from_B[from_B < gaps_B])
    item = np.searchsorted(starts_J, place, side="right") - 1
    block = np.searchsorted(gaps_B, place, side="right")
    source = items_I4[donors[item]]
    parts = rows(block, filled_B[block] + place - from_B[block], source[:, 2], source[:, 3] + place - starts_J[item])
    pieces = np.concatenate((items_I4[kept_I], parts))
    return pieces[by_place(pieces, block_length)]
