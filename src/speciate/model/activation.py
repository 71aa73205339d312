"""Activation functions of feed-forward layers: GELU (Hendrycks and Gimpel 2016), SwiGLU (Shazeer 2020).

    gelu(u) = u Phi(u);    gelu_tanh: the tanh approximation that GPT-2 uses
    swiglu(g, u) = g sigmoid(g) u;    geglu_tanh(g, u) = gelu_tanh(g) u, as in Gemma

N rows, F hidden units; the gated ones need 2F inputs, the gates before the units.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Activation:
    """A function of the hidden units."""

    apply: Callable[[Tensor], Tensor]
    inputs: int
    """Number of inputs that each hidden unit takes."""


def _gelu_tanh(u_NF: Tensor) -> Tensor:
    return F.gelu(u_NF, approximate="tanh")


def _swiglu(u_NG: Tensor) -> Tensor:
    gate_NF, up_NF = u_NG.chunk(2, dim=-1)
    return F.silu(gate_NF) * up_NF


def _geglu_tanh(u_NG: Tensor) -> Tensor:
    gate_NF, up_NF = u_NG.chunk(2, dim=-1)
    return _gelu_tanh(gate_NF) * up_NF


ACTIVATIONS = {
    "gelu": Activation(F.gelu, 1),
    "gelu_tanh": Activation(_gelu_tanh, 1),
    "swiglu": Activation(_swiglu, 2),
    "geglu_tanh": Activation(_geglu_tanh, 2),
}
