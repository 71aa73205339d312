"""Options that every attention mixer has: its heads."""

from typing import Any

from pydantic import Field

from speciate.config.contracts.model import MixerOptions


class AttentionHeadsOptions(MixerOptions):
    """Numbers of query heads and of key and value heads, their width, and what is done to queries and keys."""

    num_heads: int = Field(4, ge=1)
    """Number of query heads; must divide the model's width, unless `head_width` is given."""
    num_kv_heads: int | None = Field(None, ge=1)
    """Number of key and value heads, each shared by num_heads / num_kv_heads query heads; null: num_heads."""
    head_width: int | None = Field(None, ge=1)
    """Dimensions of a head; null: the model's width / num_heads. Gemma and Qwen3 have other heads."""
    qkv_bias: bool | None = None
    """Whether the projection to queries, keys and values has a bias; null: as `model.biases` says. Qwen2 has biases
    here alone."""
    qk_norm: bool = False
    """Whether each head's queries and keys pass an RMS norm with a learned gain before they are rotated, as in
    Qwen3."""

    def width_of_head(self, width: int) -> int:
        """Return the dimensions of a head in a model of this width."""
        return self.head_width or width // self.num_heads

    def has_qkv_bias(self, biases: bool) -> bool:
        """Return whether queries, keys and values have a bias in a model with or without biases."""
        return biases if self.qkv_bias is None else self.qkv_bias

    def check(self, model: Any) -> None:
        """Refuse heads that do not divide what they share, and rotary positions on heads of odd width."""
        if self.head_width is None and model.width % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} heads do not divide a width of {model.width}")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_kv_heads: {self.num_kv_heads} does not divide {self.num_heads} query heads")
        head_width = self.width_of_head(model.width)
        if model.position == "rotary" and head_width % 2:
            key = "num_heads" if self.head_width is None else "head_width"
            raise ValueError(f"{key}: rotary positions turn pairs of dimensions, and a head has {head_width}")
