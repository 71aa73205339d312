"""Self-attention (Vaswani et al. 2017) with grouped queries (Ainslie et al. 2023), causal if the model is.

    o_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(h)) v_s    for each head; groups of heads share k and v

With rotary positions, queries and keys are rotated first (rotary.py). Which keys a query sees, which a sparse indexer
would decide, is here the causal mask alone. In a model that is not causal there is no mask: the sum is over the whole
block. Documents in a block are kept apart if the tokens name them.

B blocks of T tokens, D width, N heads of h dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.model.attention_heads import AttentionHeads
from speciate.model.attention_metrics import record_dense, record_largest
from speciate.model.attention_options import AttentionHeadsOptions
from speciate.model.module_hooks import CountsFlops
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting


class Options(AttentionHeadsOptions):
    """Attention heads."""


def visible_keys(tokens: TokenBatch, position_BS: Tensor, document_BS: Tensor | None, causal: bool) -> Tensor:
    """Tell which of S keys each query sees, (B, 1, T, S) boolean: those of its document, up to itself if causal."""
    if causal:
        visible_BTS = tokens.position_BT[:, :, None] >= position_BS[:, None, :]
    else:
        visible_BTS = torch.ones_like(tokens.position_BT[:, :, None] == position_BS[:, None, :])
    if tokens.document_BT is not None and document_BS is not None:
        visible_BTS = visible_BTS & (tokens.document_BT[:, :, None] == document_BS[:, None, :])
    return visible_BTS.unsqueeze(1)


class Mixer(CountsFlops, AttentionHeads):
    """Multi-head attention; one projection gives queries, keys and values, in this order."""

    def __init__(self, options: Options, context: BuildContext) -> None:
        super().__init__(options, context)
        self.causal = context.model.causal

    def num_flops(self, length: float) -> float:
        """Return the FLOPs of one token's scores and weighted sum of values, over all keys of a block."""
        return 4.0 * length * self.num_heads * self.head_width

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """Return what each token gathers from the tokens that it sees, (B, T, D)."""
        query_BTNh, key_BTNh, value_BTNh = self.project(x_BTD, tokens)
        mask_B1TS, position_BS = None, tokens.position_BT
        if tokens.document_BT is not None:
            mask_B1TS = visible_keys(tokens, tokens.position_BT, tokens.document_BT, self.causal)
        if tokens.cache is not None:
            document_BT = torch.zeros_like(tokens.id_BT) if tokens.document_BT is None else tokens.document_BT
            kept = tokens.cache.append(self.layer, key_BTNh, value_BTNh, tokens.position_BT, document_BT)
            key_BTNh, value_BTNh, position_BS, document_BS = kept
            mask_B1TS = visible_keys(tokens, position_BS, document_BS, self.causal)
        mixed_BNTh = F.scaled_dot_product_attention(
            query_BTNh.transpose(1, 2),
            key_BTNh.transpose(1, 2),
            value_BTNh.transpose(1, 2),
            attn_mask=mask_B1TS,
            is_causal=self.causal and mask_B1TS is None,
            enable_gqa=self.num_kv_heads < self.num_heads,
        )
        out_BTD: Tensor = self.out(mixed_BNTh.transpose(1, 2).flatten(2))
        if is_collecting():
            if mask_B1TS is None and not self.causal:
                mask_B1TS = visible_keys(tokens, position_BS, None, self.causal)
            seen_BTS = None if mask_B1TS is None else mask_B1TS.squeeze(1)
            record_dense(self, query_BTNh, key_BTNh, tokens, position_BS=position_BS, seen_BTS=seen_BTS)
            record_largest(self, out_BTD)
        return out_BTD
