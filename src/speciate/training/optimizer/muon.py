"""Muon (Jordan 2024) for hidden matrices, AdamW for all else: embeddings, output layer, norms, biases and routers.

    B <- mu B + (1 - mu) G;   U = (1 - mu) G + mu B (Nesterov);   W <- (1 - lr decay) W - lr scale quintic^5(U)
    quintic(X) = a X + (b X X^T + c (X X^T)^2) X,   X_0 = U / |U|_F,   (a, b, c) = (3.4445, -4.7750, 2.0315)

The iteration drives every singular value to about 1. `scale` is sqrt(max(1, outputs / inputs)) (Jordan's) or
.2 sqrt(max(outputs, inputs)), which makes an update as large as AdamW's (Liu et al. 2025, 2502.16982), so that both
halves can share a learning rate. torch.optim.Muon updates single matrices; a stack of E experts (E, inputs, outputs)
goes through the same iteration in one batch, each slice as torch's own would, up to rounding.

E matrices of R rows and C columns, M = min(R, C).
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

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

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
EPSILON = 1e-7
"""Smallest norm that a matrix is divided by."""


class Options(MuonOptions):
    """Options of Muon, with Nesterov momentum, and of AdamW for the rest."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate of the hidden matrices; with `original` scaling, about ten times AdamW's."""
    adamw_lr: float | None = Field(None, gt=0)
    """Peak learning rate of AdamW's parameters; null: the same as `lr`."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw"
    """Scale of a matrix's update. original: sqrt(max(1, outputs/inputs)); match_rms_adamw:
    .2 sqrt(max(outputs, inputs))."""
    iteration: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the iteration: bfloat16, as in torch, or float32, which is many times faster on a CPU without
    bfloat16."""
    adamw: Annotated[tuple[str, ...], Strict(False)] = ("*embedding*", "*.router.*")
    """Shell patterns of the names of matrices that AdamW updates; it always updates vectors and biases. The output
    layer is called unembedding."""


