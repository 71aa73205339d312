"""The Mamba block (Gu and Dao 2023) that the mixers `mamba` and `rom` share.

    u, z = x W_in;   u <- silu(conv(u));   (d, B, C) = u W_x;   delta = softplus(d W_delta + b_delta)
    y = scan(u, delta, A, B, C) + D u;     out = (y * silu(z)) W_out

The convolution is causal and depthwise, over the last K tokens; A = -exp(.) is learned. If documents are kept apart,
neither the convolution nor the state crosses from one to another. From one call to the next a block carries the last
inputs of the convolution and the state: as much after a million tokens as after one.

B blocks of T tokens, D width, I inner channels, N states a channel, K taps of the convolution, R rank of the step size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.module_hooks import CountsFlops, DrawsOwnWeights
from speciate.model.ssm.mamba_options import MambaSizeOptions
from speciate.model.ssm.selective_scan import selective_scan
from speciate.model.token_batch import TokenBatch

Past = tuple[Tensor, ...]
"""What a block keeps of the tokens so far: the last inputs of its convolution, their documents, and the state."""
NO_DOCUMENT = -2
"""Document number of the positions before the first token; padding has -1."""
STEP_SIZES = (0.001, 0.1)
"""Bounds of the initial step sizes, which are uniform in their logarithm."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a block: D, I, N, K and R of the module's equations."""

    width: int
    inner: int
    state: int
    taps: int
    rank: int

    @classmethod
    def of(cls, width: int, options: MambaSizeOptions) -> "Shape":
        """Return the sizes that the options mean; without a rank it is ceil(width / 16), as in the paper."""
        rank = options.step_rank or math.ceil(width / 16)
        return cls(width, round(options.expand * width), options.state, options.conv, rank)


