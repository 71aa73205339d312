"""The normalisation before each sublayer: layer norm (Ba et al. 2016) or RMS norm (Zhang and Sennrich 2019)."""

from torch import nn

from speciate.config.run import ModelSpec


def norm(model: ModelSpec) -> nn.Module:
    """A norm over the model's width, with a learned gain, and a bias where a layer norm has one."""
    if model.norm == "rms":
        return nn.RMSNorm(model.width, model.norm_epsilon)
    return nn.LayerNorm(model.width, model.norm_epsilon, bias=model.biases)
