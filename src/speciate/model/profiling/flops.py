"""Count a training step's floating-point operations, by the convention of model FLOPs utilisation (MFU).

    forward, a token:  2 x (elements of every matrix that acts on it) + what modules compute besides their weights
    forward and backward: 3 x forward;   MFU = tokens/s x that / peak   (Chowdhery et al. 2022, appendix B)

Only matrix products are counted, each multiplication and each addition. Of experts, those that a token is sent to
count; the output layer counts over all positions but a block's last. Attention counts as if every token saw the whole
block, as that convention has it. Tokens that skip a part of a block cost nothing there (by the share of training), and
those that run see only each other. Recomputation (checkpointed blocks, flash attention's scores) does not count. The
result equals that of torch's FlopCounterMode (tests/model/profiling/test_flops.py). A module that multiplies more than
its weights inherits `CountsFlops` (module_hooks.py).
"""

import os
import time
from collections.abc import Iterable

import torch
from torch import nn

from speciate.model.block import Block
from speciate.model.module_hooks import CountsFlops, HasIdleMatrices
from speciate.model.transformer import Transformer

VARIABLE = "SPECIATE_PEAK_FLOPS"
"""Environment variable that replaces the table's peak by a number of FLOP/s, or by a measurement (`measure`); no
result of a run depends on it."""

# Dense peaks in FLOP/s from the vendors' data sheets, accumulating in float32: bfloat16, and float32 without TF32.
# The first name that is part of the device's name counts, so longer names come first.
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
    """Return the FLOPs of a training step per token, forward and backward, in blocks of `length` tokens."""
    # frozen layers run once for each block of text, and their outputs are kept
    num_frozen = 0 if model.frozen_layers is None else model.frozen_layers.num_layers
    frozen = {module for block in model.blocks[:num_frozen] for module in block.modules()}
    modules = [module for module in model.modules() if module not in frozen]
    matrices = {
        id(parameter): parameter.numel()
        for module in modules
        for name, parameter in module.named_parameters(recurse=False)
        if _multiplies(name, parameter)
    }
    embeddings = sum(layer.weight.numel() for layer in modules if isinstance(layer, nn.Embedding))
    idle = _idle_matrix_elements(modules)
    head_elements = 0 if model.unembedding is None else model.unembedding.weight.numel()
    body = sum(matrices.values()) - embeddings - idle - head_elements
    without_weights = sum(module.num_flops(length) for module in modules if isinstance(module, CountsFlops))
    skipped = sum(_skipped_flops(block, length) for block in modules if isinstance(block, Block))
    head = 2 * model.head_VD.numel() * (length - 1) / length
    # weights that are never trained take part in the forward pass only
    fixed = sum(buffer.numel() for name, buffer in model.named_buffers() if name.endswith(".weight"))
    return 3 * (2 * body + without_weights - skipped + head) + 2 * fixed


def _idle_matrix_elements(modules: Iterable[nn.Module]) -> int:
    return sum(module.num_idle_matrix_elements() for module in modules if isinstance(module, HasIdleMatrices))


def _skipped_flops(block: Block, length: int) -> float:
    """Return the forward FLOPs that a token saves by skipping, the mean over a block's tokens."""
    if block.share == 1:
        return 0.0
    modules = [module for part in block.wrapped for module in part.modules()]
    elements = sum(p.numel() for part in block.wrapped for name, p in part.named_parameters() if _multiplies(name, p))
    used = elements - _idle_matrix_elements(modules)
    counting = [module for module in modules if isinstance(module, CountsFlops)]
    running = sum(module.num_flops(block.share * length) for module in counting)
    return 2 * (1 - block.share) * used + sum(module.num_flops(length) for module in counting) - block.share * running


def _multiplies(name: str, parameter: nn.Parameter) -> bool:
    """Tell whether tokens are multiplied by it: matrices and stacks of them are, a stack of biases is not."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Return the device's peak in FLOP/s, from SPECIATE_PEAK_FLOPS or the table; None if neither has it (any CPU).

    Raises:
        ValueError: the variable is neither a positive number nor `measure`.
    """
    setting = os.environ.get(VARIABLE)
    if setting == "measure":
        return measure_peak_flops(device, precision)
    if setting:
        try:
            peak = float(setting)
        except ValueError:
            peak = 0.0
        if not 0 < peak < float("inf"):
            raise ValueError(f"{VARIABLE}: {setting!r} is neither a positive number of FLOP/s nor 'measure'")
        return peak
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peaks[precision] for known, peaks in PEAKS.items() if known in name), None)


def measure_peak_flops(device: torch.device, precision: str, size: int = 2048, rounds: int = 5) -> float:
    """Return the best FLOP/s of `rounds` square matrix products on this device, in this precision.

    On a CPU, torch's threads share the work. No program reaches a peak of the table; this one is what a matrix product
    reaches here.
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
