"""Muon (Jordan 2024) on hidden matrices, AdamW on all else: embeddings, head, norms, biases and routers.

    B <- mu B + (1 - mu) G;   U = (1 - mu) G + mu B (Nesterov);   W <- (1 - rate decay) W - rate scale quintic^5(U)
    quintic(X) = a X + (b X X^T + c (X X^T)^2) X,   X_0 = U / |U|_F,   (a, b, c) = (3.4445, -4.7750, 2.0315)

The iteration drives every singular value to about 1. `scale` is sqrt(max(1, outputs / inputs)) (Jordan's) or
.2 sqrt(max(outputs, inputs)), with which an update is as large as AdamW's (Liu et al. 2025, 2502.16982), so that both
halves can share a rate. torch.optim.Muon updates single matrices; a stack of E experts (E, inputs, outputs) goes
through the same iteration at once, slice by slice equal to torch's.

E matrices of R rows and C columns, M = min(R, C).
"""

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, Strict
from torch import Tensor, nn

from speciate.config.contracts.training import OptimizerOptions
from speciate.training.optimizer.combined import CombinedOptimizer, spectrum, watched
from speciate.training.optimizer.param_groups import decays, fits_some, learned, scale_of

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
EPSILON = 1e-7
"""Least norm that a matrix is divided by."""


class Options(OptimizerOptions):
    """Rates, decay, and which parameters are whose."""

    lr: float = Field(0.003, gt=0)
    """Peak learning rate of the hidden matrices; with `original` scaling about ten times what AdamW would have."""
    adamw_lr: float | None = Field(None, gt=0)
    """Peak learning rate of the rest; null: the same."""
    adjust_lr_fn: Literal["original", "match_rms_adamw"] = "match_rms_adamw"
    """Scale of a matrix's update: sqrt(max(1, outputs/inputs)), or .2 sqrt(max(outputs, inputs))."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Of Muon, with Nesterov's correction."""
    iteration: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision of the iteration: bfloat16 as torch has it; float32 is many times faster on a CPU without bfloat16."""
    adamw: Annotated[tuple[str, ...], Strict(False)] = ("*embedding*", "*.router.*")
    """Shell patterns of matrices that are AdamW's; vectors and biases always are. The head is called unembedding."""
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
            `lr_scales` fit the same one, or no matrix is left for Muon.
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
    rows: list[dict[str, Any]] = []
    for (rule, decay, scale), members in groups.items():
        peak = scale * (options.adamw_lr or options.lr if rule == "adamw" else options.lr)
        rates = {"lr": peak, "peak": peak, "scale": peak / options.lr}
        rows.append({"params": members, "rule": rule, "weight_decay": decay, **rates})
    if all(row["rule"] == "adamw" for row in rows):
        raise ValueError("optimizer.adamw: leaves no matrix to muon; take adamw for the optimizer, or fewer patterns")
    return Muon([part for rule in PARTS if (part := part_of(rule, rows, options))], options.iteration)


def rule_of(options: Options, name: str, parameter: nn.Parameter) -> str:
    """Which of PARTS updates a parameter. What has a side of 1 is no matrix, nor is a stack of convolution kernels."""
    matrices = parameter.ndim in (2, 3) and decays(name, parameter) and min(parameter.shape[-2:]) > 1
    if not matrices or any(fnmatchcase(name, pattern) for pattern in options.adamw):
        return "adamw"
    return "muon" if parameter.ndim == 2 and options.iteration == "bfloat16" else "muon_batched"


