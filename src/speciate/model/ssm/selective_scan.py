"""The selective scan of a state-space layer (Mamba, Gu and Dao 2023, section 3.2), computed exactly in chunks.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;    y_t = C_t . h_t        for each channel, A < 0

A chunk of tokens is discretised at once; its states are computed one after another in place, and one matrix product
reads them. Nothing is divided by a decay and no decay is accumulated, so nothing can overflow, however strong the
decays are. The backward pass keeps the inputs and one state a chunk. It recomputes the other states chunk by chunk,
from the last chunk to the first:

    g_t = C_t dy_t + exp(delta_{t+1} A) g_{t+1},    w_t = g_t exp(delta_t A) h_{t-1}
    d(delta u)_t = B_t . g_t,   dB_t = g_t . (delta u)_t,   dC_t = h_t . dy_t,   dA = sum_t delta_t w_t,
    d delta_t = u_t d(delta u)_t + sum_n A w_t

B blocks of T tokens, I inner channels, N states of each; Q tokens in a chunk.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Approximate number of elements of a chunk's states, so that they stay in a processor's cache between two passes.
CHUNK_ELEMENTS = 2**19
CHUNK_TOKENS = (8, 64)
"""Smallest and largest number of tokens of a chunk; with 8, the backward pass keeps at most an eighth of the states."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def selective_scan(
    u_BTI: Tensor,
    delta_BTI: Tensor,
    rate_NI: Tensor,
    write_BTN: Tensor,
    *,
    read_BTN: Tensor,
    state_BNI: Tensor | None = None,
    starts_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (y_BTI, the state after the last token, (B, N, I)).

    Args:
        u_BTI: the layer's input.
        delta_BTI: step sizes, not negative; 0 leaves the state unchanged.
        rate_NI: A, not positive.
        write_BTN: B, how each token writes to the states.
        read_BTN: C, how each token reads the states.
        state_BNI: state before the first token; None: zero.
        starts_BT: tokens that forget everything before them, boolean; None: there are none.
    """
    if state_BNI is None:
        state_BNI = u_BTI.new_zeros(len(u_BTI), *rate_NI.shape)
    inputs = (u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, state_BNI)
    y_BTI, last_BNI = _Scan.apply(*inputs, starts_BT)  # type: ignore[no-untyped-call]
    return y_BTI, last_BNI


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, state_BNI, starts_BT = inputs
        parts = _parts(u_BTI, rate_NI)
        before_PBNI = u_BTI.new_empty(len(parts), *state_BNI.shape)
        y_BTI = torch.empty_like(u_BTI)
        buffers = _Buffers(u_BTI, rate_NI, parts, 2)
        for part, before_BNI in zip(parts, before_PBNI.unbind(), strict=True):
            before_BNI.copy_(state_BNI)
            decays, states = buffers.for_chunk(part)
            _compute_decays(delta_BTI, rate_NI, starts_BT, part, decay_BQNI=decays.whole_BQNI)
            state_BNI = _compute_states(
                u_BTI, delta_BTI, write_BTN, before_BNI, part=part, decays=decays, states=states
            )
            y_BTI[:, part] = (read_BTN[:, part].unsqueeze(2) @ states.whole_BQNI).squeeze(2)
        ctx.save_for_backward(u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, starts_BT, before_PBNI)
        return y_BTI, state_BNI.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy_BTI: Tensor, later_BNI: Tensor) -> tuple[Tensor | None, ...]:
        u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, starts_BT, before_PBNI = ctx.saved_tensors
        du_BTI, ddelta_BTI = torch.empty_like(u_BTI), torch.empty_like(delta_BTI)
        dwrite_BTN, dread_BTN = torch.empty_like(write_BTN), torch.empty_like(read_BTN)
        drate_NI = torch.zeros_like(rate_NI)
        parts = _parts(u_BTI, rate_NI)
        buffers = _Buffers(u_BTI, rate_NI, parts, 3)
        for part, before_BNI in zip(reversed(parts), reversed(before_PBNI.unbind()), strict=True):
            decays, states, gradients = buffers.for_chunk(part)
            state_BQNI, g_BQNI = states.whole_BQNI, gradients.whole_BQNI
            delta_BQI, u_BQI, dy_BQI = delta_BTI[:, part], u_BTI[:, part], dy_BTI[:, part]
            _compute_decays(delta_BTI, rate_NI, starts_BT, part, decay_BQNI=decays.whole_BQNI)
            _compute_states(u_BTI, delta_BTI, write_BTN, before_BNI, part=part, decays=decays, states=states)
            # a row times a matrix that is read transposed is ten times as fast as a matrix times a column
            dread_BTN[:, part] = (dy_BQI.unsqueeze(2) @ state_BQNI.mT).squeeze(2)
            torch.mul(read_BTN[:, part].unsqueeze(-1), dy_BQI.unsqueeze(2), out=g_BQNI)
            later_BNI = _propagate_gradients(decays.tokens, gradients.tokens, later_BNI)
            dwritten_BQI = (write_BTN[:, part].unsqueeze(2) @ g_BQNI).squeeze(2)
            dwrite_BTN[:, part] = ((delta_BQI * u_BQI).unsqueeze(2) @ g_BQNI.mT).squeeze(2)
            w_BQNI = decays.whole_BQNI.mul_(g_BQNI)
            w_BQNI[:, 1:].mul_(state_BQNI[:, :-1])
            w_BQNI[:, 0].mul_(before_BNI)
            summed_BQI = torch.mul(w_BQNI, rate_NI, out=state_BQNI).sum(2)
            ddelta_BTI[:, part] = summed_BQI.addcmul_(dwritten_BQI, u_BQI)
            du_BTI[:, part] = dwritten_BQI.mul_(delta_BQI)
            drate_NI += w_BQNI.mul_(delta_BQI.unsqueeze(2)).sum((0, 1))
        return du_BTI, ddelta_BTI, drate_NI, dwrite_BTN, dread_BTN, later_BNI, None


def _parts(u_BTI: Tensor, rate_NI: Tensor) -> list[slice]:
    least, most = CHUNK_TOKENS
    chunk = min(max(CHUNK_ELEMENTS // max(1, len(u_BTI) * rate_NI.numel()), least), most)
    length = u_BTI.shape[1]
    return [slice(start, min(start + chunk, length)) for start in range(0, length, chunk)]


@dataclass(frozen=True, slots=True, eq=False)
class _Buffer:
    """A buffer for one chunk's states, and its views by token."""

    whole_BQNI: Tensor
    tokens: tuple[Tensor, ...]


