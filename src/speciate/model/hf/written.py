"""Which of transformers' own classes an exported model is written as."""

from speciate.config.run import ModelSpec
from speciate.model.hf import gemma, gpt2, llama, mixtral, qwen
from speciate.model.hf.convert import Family

FAMILIES = (gpt2.FAMILY, llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gemma.FAMILY, mixtral.FAMILY)
"""The families that are written; pretrained.py reads some of them."""


def family_of(model: ModelSpec) -> Family | None:
    """Return the family that has models of this shape, or None."""
    return next((family for family in FAMILIES if family.config(model) is not None), None)
