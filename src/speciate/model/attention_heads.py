"""The projections that every attention mixer has: queries, keys and values of its heads, and back.

    q, k, v = heads of W x (+ b);   q, k <- norm(q), norm(k) where `qk_norm`;   q, k <- rotated by their positions

The norm is that of Qwen3 (Yang et al. 2025, 2505.09388): an RMS norm over the dimensions of a head, with one gain for
all heads of the queries and one for those of the keys.

B blocks of T tokens, D width, N heads of h dimensions.
"""

from torch import Tensor, nn

from speciate.model.attention_options import AttentionHeadsOptions
from speciate.model.rotary import Rotary, frequencies
from speciate.model.token_batch import BuildContext, TokenBatch


class AttentionHeads(nn.Module):
    """The heads of an attention mixer; one projection gives queries, keys and values, in this order."""

    def __init__(self, options: AttentionHeadsOptions, context: BuildContext) -> None:
        super().__init__()
        model = context.model
        self.layer = context.layer
        self.num_heads = options.num_heads
        self.num_kv_heads = options.num_kv_heads or options.num_heads
        self.head_width = options.width_of_head(model.width)
        joint_width = (self.num_heads + 2 * self.num_kv_heads) * self.head_width
        self.query_key_value = nn.Linear(model.width, joint_width, bias=options.has_qkv_bias(model.biases))
        self.out = nn.Linear(self.num_heads * self.head_width, model.width, bias=model.biases)
        self.query_norm = nn.RMSNorm(self.head_width, model.norm_epsilon) if options.qk_norm else None
        self.key_norm = nn.RMSNorm(self.head_width, model.norm_epsilon) if options.qk_norm else None
        rotates = model.position == "rotary"
        self.rotary = Rotary(frequencies(model, self.head_width), model.context) if rotates else None

    def project(self, x_BTD: Tensor, tokens: TokenBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, T, N, h), and keys and values (B, T, key heads, h)."""
        joint_BTNh = self.query_key_value(x_BTD).unflatten(-1, (-1, self.head_width))
        heads = (self.num_heads, self.num_kv_heads, self.num_kv_heads)
        query_BTNh, key_BTNh, value_BTNh = joint_BTNh.split(heads, dim=2)
        if self.query_norm is not None and self.key_norm is not None:
            query_BTNh, key_BTNh = self.query_norm(query_BTNh), self.key_norm(key_BTNh)
        if self.rotary is not None:
            query_BTNh, key_BTNh = (self.rotary(turned, tokens.position_BT) for turned in (query_BTNh, key_BTNh))
        return query_BTNh, key_BTNh, value_BTNh
