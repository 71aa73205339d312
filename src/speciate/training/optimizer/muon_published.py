"""Muon as moe_arch released it (commit ad29f66), a control for muon.py: a cubic, and a momentum that is overwritten.

    B <- mu B + G;   B <- cubic^5(B);   W <- (1 - lr decay) W - lr (G + mu B)
    cubic(X) = 1.5 X - .5 X X^T X,   X_0 = B / |B|_F

Differences from Jordan's (2024), with the predicted cost:
- Each of the five cubics multiplies a small singular value by 1.5, together by 7.6 (the quintics by 485), so the first
  update's singular values are far from 1.
- The orthogonalised momentum overwrites the momentum. Its norm is about sqrt(min(R, C)), and all gradients together are
  clipped to a norm of 1, so it stays what the first gradients made it (its singular values then reach .8, step by
  step).
- The gradient is added raw, and no scale depends on a matrix's shape.
- The rule updates every matrix of two dimensions, routers too. Stacks of experts (three dimensions) go to AdamW at a
  fraction of the learning rate. The release does not say so; `run.json` of a run here does.
Its 8-bit momentum is left out.

R rows, C columns.
"""

from fnmatch import fnmatchcase
from typing import Annotated, Any

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from speciate.training.optimizer.combined import CombinedOptimizer, singular_value_summary, watched_parameters
from speciate.training.optimizer.param_groups import (
    check_pattern_matches,
    has_weight_decay,
    lr_scale,
    trainable_parameters,
)
from speciate.training.optimizer_options import MuonOptions

NUM_ITERATIONS = 5
EPSILON = 1e-7
"""Smallest norm that a matrix is divided by."""


class Options(MuonOptions):
    """Options of Muon as released, and of AdamW for the rest."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate of the matrices that the cubic updates."""
    adamw_scale: float = Field(0.3, gt=0)
    """Factor on AdamW's learning rate; with 1.0 all rates are equal, as the release's own scheduler makes them."""
    adamw: Annotated[tuple[str, ...], Strict(False)] = ("*embedding*",)
    """Shell patterns of the names of matrices that AdamW updates; it always updates vectors, biases and stacks."""


def build(options: Options, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer; each parameter is in exactly one group, and frozen ones are in none.

    Raises:
        ValueError: a pattern of `lr_scales`, or a pattern of `adamw` that the config sets, matches no parameter; two
            patterns of `lr_scales` match the same one; or no matrix is left for the cubic.
    """
    parameters = trainable_parameters(model, options.lr_scales)
    for pattern in options.adamw:
        if pattern not in Options.model_fields["adamw"].default:
            check_pattern_matches("adamw", pattern, parameters)
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = options.weight_decay if has_weight_decay(name, parameter) else 0.0
        key = (update_rule(options, name, parameter), decay, lr_scale(options.lr_scales, name))
        groups.setdefault(key, []).append(parameter)
    rows: dict[str, list[dict[str, Any]]] = {"cubic": [], "adamw": []}
    for (rule, decay, scale), members in groups.items():
        scale *= options.adamw_scale if rule == "adamw" else 1.0
        rates = {"lr": options.lr * scale, "peak": options.lr * scale, "scale": scale}
        rows[rule].append({"params": members, "rule": rule, "weight_decay": decay, **rates})
    if not rows["cubic"]:
        raise ValueError("optimizer.adamw: leaves no matrix to Muon; use optimizer adamw, or fewer patterns")
    parts: list[torch.optim.Optimizer] = [CubicMuon(rows["cubic"], options.lr, options.momentum)]
    if rows["adamw"]:
        betas = (options.beta1, options.beta2)
        parts.append(torch.optim.AdamW(rows["adamw"], options.lr, betas, options.epsilon, fused=True))
    return MuonPublished(parts)


def update_rule(options: Options, name: str, parameter: nn.Parameter) -> str:
    """Return the rule that updates a parameter, cubic or adamw."""
    is_listed = any(fnmatchcase(name, pattern) for pattern in options.adamw)
    return "cubic" if parameter.ndim == 2 and has_weight_decay(name, parameter) and not is_listed else "adamw"


class MuonPublished(CombinedOptimizer):
    """Both parts as one optimizer, which can describe its last updates of a few matrices."""

    def telemetry(self) -> dict[str, float]:
        """Return singular values of the orthogonalised momentum: the update without the raw gradient."""
        states = [self.state[parameter] for parameter, _ in watched_parameters(self.param_groups, ("cubic",))]
        return singular_value_summary([state["momentum_buffer"] for state in states if state])


class CubicMuon(torch.optim.Optimizer):
    """The rule for matrices."""

    def __init__(self, rows: list[dict[str, Any]], lr: float, momentum: float) -> None:
        super().__init__(rows, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                buffer = state["momentum_buffer"].mul_(group["momentum"]).add_(parameter.grad)
                buffer.copy_(cubic_iteration(buffer))
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(parameter.grad.add(buffer, alpha=group["momentum"]), alpha=-group["lr"])


def cubic_iteration(update_RC: Tensor) -> Tensor:
    """Return the matrix, (R, C), divided by its norm and with its singular values pushed towards 1 five times."""
    x_RC: Tensor = update_RC / update_RC.norm().clamp(min=EPSILON)
    is_tall = x_RC.shape[0] > x_RC.shape[1]
    for _ in range(NUM_ITERATIONS):
        cubed_RC = x_RC @ (x_RC.mT @ x_RC) if is_tall else (x_RC @ x_RC.mT) @ x_RC
        x_RC = 1.5 * x_RC - 0.5 * cubed_RC
    return x_RC
