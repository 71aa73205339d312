"""Floating-point operations of a training step, by the convention of the model-FLOPs utilisation, MFU.

    forward, a token:  2 x (elements of every matrix that acts on it) + what a mixer computes beside its weights
    forward and backward: 3 x forward;   MFU = tokens/s x that / peak   (Chowdhery et al. 2022, appendix B)

Matrix products alone are counted, each multiplication and addition; of experts those that a token is sent to; the head
over all positions but a block's last. Attention counts as if every token saw the whole block, as that convention has
it. Tokens that skip a part of a block take nothing there (the share of training), and those that run see only each
other. What is computed again (recomputed blocks, flash attention's scores) is no work of the model. Shown equal to
torch's FlopCounterMode (tests/model/profiling/test_flops.py). A mixer of which more than its weights is matrix products defines
`num_flops(length) -> float`, of the forward pass of one token in a block of that length.
"""

import os
import time
from collections.abc import Callable

import torch
from torch import nn

from speciate.model.block import Block
from speciate.model.transformer import Transformer

VARIABLE = "SPECIATE_PEAK_FLOPS"
"""Set to a number of FLOP/s, or to `measure`, it is the peak in place of the table's; no run's bits depend on it."""

# Dense peaks in FLOP/s from the vendors' data sheets, accumulating in float32: bfloat16, and float32 without TF32. The
# first name that is part of the device's own stands for it, so longer names come first.
PEAKS: dict[str, dict[str, float]] = {
    "B200": {"bfloat16": 2250e12, "float32": 75e12},
    "H200": {"bfloat16": 989e12, "float32": 67e12},
    "H100 PCIe": {"bfloat16": 756e12, "float32": 51e12},
    "H100": {"bfloat16": 989e12, "float32": 67e12},
    "A100": {"bfloat16": 312e12, "float32": 19.5e12},
    "L40S": {"bfloat16": 362e12, "float32": 91.6e12},
    "RTX 4090": {"bfloat16": 165.2e12, "float32": 82.6e12},
    "RTX 3090": {"bfloat16": 71e12, "float32": 35.6e12},
}


def flops_per_token(model: Transformer, length: int) -> float:
    """FLOPs of one token's share of a training step, forward and backward, in blocks of `length` tokens."""
    learned = sum(parameter.numel() for name, parameter in model.named_parameters() if _multiplies(name, parameter))
    embeddings = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Embedding))
    idle = sum(getattr(module, "num_idle_matrix_elements", int)() for module in model.modules())
    body = learned - embeddings - idle - (0 if model.unembedding is None else model.unembedding.weight.numel())
    beside = sum(getattr(module, "num_flops", lambda length: 0.0)(length) for module in model.modules())
    skipped = sum(_skipped(block, length) for block in model.modules() if isinstance(block, Block))
    head = 2 * model.head_VD.numel() * (length - 1) / length
    # weights that never learn take part in the forward pass alone
    fixed = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(".weight"))
    return 3 * (2 * body + beside - skipped + head) + 2 * fixed


def _skipped(block: Block, length: int) -> float:
    """What a token saves by skipping, of the forward pass: the mean over a block's tokens."""
    if block.share == 1:
        return 0.0
    modules = [module for part in block.wrapped for module in part.modules()]
    elements = sum(p.numel() for part in block.wrapped for name, p in part.named_parameters() if _multiplies(name, p))
    used = elements - sum(getattr(module, "num_idle_matrix_elements", int)() for module in modules)
    beside: list[Callable[[float], float]] = [m.num_flops for m in modules if hasattr(m, "num_flops")]  # type: ignore[misc]
    running = sum(num_flops(block.share * length) for num_flops in beside)
    return 2 * (1 - block.share) * used + sum(num_flops(length) for num_flops in beside) - block.share * running


def _multiplies(name: str, parameter: nn.Parameter) -> bool:
    """Matrices and stacks of them do; a stack of biases does not."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def peak_flops(device: torch.device, precision: str) -> float | None:
    """The device's peak in FLOP/s: SPECIATE_PEAK_FLOPS, or the table's; None where it is not in it, as no CPU is.

    Raises:
        ValueError: the variable is no positive number and not `measure`.
    """
    given = os.environ.get(VARIABLE)
    if given == "measure":
        return measured_peak(device, precision)
    if given:
        try:
            peak = float(given)
        except ValueError:
            peak = 0.0
        if not 0 < peak < float("inf"):
            raise ValueError(f"{VARIABLE}: {given!r} is no positive number of FLOP/s, and not 'measure'")
        return peak
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision] for known, peaks in PEAKS.items() if known in name), None)


def measured_peak(device: torch.device, precision: str, size: int = 2048, rounds: int = 5) -> float:
    """The best FLOP/s of `rounds` square matrix products on this device, in this precision; on a CPU with its threads.

    A peak of the table is what no program reaches; this one is what a product of matrices gets here.
    """
    x_NN = torch.randn(size, size, device=device, dtype=getattr(torch, precision))

    def seconds() -> float:
        _wait(device)
        started = time.perf_counter()
        for _ in range(20 if device.type == "cuda" else 1):
            x_NN @ x_NN
        _wait(device)
        return (time.perf_counter() - started) / (20 if device.type == "cuda" else 1)

    seconds()
    return 2 * size**3 / min(seconds() for _ in range(rounds))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
