"""Self-attention (Vaswani et al. 2017), causal as the model is, with grouped queries (Ainslie et al. 2023).

    o_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(h)) v_s    for each head; groups of heads share k and v

With rotary positions, queries and keys are turned first (rotary.py). What a sparse indexer would decide,
which keys a query sees, is here the causal mask alone (none in a model that is not causal: the sum is over the whole
block); documents in a block are kept apart where the tokens name them.

B blocks of T tokens, D width, N heads of h dimensions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from speciate.config.contracts.model import MixerOptions
from speciate.model.attention_metrics import record_dense, record_largest
from speciate.model.rotary import Rotary
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.selection.metrics import is_collecting


class Options(MixerOptions):
    """Attention heads."""

    num_heads: int = Field(4, ge=1)
    """Query heads; must divide the model's width."""
    num_kv_heads: int | None = Field(None, ge=1)
    """Key and value heads, each shared by num_heads / num_kv_heads query heads; null: as many as query heads."""

    def check(self, model: Any) -> None:
        """Refuses heads that do not divide what they share, and halves of dimensions."""
        if model.width % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} heads do not divide a width of {model.width}")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_kv_heads: {self.num_kv_heads} does not divide {self.num_heads} query heads")
        if model.position == "rotary" and model.width // self.num_heads % 2:
            raise ValueError(
                f"num_heads: rotary positions turn pairs of dimensions, and a head has {model.width // self.num_heads}"
            )


def visible(tokens: TokenBatch, position_BS: Tensor, document_BS: Tensor | None, causal: bool) -> Tensor:
    """Which of S keys each query sees, (B, 1, T, S) boolean: those of its own document, not after it where causal."""
    if causal:
        visible_BTS = tokens.position_BT[:, :, None] >= position_BS[:, None, :]
    else:
        visible_BTS = torch.ones_like(tokens.position_BT[:, :, None] == position_BS[:, None, :])
    if tokens.document_BT is not None and document_BS is not None:
        visible_BTS = visible_BTS & (tokens.document_BT[:, :, None] == document_BS[:, None, :])
    return visible_BTS.unsqueeze(1)


class Mixer(nn.Module):
    """Multi-head attention; queries, keys and values from one projection, in this order."""

    def __init__(self, options: Options, place: BuildContext) -> None:
        super().__init__()
        model = place.model
        self.layer, self.causal = place.layer, model.causal
        self.num_heads = options.num_heads
        self.num_kv_heads = options.num_kv_heads or options.num_heads
        self.head_width = model.width // options.num_heads
        joint_width = (self.num_heads + 2 * self.num_kv_heads) * self.head_width
        self.query_key_value = nn.Linear(model.width, joint_width, bias=model.biases)
        self.out = nn.Linear(model.width, model.width, bias=model.biases)
        self.rotary = Rotary(self.head_width, model.context, model.rotary_base) if model.position == "rotary" else None

    def num_flops(self, length: int) -> float:
        """Of one token's scores and their sum over values, all keys of a block counted; see model/profiling/flops.py."""
        return 4.0 * length * self.num_heads * self.head_width

    def forward(self, x_BTD: Tensor, tokens: TokenBatch) -> Tensor:
        """What each token takes from those before it, (B, T, D)."""
        joint_BTNh = self.query_key_value(x_BTD).unflatten(-1, (-1, self.head_width))
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        query_BTNh, key_BTNh, value_BTNh = joint_BTNh.split(heads, dim=2)
        if self.rotary is not None:
            query_BTNh, key_BTNh = (self.rotary(turned, tokens.position_BT) for turned in (query_BTNh, key_BTNh))
        mask_B1TS, position_BS = None, tokens.position_BT
        if tokens.document_BT is not None:
            mask_B1TS = visible(tokens, tokens.position_BT, tokens.document_BT, self.causal)
        if tokens.cache is not None:
            document_BT = torch.zeros_like(tokens.id_BT) if tokens.document_BT is None else tokens.document_BT
            kept = tokens.cache.append(self.layer, key_BTNh, value_BTNh, tokens.position_BT, document_BT)
            key_BTNh, value_BTNh, position_BS, document_BS = kept
            mask_B1TS = visible(tokens, position_BS, document_BS, self.causal)
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
                mask_B1TS = visible(tokens, position_BS, None, self.causal)
            seen_BTS = None if mask_B1TS is None else mask_B1TS.squeeze(1)
            record_dense(self, query_BTNh, key_BTNh, tokens, position_BS, seen_BTS)
            record_largest(self, out_BTD)
        return out_BTD