def part_of(rule: str, rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer | None:
    """The optimizer of the groups with this rule; None where there are none."""
    mine = [row for row in rows if row["rule"] == rule]
    return PARTS[rule](mine, options) if mine else None


def adamw(rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    """AdamW, as optimizer/adamw.py has it."""
    return torch.optim.AdamW(rows, options.lr, (options.beta1, options.beta2), options.epsilon, fused=True)


def muon(rows: list[dict[str, Any]], options: Options) -> torch.optim.Optimizer:
    """torch's own Muon."""
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
    """Muon for stacks of matrices."""
    return Batched(rows, options.lr, options.momentum, options.adjust_lr_fn, options.iteration)


PARTS: dict[str, Callable[[list[dict[str, Any]], Options], torch.optim.Optimizer]] = {
    "muon": muon,
    "muon_batched": muon_batched,
    "adamw": adamw,
}


class Muon(CombinedOptimizer):
    """All parts; it can tell what its last updates of a few matrices were."""

    def __init__(self, parts: list[torch.optim.Optimizer], iteration: str) -> None:
        super().__init__(parts)
        self.dtype = getattr(torch, iteration)
        self.gradients: list[Tensor | None] = []
        """Of the watched matrices at the last update; the momentum is in the state."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every part."""
        self.gradients = [parameter.grad for parameter, _ in self.watched()]
        super().step()

    def watched(self) -> list[tuple[Tensor, dict[str, Any]]]:
        """A few of its matrices."""
        return watched(self.param_groups, ("muon", "muon_batched"))

    @torch.no_grad()
    def telemetry(self) -> dict[str, float]:
        """Singular values of their last updates, before scale and rate: between .7 and 1.2 but for the smallest.

        A gradient behind a layer norm has one that is nearly 0, since what the matrix reads sums to 0, and it stays so.
        """
        updates = [
            orthogonal(gradient.lerp(self.state[parameter]["momentum_buffer"], group["momentum"]), self.dtype)
            for (parameter, group), gradient in zip(self.watched(), self.gradients, strict=False)
            if gradient is not None
        ]
        return spectrum(updates)


class Batched(torch.optim.Optimizer):
    """Muon on parameters (..., R, C): each matrix by itself, all at once.

    A single matrix is (outputs, inputs), as nn.Linear has it; a stack of experts is (E, inputs, outputs).
    """

    def __init__(self, rows: list[dict[str, Any]], rate: float, momentum: float, adjust: str, iteration: str) -> None:
        super().__init__(rows, {"lr": rate, "momentum": momentum, "adjust_lr_fn": adjust, "iteration": iteration})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            momentum, dtype = group["momentum"], getattr(torch, group["iteration"])
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter.grad)
                mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                direction = orthogonal(parameter.grad.lerp(mean, momentum), dtype)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"] * update_scale(parameter, group["adjust_lr_fn"]))


def orthogonal(update_ERC: Tensor, dtype: torch.dtype) -> Tensor:
    """Each matrix with its singular values driven to about 1 (between .7 and 1.2), in `dtype`; (..., R, C)."""
    a, b, c = COEFFICIENTS
    tall = update_ERC.shape[-2] > update_ERC.shape[-1]
    x_EMC = (update_ERC.mT if tall else update_ERC).to(dtype)
    x_EMC = x_EMC / x_EMC.norm(dim=(-2, -1), keepdim=True).clamp(min=EPSILON)
    for _ in range(NUM_ITERATIONS):
        gram_EMM = x_EMC @ x_EMC.mT
        if gram_EMM.ndim == 2:
            x_EMC = torch.addmm(x_EMC, torch.addmm(gram_EMM, gram_EMM, gram_EMM, beta=b, alpha=c), x_EMC, beta=a)
        else:
            x_EMC = torch.baddbmm(x_EMC, torch.baddbmm(gram_EMM, gram_EMM, gram_EMM, beta=b, alpha=c), x_EMC, beta=a)
    return x_EMC.mT if tall else x_EMC


def update_scale(parameter: Tensor, adjust_lr_fn: str) -> float:
    """The factor on a matrix's update, from how many outputs and inputs it has."""
    outputs, inputs = parameter.shape if parameter.ndim == 2 else (parameter.shape[-1], parameter.shape[-2])
    if adjust_lr_fn == "original":
        return math.sqrt(max(1, outputs / inputs))
    return 0.2 * math.sqrt(max(outputs, inputs))
