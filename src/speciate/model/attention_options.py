"""Options that every attention mixer has: its heads."""

from typing import Any

from pydantic import Field

from speciate.config.contracts.model import MixerOptions


class AttentionHeadsOptions(MixerOptions):
    """Numbers of query heads and of key and value heads."""

    num_heads: int = Field(4, ge=1)
    """Number of query heads; must divide the model's width."""
    num_kv_heads: int | None = Field(None, ge=1)
    """Number of key and value heads, each shared by num_heads / num_kv_heads query heads; null: num_heads."""

    def check(self, model: Any) -> None:
        """Refuse heads that do not divide what they share, and rotary positions on heads of odd width."""
        if model.width % self.num_heads:
            raise ValueError(f"num_heads: {self.num_heads} heads do not divide a width of {model.width}")
        if self.num_heads % (self.num_kv_heads or self.num_heads):
            raise ValueError(f"num_kv_heads: {self.num_kv_heads} does not divide {self.num_heads} query heads")
        if model.position == "rotary" and model.width // self.num_heads % 2:
            raise ValueError(
                f"num_heads: rotary positions turn pairs of dimensions, and a head has {model.width // self.num_heads}"
            )
