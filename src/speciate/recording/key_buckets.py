"""Chosen keys by their distance from the query: slots that mean the same in every text.

    slot 0: the text's first token;   slot b + 1: a distance in [2^(b-1), 2^b), b = 0 at distance 0

These are the slots of this package's own sparse attention (model/sparse_attention). The null is uniform over the keys
that a query could choose, in the same slots.

B rows of T queries, S keys, k chosen keys, N = B T.
"""

import torch
from torch import Tensor

from speciate.recording.router_call import KeyCall, SharesCall
from speciate.recording.token_stream import TokenStream


def num_buckets(most_keys: int) -> int:
    """Return the number of slots of texts with at most so many tokens."""
    return 2 + (most_keys - 1).bit_length()


def bucketed(call: KeyCall, stream: TokenStream, num_slots: int) -> SharesCall:
    """Return a call of an indexer as shares of slots. Keys at a larger distance than the last slot's are in that slot.

    Padding is no key. A query without any key (padding) has a row that does not sum to one; it is left out later.
    """
    key_BTk = call.key_BTk.long()
    num_rows, length = key_BTk.shape[:2]
    place_BT = stream.place_N.view(num_rows, length)
    first_B11 = stream.first_B[:, None, None]
    num_keys = int(place_BT.max()) + 1
    seen_BT1 = (place_BT + 1 if call.seen_BT is None else call.seen_BT)[..., None]

    def shares(key_BTM: Tensor, counted_BTM: Tensor) -> Tensor:
        counted_BTM = counted_BTM & (key_BTM >= first_B11) & (key_BTM < seen_BT1)
        distance_BTM = (place_BT[..., None] - key_BTM).clamp_min(0)
        edges = 2 ** torch.arange(num_slots - 2, device=key_BTM.device)
        slot_BTM = torch.where(key_BTM == first_B11, 0, torch.bucketize(distance_BTM, edges, right=True) + 1)
        sum_BTS = torch.zeros(num_rows, length, num_slots, device=key_BTM.device)
        sum_BTS.scatter_add_(2, slot_BTM.clamp_max(num_slots - 1), counted_BTM.float())
        return (sum_BTS / sum_BTS.sum(-1, keepdim=True).clamp_min(1)).flatten(0, 1)

    # a key that several heads or blocks name is one key
    named_BTS = torch.zeros(num_rows, length, num_keys + 1, dtype=torch.bool, device=key_BTk.device)
    named_BTS.scatter_(2, torch.where((key_BTk < 0) | (key_BTk >= num_keys), num_keys, key_BTk), True)
    key_1S = torch.arange(num_keys, device=key_BTk.device).expand(num_rows, length, num_keys)
    return SharesCall(
        shares(key_1S, named_BTS[..., :num_keys]), shares(key_1S, torch.ones_like(named_BTS[..., :num_keys])), None
    )