def build(options: Options, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer; each parameter is in exactly one group, and frozen ones are in none.

    Raises:
        ValueError: a pattern of `lr_scales`, or a pattern of `adamw` that the config sets, matches no parameter; two
            patterns of `lr_scales` match the same one; or no matrix is left for Muon.
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
    rows: list[dict[str, Any]] = []
    for (rule, decay, scale), members in groups.items():
        peak = scale * (options.adamw_lr or options.lr if rule == "adamw" else options.lr)
        rates = {"lr": peak, "peak": peak, "scale": peak / options.lr}
        rows.append({"params": members, "rule": rule, "weight_decay": decay, **rates})
    if all(row["rule"] == "adamw" for row in rows):
        raise ValueError("optimizer.adamw: leaves no matrix to Muon; use optimizer adamw, or fewer patterns")
    return Muon([part for rule in PART_BUILDERS if (part := build_part(rule, rows, options))], options.iteration)


def update_rule(options: Options, name: str, parameter: nn.Parameter) -> str:
    """Return the key of PART_BUILDERS that updates a parameter.

    A tensor with a side of 1 is no matrix, and neither is a stack of convolution kernels.
    """
    is_matrix = parameter.ndim in (2, 3) and has_weight_decay(name, parameter) and min(parameter.shape[-2:]) > 1
    if not is_matrix or any(fnmatchcase(name, pattern) for pattern in options.adamw):
        return "adamw"
    return "muon" if parameter.ndim == 2 and options.iteration == "bfloat16" else "muon_batched"


def build_part(rule: str, rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer | None:
    """Build the optimizer of the groups with this rule; None if there are none."""
    rule_rows = [row for row in rows if row["rule"] == rule]
    return PART_BUILDERS[rule](rule_rows, options) if rule_rows else None


def adamw(rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    """Build AdamW, as optimizer/adamw.py does."""
    return torch.optim.AdamW(rows, options.lr, (options.beta1, options.beta2), options.epsilon, fused=True)


def muon(rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    """Build torch's own Muon."""
    return torch.optim.Muon(
        rows,
        lr=options.lr,
        momentum=options.momentum,
        ns_coefficients=COEFFICIENTS,
        ns_steps=NUM_ITERATIONS,
        eps=EPSILON,
        adjust_lr_fn=options.adjust_lr_fn,
    )


def muon_batched(rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    """Build Muon for stacks of matrices."""
    return BatchedMuon(rows, options.lr, options.momentum, options.adjust_lr_fn, iteration=options.iteration)


PART_BUILDERS: dict[str, Callable[[list[dict[str, Any]], Options], torch.optim.Optimizer]] = {
    "muon": muon,
    "muon_batched": muon_batched,
    "adamw": adamw,
}


class Muon(CombinedOptimizer):
    """All parts as one optimizer, which can describe its last updates of a few matrices."""

    def __init__(self, parts: list[torch.optim.Optimizer], iteration: str) -> None:
        super().__init__(parts)
        self.dtype = getattr(torch, iteration)
        self.gradients: list[Tensor | None] = []
        """Gradients of the watched matrices at the last update; the momentum is in the state."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters of every part once."""
        self.gradients = [parameter.grad for parameter, _ in self.watched()]
        super().step()

    def watched(self) -> list[tuple[Tensor, dict[str, Any]]]:
        """Return a few of its matrices, each with its group."""
        return watched_parameters(self.param_groups, ("muon", "muon_batched"))

    @torch.no_grad()
    def telemetry(self) -> dict[str, float]:
        """Return singular values of the watched matrices' last updates, before scale and learning rate.

        All but the smallest lie between .7 and 1.2. The gradient of a matrix behind a layer norm has one that is nearly
        0, since the matrix's input sums to 0, and the iteration leaves it so.
        """
        updates = [
            orthogonalise(gradient.lerp(self.state[parameter]["momentum_buffer"], group["momentum"]), self.dtype)
            for (parameter, group), gradient in zip(self.watched(), self.gradients, strict=False)
            if gradient is not None
        ]
        return singular_value_summary(updates)


class BatchedMuon(torch.optim.Optimizer):
    """Muon on parameters (..., R, C): each matrix by itself, all in one batch.

    A single matrix is (outputs, inputs), as in nn.Linear; a stack of experts is (E, inputs, outputs).
    """

    def __init__(
        self, rows: list[dict[str, Any]], lr: float, momentum: float, adjust_lr_fn: str, *, iteration: str
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "adjust_lr_fn": adjust_lr_fn, "iteration": iteration}
        super().__init__(rows, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            momentum, dtype = group["momentum"], getattr(torch, group["iteration"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                direction = orthogonalise(parameter.grad.lerp(mean, momentum), dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"] * update_scale(parameter, group["adjust_lr_fn"]))


def orthogonalise(update_ERC: Tensor, dtype: torch.dtype) -> Tensor:
    """Return each matrix with its singular values driven to about 1 (between .7 and 1.2), in `dtype`; (..., R, C)."""
    a, b, c = COEFFICIENTS
    is_tall = update_ERC.shape[-2] > update_ERC.shape[-1]
    x_EMC = (update_ERC.mT if is_tall else update_ERC).to(dtype)
    x_EMC = x_EMC / x_EMC.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(NUM_ITERATIONS):
        gram_EMM = x_EMC @ x_EMC.mT
        if gram_EMM.ndim == 2:
            x_EMC = torch.addmm(x_EMC, torch.addmm(gram_EMM, gram_EMM, gram_EMM, beta=b, alpha=c), x_EMC, beta=a)
        else:
            x_EMC = torch.baddbmm(x_EMC, torch.baddbmm(gram_EMM, gram_EMM, gram_EMM, beta=b, alpha=c), x_EMC, beta=a)
    return x_EMC.mT if is_tall else x_EMC


def update_scale(parameter: Tensor, adjust_lr_fn: str) -> float:
    """Return the factor on a matrix's update, which depends on its numbers of outputs and inputs."""
    outputs, inputs = parameter.shape if parameter.ndim == 2 else (parameter.shape[-1], parameter.shape[-2])
    if adjust_lr_fn == "original":
        return math.sqrt(max(1, outputs / inputs))
    return 0.2 * math.sqrt(max(outputs, inputs))
