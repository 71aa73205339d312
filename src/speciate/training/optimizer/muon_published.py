"""Muon as moe_arch released it (commit ad29f66), beside ours in muon.py: a cubic, and a momentum that is overwritten.

    B <- mu B + G;   B <- cubic^5(B);   W <- (1 - rate decay) W - rate (G + mu B)
    cubic(X) = 1.5 X - .5 X X^T X,   X_0 = B / |B|_F

What differs from Jordan's (2024), and is predicted to cost: each of the five cubics multiplies a small singular value
by 1.5, together by 7.6 (the quintics by 485), so that the first update's are far from 1. The orthogonalised momentum
takes the momentum's own place: of norm about sqrt(min(R, C)), beside gradients clipped to a norm of 1 in all, it stays
what the first gradients made it (its singular values then reach .8, step by step). The gradient is added raw. No scale
by a matrix's shape. Every matrix of two dimensions is its, routers too; stacks of experts (three dimensions) go to
AdamW, at a part of the rate, and nothing says so: `run.json` of a run here does. Not here: its 8-bit momentum.

R rows, C columns.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from speciate.config.contracts.training import OptimizerOptions
from speciate.training.optimizer.combined import CombinedOptimizer, spectrum, watched
from speciate.training.optimizer.param_groups import decays, fits_some, learned, scale_of

NUM_ITERATIONS = 5
EPSILON = 1e-7
"""Least norm that a matrix is divided by."""


class Options(OptimizerOptions):
    """Rates, decay, and which parameters are whose."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate of the matrices."""
    adamw_scale: float = Field(0.3, gt=0)
    """Factor on the rate of all else; 1.0 is what its own scheduler makes of it, which sets all rates to one."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """mu."""
    adamw: Annotated[tuple[str, ...], Strict(False)] = ("*embedding*",)
    """Shell patterns of matrices that are AdamW's; vectors, biases and stacks always are."""
    beta1: float = Field(0.9, ge=0, lt=1)
    """AdamW's decay of the mean of gradients."""
    beta2: float = Field(0.95, ge=0, lt=1)
    """AdamW's decay of the mean of squared gradients."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to AdamW's root of the mean square."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled decay of matrices and embeddings, a step and unit of rate; biases and norms have none."""
    lr_scales: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Shell patterns of parameter names -> factor on the rate; {"*.router.*": 10.0}: routers learn ten times faster."""

    supports_sharding: ClassVar[bool] = False
    """Whether a process can update its part of a matrix without the rest."""


def build(options: Options, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a model's parameters, each in exactly one group; frozen ones in none.

    Raises:
        ValueError: a pattern of `lr_scales` or a pattern of `adamw` that the config sets fits no parameter, two of
            `lr_scales` fit the same one, or no matrix is left for the cubic.
    """
    parameters = learned(model, options.lr_scales)
    for pattern in options.adamw:
        if pattern not in Options.model_fields["adamw"].default:
            fits_some("adamw", pattern, parameters)
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if decays(name, parameter) else 0.0
        key = (rule_of(options, name, parameter), decay, scale_of(options.lr_scales, name))
        groups.setdefault(key, []).append(parameter)
    rows: dict[str, list[dict[str, Any]]] = {"cubic": [], "adamw": []}
    for (rule, decay, scale), members in groups.items():
        scale *= options.adamw_scale if rule == "adamw" else 1.0
        rates = {"lr": options.lr * scale, "peak": options.lr * scale, "scale": scale}
        rows[rule].append({"params": members, "rule": rule, "weight_decay": decay, **rates})
    if not rows["cubic"]:
        raise ValueError("optimizer.adamw: leaves no matrix to muon; take adamw for the optimizer, or fewer patterns")
    parts: list[torch.optim.Optimizer] = [Cubic(rows["cubic"], options.lr, options.momentum)]
    if rows["adamw"]:
        betas = (options.beta1, options.beta2)
        parts.append(torch.optim.AdamW(rows["adamw"], options.lr, betas, options.epsilon, fused=True))
    return MuonPublished(parts)


def rule_of(options: Options, name: str, parameter: nn.Parameter) -> str:
    """Which rule updates a parameter."""
    listed = any(fnmatchcase(name, pattern) for pattern in options.adamw)
    return "cubic" if parameter.ndim == 2 and decays(name, parameter) and not listed else "adamw"


class MuonPublished(CombinedOptimizer):
    """Both parts; it can tell what its last updates of a few matrices were."""

    def telemetry(self) -> dict[str, float]:
        """Singular values of the orthogonalised momentum, which is what they are made of beside the raw gradient."""
        found = [self.state[parameter] for parameter, _ in watched(self.param_groups, ("cubic",))]
        return spectrum([state["momentum_buffer"] for state in found if state])


class Cubic(torch.optim.Optimizer):
    """The rule for matrices."""

    def __init__(self, rows: list[dict[str, Any]], rate: float, momentum: float) -> None:
        super().__init__(rows, {"lr": rate, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(parameter.grad)
                buffer.copy_(cubic(buffer))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(parameter.grad.add(buffer, alpha=group["momentum"]), alpha=-group["lr"])


def cubic(update_RC: Tensor) -> Tensor:
    """The matrix divided by its norm, its singular values pushed towards 1, five times; (R, C)."""
    x_RC: Tensor = update_RC / update_RC.norm().clamp(min=EPSILON)
    tall = x_RC.shape[0] > x_RC.shape[1]
    for _ in range(NUM_ITERATIONS):
        cubed_RC = x_RC @ (x_RC.mT @ x_RC) if tall else (x_RC @ x_RC.mT) @ x_RC
        x_RC = 1.5 * x_RC - 0.5 * cubed_RC
    return x_RC
