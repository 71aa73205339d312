"""Normalisation before each sublayer: layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019)."""

from torch import nn

from speciate.config.run import ModelSpec


def norm(model: ModelSpec) -> nn.Module:
    """Build a norm over the model's width with a learned gain; a layer norm has a bias if the model has biases."""
    if model.norm == "rms":
        return nn.RMSNorm(model.width, model.norm_epsilon)
    return nn.LayerNorm(model.width, model.norm_epsilon, bias=model.biases)
