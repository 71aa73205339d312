"""Initial weights as in GPT-2 (Radford et al. 2019), each drawn from the seed and the parameter's name.

Weights are normal with standard deviation `init_std`, embeddings with `embedding_std`. Projections into the residual
stream (named `out`) are divided by sqrt(2 x layers), so that the stream's variance does not grow with depth. Biases are
0 and norms 1. Every parameter has its own random generator. So two arms of a study with the same seed share the initial
value of every parameter that both have, and differ only in what makes them two arms.

A module whose own parameters begin otherwise inherits `DrawsOwnWeights` (module_hooks.py); it is called last.
"""

import functools
import hashlib
import re

import torch
from torch import nn

from speciate.model.module_hooks import DrawsOwnWeights


def generator(*names: object) -> torch.Generator:
    """Return a random generator whose seed depends on these names and nothing else."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def initialise(model: nn.Module, seed: int, std: float, embedding_std: float, *, num_layers: int) -> None:
    """Draw every parameter of `model`, and every buffer called `weight`: a weight that is never trained.

    Args:
        model: the model, changed in place.
        seed: seed of all draws.
        std: standard deviation of weights.
        embedding_std: standard deviation of the parameters named `embedding`.
        num_layers: number of layers; residual projections are divided by sqrt(2 x num_layers).
    """
    fixed = [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("weight")]
    for name, weight in [*model.named_parameters(), *fixed]:
        words = re.split(r"[._]", name)
        if words[-1] == "bias":
            weight.zero_()
        elif weight.ndim >= 2:
            scale = std / (2 * num_layers) ** 0.5 if "out" in words else std
            if "embedding" in words:
                scale = embedding_std
            weight.copy_(torch.empty(weight.shape).normal_(0.0, scale, generator=generator(seed, name)))
    for path, module in model.named_modules():
        if isinstance(module, DrawsOwnWeights):
            module.draw_initial(functools.partial(generator, seed, path))