class StateSpace(DrawsOwnWeights, CountsFlops, nn.Module):
    """Convolution and selective state space, between a block's first projection and its gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inner, state = shape.inner, shape.state
        # it only holds the weights: the convolution is computed as a sum over shifted inputs
        self.conv = nn.Conv1d(inner, inner, shape.taps, groups=inner)
        self.select = nn.Linear(inner, shape.rank + 2 * state, bias=False)
        self.step = nn.Linear(shape.rank, inner)
        # vectors, since what is done to matrices (weight decay, Muon, counting products) makes no sense for A
        self.log_rate = nn.Parameter(torch.zeros(inner * state))
        self.skip = nn.Parameter(torch.ones(inner))

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """Initialise as Mamba does: A_n = -n, step sizes in (.001, .1), the rest like torch's layers (D is 1)."""

        def uniform(name: str, like: Tensor, low: float, high: float) -> Tensor:
            return torch.empty(like.shape).uniform_(low, high, generator=draw(name))

        taps, rank = self.shape.taps**-0.5, self.shape.rank**-0.5
        self.conv.weight.copy_(uniform("conv.weight", self.conv.weight, -taps, taps))
        assert self.conv.bias is not None
        self.conv.bias.copy_(uniform("conv.bias", self.conv.bias, -taps, taps))
        self.step.weight.copy_(uniform("step.weight", self.step.weight, -rank, rank))
        low, high = map(math.log, STEP_SIZES)
        size_I = uniform("step.bias", self.step.bias, low, high).exp()
        self.step.bias.copy_(size_I + (-torch.expm1(-size_I)).log())  # its softplus is the size
        self.log_rate.copy_(torch.arange(1, self.shape.state + 1).log().repeat(self.shape.inner))

    def num_flops(self, length: float) -> float:
        """Return the FLOPs of one token's writing to its states and reading them."""
        return 4.0 * self.shape.inner * self.shape.state

    def initial_past(self, u_BTI: Tensor) -> Past:
        """Return the past before the first token."""
        kept = max(1, self.shape.taps - 1)
        window_BKI = u_BTI.new_zeros(len(u_BTI), kept, self.shape.inner)
        document_BK = torch.full((len(u_BTI), kept), NO_DOCUMENT, device=u_BTI.device)
        state_BNI = self.skip.new_zeros(len(u_BTI), self.shape.state, self.shape.inner)
        return window_BKI, document_BK, state_BNI

    def forward(self, u_BTI: Tensor, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """Return (y_BTI, the past for the next call); `past` is None before the first token."""
        window_BKI, document_BK, state_BNI = self.initial_past(u_BTI) if past is None else past
        joined_BSI = torch.cat([window_BKI.to(u_BTI.dtype), u_BTI], dim=1)
        separate = tokens.document_BT is not None or past is not None
        document_BT = torch.zeros_like(tokens.id_BT) if tokens.document_BT is None else tokens.document_BT
        document_BS = torch.cat([document_BK, document_BT], dim=1)
        # padding stands before or after a row's tokens: none of them sees it, and the kept past must not contain it
        real_BT = tokens.index_BT >= 0 if tokens.cache is not None else None
        mixed_BTI = F.silu(self.convolve(joined_BSI, document_BS if separate else None))
        rank, state = self.shape.rank, self.shape.state
        step_BTR, write_BTN, read_BTN = self.select(mixed_BTI).split((rank, state, state), dim=-1)
        delta_BTI = F.softplus(self.step(step_BTR))
        starts_BT = None
        if separate:
            starts_BT = document_BT != document_BS[:, document_BK.shape[1] - 1 : -1]
        if real_BT is not None:
            delta_BTI = delta_BTI * real_BT.unsqueeze(-1)
            starts_BT = starts_BT if starts_BT is None else starts_BT & real_BT
        with torch.autocast(u_BTI.device.type, enabled=False):
            rate_NI = -self.log_rate.exp().view(self.shape.inner, state).t().contiguous()
            cast = (part.to(rate_NI.dtype) for part in (mixed_BTI, delta_BTI, write_BTN, read_BTN))
            u_BTI, delta_BTI, write_BTN, read_BTN = cast
            y_BTI, last_BNI = selective_scan(
                u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN=read_BTN, state_BNI=state_BNI, starts_BT=starts_BT
            )
            y_BTI = torch.addcmul(y_BTI, u_BTI, self.skip)
        return y_BTI, (*self.last_inputs(joined_BSI, document_BS, real_BT), last_BNI)

    def convolve(self, joined_BSI: Tensor, document_BS: Tensor | None) -> Tensor:
        """Return the convolution at the last T of S columns, within documents; the other columns come before them."""
        assert self.conv.bias is not None
        tap_KI = self.conv.weight.squeeze(1).t()
        before = max(1, self.shape.taps - 1)
        length = joined_BSI.shape[1] - before
        y_BTI = torch.addcmul(self.conv.bias, joined_BSI[:, before:], tap_KI[-1])
        for back in range(1, self.shape.taps):
            column = slice(before - back, before - back + length)
            tapped_BTI = joined_BSI[:, column]
            if document_BS is not None:
                same_BT = document_BS[:, column] == document_BS[:, before:]
                tapped_BTI = tapped_BTI * same_BT.unsqueeze(-1)
            y_BTI = torch.addcmul(y_BTI, tapped_BTI, tap_KI[-1 - back])
        return y_BTI

    def last_inputs(self, joined_BSI: Tensor, document_BS: Tensor, real_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return each row's last real inputs of the convolution, (B, K - 1, I), and their documents."""
        kept = max(1, self.shape.taps - 1)
        if real_BT is None:
            return joined_BSI[:, -kept:], document_BS[:, -kept:]
        number_T = torch.arange(1, real_BT.shape[1] + 1, device=real_BT.device)
        stop_B1 = (number_T * real_BT).amax(1, keepdim=True)  # after a row's last real token; 0 without any
        column_BK = stop_B1 + torch.arange(kept, device=real_BT.device)
        column_BKI = column_BK.unsqueeze(-1).expand(-1, -1, joined_BSI.shape[-1])
        return joined_BSI.gather(1, column_BKI), document_BS.gather(1, column_BK)


class Mamba(nn.Module):
    """A whole block: first projection, state space, gate and last projection."""

    def __init__(self, shape: Shape, biases: bool) -> None:
        super().__init__()
        self.input = nn.Linear(shape.width, 2 * shape.inner, bias=biases)
        self.space = StateSpace(shape)
        self.out = nn.Linear(shape.inner, shape.width, bias=biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """Return (what each token gathers from the tokens up to itself, (B, T, D); the past for the next call)."""
        u_BTI, gate_BTI = self.input(x_BTD).chunk(2, dim=-1)
        y_BTI, kept = self.space(u_BTI, tokens, past)
        out_BTD: Tensor = self.out(y_BTI * F.silu(gate_BTI))
        return out_BTD, kept
