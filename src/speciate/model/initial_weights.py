"""Initial weights: GPT-2's (Radford et al. 2019), each drawn from the seed and its own name.

Weights are normal with standard deviation `init_std`, embeddings with `embedding_std`; projections into the residual
stream (named `out`) get it divided by sqrt(2 x layers), so that the stream's variance does not grow with depth; biases
are 0 and norms 1. Every parameter has a generator of its own: two arms of a study that share a seed share the initial
value of every parameter that both have, and differ nowhere but in what makes them two arms.

A module whose own parameters begin otherwise defines `draw_initial(draw)`, called last; `draw(name)` is the generator
of its parameter of that name.
"""

import functools
import hashlib
import re

import torch
from torch import nn


def generator(*names: object) -> torch.Generator:
    """A generator of random numbers that depends on these names and nothing else."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@torch.no_grad()
def initialise(model: nn.Module, seed: int, std: float, embedding_std: float, num_layers: int) -> None:
    """Draws every parameter of `model`, and every buffer called `weight`, which is a weight that is never learned.

    Args:
        model: altered in place.
        seed: of all draws.
        std: standard deviation of weights.
        embedding_std: standard deviation of the parameters named `embedding`.
        num_layers: by whose root residual projections are scaled down.
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
        own = getattr(module, "draw_initial", None)
        if own is not None:
            own(functools.partial(generator, seed, path))
