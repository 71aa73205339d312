"""Options that the optimizers share."""

from typing import Annotated, ClassVar

from pydantic import Field

from speciate.config.contracts.training import OptimizerOptions


class AdamWOptions(OptimizerOptions):
    """Options of AdamW, which every optimizer here uses for at least some parameters."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """Decay rate per step of AdamW's mean of gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """Decay rate per step of AdamW's mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to the square root of AdamW's mean of squared gradients."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay of matrices and embeddings, per step and unit of learning rate; biases and norms have
    none."""
    lr_scales: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Factors on the learning rate, by shell patterns of parameter names: with {"*.router.*": 10.0}, routers learn ten
    times faster."""


class MuonOptions(AdamWOptions):
    """Options of an optimizer that updates hidden matrices by Muon, and the rest by AdamW."""

    momentum: float = Field(0.95, ge=0, lt=1)
    """Muon's momentum mu: the decay rate per step of its mean of gradients."""

    supports_sharding: ClassVar[bool] = False
    """Whether its update works on a part of a matrix, as fsdp needs."""
