"""Tables of the routers that look up the slot of a token id, for a vocabulary whose size changes.

V token ids.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def resize_slots(slot_V: Tensor, vocabulary: int, slots: Sequence[int]) -> Tensor:
    """Return the table of `vocabulary` ids: the slots of ids that stay, then the least used of `slots` for each new id.

    Of equally used slots, the first is taken.
    """
    kept_V = slot_V[:vocabulary]
    uses = {slot: int((kept_V == slot).sum()) for slot in slots}
    added = []
    for _ in range(vocabulary - len(kept_V)):
        slot = min(uses, key=uses.__getitem__)
        uses[slot] += 1
        added.append(slot)
    return torch.cat([kept_V, kept_V.new_tensor(added)])
