"""Our cache behind the interface that transformers' `generate` and its users expect of one.

B rows, S tokens so far.
"""

import torch
from torch import Tensor

from speciate.model.cache import Cache


class GenerationCache(Cache):
    """The cache that a model returns as `past_key_values`; an empty one may be passed in its place."""

    is_compileable = False

    def __init__(self) -> None:
        super().__init__()
        self.real_BS: Tensor | None = None
        """Which of the tokens so far are no padding; None before the first."""
        self.position_B: Tensor | None = None
        """Position of each row's last token that is no padding, -1 without one; None before the first."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens read so far, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep these rows of the batch, for beam search."""
        self.select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows of the batch."""
        self.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch, for several beams or samples of each prompt."""
        if self.real_BS is not None:
            rows = torch.arange(len(self.real_BS), device=self.real_BS.device)
            self.select(rows.repeat_interleave(repeats))

    def crop(self, max_length: int) -> None:
        """Drop the tokens after the first `max_length`, or the last -`max_length` ones if it is negative.

        Raises:
            ValueError: the cache holds a recurrent state, or skipped tokens, of which none can be dropped.
        """
        length = self.length + max_length if max_length < 0 else min(max_length, self.length)
        self.truncate(length)

    def truncate(self, length: int) -> None:
        """Drop the tokens after the first `length`."""
        dropped = self.length - length
        super().truncate(length)
        if self.real_BS is not None and self.position_B is not None and dropped:
            self.position_B = self.position_B - self.real_BS[:, length:].sum(1)
            self.real_BS = self.real_BS[:, :length]

    def select(self, row_B: Tensor) -> None:
        """Keep these rows of the batch, in this order."""
        super().select(row_B)
        if self.real_BS is not None and self.position_B is not None:
            self.real_BS, self.position_B = self.real_BS[row_B], self.position_B[row_B]

    def extend(self, real_BT: Tensor, position_BT: Tensor) -> None:
        """Note the next tokens: which are no padding, and their positions."""
        last_B = position_BT.masked_fill(~real_BT, -1).max(1).values
        if self.real_BS is None or self.position_B is None:
            self.real_BS, self.position_B = real_BT, last_B
        else:
            self.real_BS = torch.cat([self.real_BS, real_BT], dim=1)
            self.position_B = torch.maximum(self.position_B, last_B)
