"""A Mamba block (Gu and Dao 2023): what the mixers `mamba` and `rom` share.

    u, z = x W_in;   u <- silu(conv(u));   (d, B, C) = u W_x;   delta = softplus(d W_delta + b_delta)
    y = scan(u, delta, A, B, C) + D u;     out = (y * silu(z)) W_out

The convolution is causal and depthwise, over the last K tokens; A = -exp(.) is learned. Where documents are kept apart,
neither the convolution nor the state crosses from one to another. What is carried from one call to the next is the last
inputs of the convolution and the state: as much after a million tokens as after one.

B blocks of T tokens, D width, I inner channels, N states a channel, K taps of the convolution, R rank of the step size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.model.ssm.selective_scan import selective_scan
from speciate.model.token_batch import TokenBatch

Past = tuple[Tensor, ...]
"""What a block keeps of the tokens that it has read: the last inputs of its convolution, their documents, the state."""
NO_DOCUMENT = -2
"""The document of what was before the first token; that of padding is -1."""
STEP_SIZES = (0.001, 0.1)
"""Between which step sizes begin, evenly in their logarithm."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a block."""

    width: int
    """D."""
    inner: int
    """I."""
    state: int
    """N."""
    taps: int
    """K."""
    rank: int
    """R."""

    @classmethod
    def of(cls, width: int, expand: float, state: int, taps: int, rank: int | None) -> "Shape":
        """As the options of a mixer give it; with no rank ceil(width / 16), as the paper has it."""
        return cls(width, round(expand * width), state, taps, rank or math.ceil(width / 16))


class StateSpace(nn.Module):
    """Convolution and selective state space: what lies between a block's first projection and its gate."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        inner, state = shape.inner, shape.state
        # a holder of its weights: it is applied as a sum over shifted inputs
        self.conv = nn.Conv1d(inner, inner, shape.taps, groups=inner)
        self.select = nn.Linear(inner, shape.rank + 2 * state, bias=False)
        self.step = nn.Linear(shape.rank, inner)
        # vectors, since nothing that is done to matrices (decay, Muon, counting products) means anything for A
        self.log_rate = nn.Parameter(torch.zeros(inner * state))
        self.skip = nn.Parameter(torch.ones(inner))

    def draw_initial(self, draw: Callable[[str], torch.Generator]) -> None:
        """As Mamba begins: A_n = -n, step sizes in (.001, .1), the rest as torch's own layers (D is 1 already)."""

        def uniform(name: str, like: Tensor, low: float, high: float) -> Tensor:
            return torch.empty(like.shape).uniform_(low, high, generator=draw(name))

        taps, rank = self.shape.taps**-0.5, self.shape.rank**-0.5
        self.conv.weight.copy_(uniform("conv.weight", self.conv.weight, -taps, taps))
        assert self.conv.bias is not None
        self.conv.bias.copy_(uniform("conv.bias", self.conv.bias, -taps, taps))
        self.step.weight.copy_(uniform("step.weight", self.step.weight, -rank, rank))
        low, high = map(math.log, STEP_SIZES)
        size_I = uniform("step.bias", self.step.bias, low, high).exp()
        self.step.bias.copy_(size_I + (-torch.expm1(-size_I)).log())  # softplus of it is the size
        self.log_rate.copy_(torch.arange(1, self.shape.state + 1).log().repeat(self.shape.inner))

    def num_flops(self, length: int) -> float:
        """Of one token's writing to its states and reading them; see model/profiling/flops.py."""
        return 4.0 * self.shape.inner * self.shape.state

    def begin(self, u_BTI: Tensor) -> Past:
        """What there is before the first token."""
        kept = max(1, self.shape.taps - 1)
        window_BKI = u_BTI.new_zeros(len(u_BTI), kept, self.shape.inner)
        document_BK = torch.full((len(u_BTI), kept), NO_DOCUMENT, device=u_BTI.device)
        state_BNI = self.skip.new_zeros(len(u_BTI), self.shape.state, self.shape.inner)
        return window_BKI, document_BK, state_BNI

    def forward(self, u_BTI: Tensor, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """(y_BTI, what to keep); `past` is what was kept, None at the beginning."""
        window_BKI, document_BK, state_BNI = self.begin(u_BTI) if past is None else past
        joined_BSI = torch.cat([window_BKI.to(u_BTI.dtype), u_BTI], dim=1)
        apart = tokens.document_BT is not None or past is not None
        document_BT = torch.zeros_like(tokens.id_BT) if tokens.document_BT is None else tokens.document_BT
        document_BS = torch.cat([document_BK, document_BT], dim=1)
        # padding stands at a row's end: no token sees it, and what is kept must not
        real_BT = tokens.index_BT >= 0 if tokens.cache is not None else None
        mixed_BTI = F.silu(self.convolved(joined_BSI, document_BS if apart else None))
        rank, state = self.shape.rank, self.shape.state
        step_BTR, write_BTN, read_BTN = self.select(mixed_BTI).split((rank, state, state), dim=-1)
        delta_BTI = F.softplus(self.step(step_BTR))
        starts_BT = None
        if apart:
            starts_BT = document_BT != document_BS[:, document_BK.shape[1] - 1 : -1]
        if real_BT is not None:
            delta_BTI = delta_BTI * real_BT.unsqueeze(-1)
            starts_BT = starts_BT if starts_BT is None else starts_BT & real_BT
        with torch.autocast(u_BTI.device.type, enabled=False):
            rate_NI = -self.log_rate.exp().view(self.shape.inner, state).t().contiguous()
            four = (part.to(rate_NI.dtype) for part in (mixed_BTI, delta_BTI, write_BTN, read_BTN))
            u_BTI, delta_BTI, write_BTN, read_BTN = four
            y_BTI, last_BNI = selective_scan(u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, state_BNI, starts_BT)
            y_BTI = torch.addcmul(y_BTI, u_BTI, self.skip)
        return y_BTI, (*self.last(joined_BSI, document_BS, real_BT), last_BNI)

    def convolved(self, joined_BSI: Tensor, document_BS: Tensor | None) -> Tensor:
        """The convolution at the last T of S columns; the others are those before. Across no border of documents."""
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

    def last(self, joined_BSI: Tensor, document_BS: Tensor, real_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """The last inputs of the convolution, (B, K - 1, I), and their documents; of each row's real tokens."""
        kept = max(1, self.shape.taps - 1)
        if real_BT is None:
            return joined_BSI[:, -kept:], document_BS[:, -kept:]
        column_BK = real_BT.sum(1, keepdim=True) + torch.arange(kept, device=real_BT.device)
        column_BKI = column_BK.unsqueeze(-1).expand(-1, -1, joined_BSI.shape[-1])
        return joined_BSI.gather(1, column_BKI), document_BS.gather(1, column_BK)


class Mamba(nn.Module):
    """A whole block: both halves of the first projection, the state space, the gate, the last projection."""

    def __init__(self, shape: Shape, biases: bool) -> None:
        super().__init__()
        self.input = nn.Linear(shape.width, 2 * shape.inner, bias=biases)
        self.space = StateSpace(shape)
        self.out = nn.Linear(shape.inner, shape.width, bias=biases)

    def forward(self, x_BTD: Tensor, tokens: TokenBatch, past: Past | None) -> tuple[Tensor, Past]:
        """(what each token takes from those before it, (B, T, D); what to keep)."""
        u_BTI, gate_BTI = self.input(x_BTD).chunk(2, dim=-1)
        y_BTI, kept = self.space(u_BTI, tokens, past)
        out_BTD: Tensor = self.out(y_BTI * F.silu(gate_BTI))
        return out_BTD, kept