class _Buffers:
    """Buffers that every chunk reuses, with their views: making views anew would cost as much as the work itself."""

    def __init__(self, u_BTI: Tensor, rate_NI: Tensor, parts: list[slice], count: int) -> None:
        longest = max((part.stop - part.start for part in parts), default=0)
        self._shape = (len(u_BTI), *rate_NI.shape)
        self._flat = [u_BTI.new_empty(len(u_BTI) * longest * rate_NI.numel()) for _ in range(count)]
        self._buffers: dict[int, list[_Buffer]] = {}

    def for_chunk(self, part: slice) -> list[_Buffer]:
        """Return the buffers, sized for the tokens of `part`."""
        length = part.stop - part.start
        if length not in self._buffers:
            num_blocks, state, inner = self._shape
            shape = (num_blocks, length, state, inner)
            wholes = [flat[: math.prod(shape)].view(shape) for flat in self._flat]
            self._buffers[length] = [_Buffer(whole_BQNI, whole_BQNI.unbind(1)) for whole_BQNI in wholes]
        return self._buffers[length]


def _compute_decays(
    delta_BTI: Tensor, rate_NI: Tensor, starts_BT: Tensor | None, part: slice, *, decay_BQNI: Tensor
) -> None:
    """Compute exp(delta A) of a chunk's tokens in place; it is 0 where a token forgets everything before it."""
    # exp2 takes half the time of exp
    torch.mul(delta_BTI[:, part].unsqueeze(2), rate_NI / math.log(2), out=decay_BQNI).exp2_()
    if starts_BT is not None:
        decay_BQNI.masked_fill_(starts_BT[:, part, None, None], 0.0)


def _compute_states(
    u_BTI: Tensor,
    delta_BTI: Tensor,
    write_BTN: Tensor,
    before_BNI: Tensor,
    *,
    part: slice,
    decays: _Buffer,
    states: _Buffer,
) -> Tensor:
    """Compute a chunk's states in place from the state before it, and return the last one, (B, N, I)."""
    written_BQI = delta_BTI[:, part] * u_BTI[:, part]
    torch.mul(written_BQI.unsqueeze(2), write_BTN[:, part].unsqueeze(-1), out=states.whole_BQNI)
    for decay_BNI, state_BNI in zip(decays.tokens, states.tokens, strict=True):
        before_BNI = state_BNI.addcmul_(decay_BNI, before_BNI)
    return before_BNI


def _propagate_gradients(decays: tuple[Tensor, ...], gradients: tuple[Tensor, ...], later_BNI: Tensor) -> Tensor:
    """Add to each state's gradient what comes from later tokens, from the chunk's last token to its first.

    Returns:
        the gradient of the state before the chunk, (B, N, I).
    """
    gradients[-1].add_(later_BNI)
    for t in reversed(range(1, len(gradients))):
        gradients[t - 1].addcmul_(decays[t], gradients[t])
    return decays[0] * gradients[0]
