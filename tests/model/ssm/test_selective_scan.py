"""Test the selective scan against its recurrence, computed step by step and differentiated by autograd."""

import pytest
import torch
from torch import Tensor

from speciate.model.ssm import selective_scan as scan

NUM_BLOCKS, LENGTH, INNER, STATE = 2, 11, 5, 3
Inputs = tuple[Tensor, ...]


@pytest.fixture(params=[1, 4, 11, 64])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set the chunk length: one token, one that leaves a remainder, exactly all tokens, more than all."""
    monkeypatch.setattr(scan, "CHUNK_TOKENS", (request.param, request.param))
    return int(request.param)


def recurrence(
    u_BTI: Tensor,
    delta_BTI: Tensor,
    rate_NI: Tensor,
    write_BTN: Tensor,
    read_BTN: Tensor,
    state_BNI: Tensor,
    starts_BT: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the paper's equation as it reads."""
    read = []
    for t in range(u_BTI.shape[1]):
        if starts_BT is not None:
            state_BNI = state_BNI * ~starts_BT[:, t, None, None]
        decay_BNI = torch.exp(delta_BTI[:, t, None, :] * rate_NI)
        state_BNI = decay_BNI * state_BNI + (delta_BTI * u_BTI)[:, t, None, :] * write_BTN[:, t, :, None]
        read.append((read_BTN[:, t, :, None] * state_BNI).sum(1))
    return torch.stack(read, dim=1), state_BNI


def inputs(length: int = LENGTH, strength: float = 1.0) -> Inputs:
    """Draw u, delta, A, B, C and a first state; decays are about exp(-strength)."""
    u_BTI = torch.randn(NUM_BLOCKS, length, INNER, dtype=torch.float64)
    delta_BTI = torch.rand(NUM_BLOCKS, length, INNER, dtype=torch.float64)
    rate_NI = -strength * torch.rand(STATE, INNER, dtype=torch.float64)
    write_BTN, read_BTN = torch.randn(2, NUM_BLOCKS, length, STATE, dtype=torch.float64)
    state_BNI = torch.randn(NUM_BLOCKS, STATE, INNER, dtype=torch.float64)
    tensors = (u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, state_BNI)
    return tuple(tensor.requires_grad_() for tensor in tensors)


def starts() -> Tensor:
    """Set document borders in the middle, next to each other, and at the first token."""
    starts_BT = torch.zeros(NUM_BLOCKS, LENGTH, dtype=torch.bool)
    starts_BT[0, [3, 4, 9]] = True
    starts_BT[1, [0, 8]] = True
    return starts_BT


def run_scan(*tensors: Tensor, **named: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the scan with its arguments in the order of `recurrence`."""
    names = ("read_BTN", "state_BNI", "starts_BT")
    return scan.selective_scan(*tensors[:4], **dict(zip(names, tensors[4:], strict=False)), **named)


def both(tensors: Inputs, starts_BT: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
    """Return (ours, the recurrence's) for every output and every input's gradient."""
    results = []
    for run in (run_scan, recurrence):
        y_BTI, last_BNI = run(*tensors, starts_BT)
        total = (y_BTI * torch.linspace(-1, 1, y_BTI.numel()).view_as(y_BTI)).sum() + last_BNI.square().sum()
        results.append([y_BTI, last_BNI, *torch.autograd.grad(total, tensors)])
    return list(zip(*results, strict=True))


@pytest.mark.parametrize("bordered", [False, True])
def test_equals_the_recurrence_in_value_and_gradient(chunk: int, bordered: bool) -> None:
    for ours, expected in both(inputs(), starts() if bordered else None):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_its_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "CHUNK_TOKENS", (4, 4))
    assert torch.autograd.gradcheck(lambda *tensors: run_scan(*tensors, starts()), inputs())


@pytest.mark.parametrize("strength", [0.0, 1e-12, 1e3, 1e6])
def test_decays_of_any_strength_stay_finite(chunk: int, strength: float) -> None:
    # summed over a block, 1e6 would require exp(1e7) in an implementation that divides by a decay
    for ours, expected in both(inputs(strength=strength)):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)


def test_nothing_before_a_border_is_seen(chunk: int) -> None:
    tensors = inputs()
    y_BTI, _ = run_scan(*tensors, starts())
    for block, start, stop in ((0, 4, 9), (0, 9, 11), (1, 8, 11)):
        part = [tensor[block : block + 1, start:stop] for tensor in tensors[:2] + tensors[3:5]]
        alone_BTI, _ = run_scan(part[0], part[1], tensors[2], part[2], read_BTN=part[3])
        torch.testing.assert_close(y_BTI[block, start:stop], alone_BTI[0], rtol=1e-13, atol=1e-13)
    gradient = torch.autograd.grad(y_BTI[0, 9:].square().sum(), tensors[0])[0]
    assert not gradient[0, :9].any()
    assert gradient[0, 9:].all()


def test_a_state_carries_on(chunk: int) -> None:
    u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN, state_BNI = inputs()
    whole_BTI, last_BNI = run_scan(u_BTI, delta_BTI, rate_NI, write_BTN, read_BTN=read_BTN, state_BNI=state_BNI)
    read = []
    for part in (slice(0, 1), slice(1, 7), slice(7, 11)):
        per_token = (u_BTI[:, part], delta_BTI[:, part], rate_NI, write_BTN[:, part], read_BTN[:, part])
        y_BTI, state_BNI = run_scan(*per_token, state_BNI)
        read.append(y_BTI)
    torch.testing.assert_close(torch.cat(read, dim=1), whole_BTI, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(state_BNI, last_BNI, rtol=1e-13, atol=1e-13)


def test_a_step_of_no_size_leaves_the_state_as_it_was() -> None:
    u_BTI, delta_BTI, *rest = inputs()
    _, last_BNI = run_scan(u_BTI, delta_BTI * 0, *rest)
    assert torch.equal(last_BNI, rest[-1])


def test_few_states_are_kept_for_the_backward_pass() -> None:
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        run_scan(*inputs(length=128))
    assert max(kept) <= 128 * NUM_BLOCKS * max(STATE * INNER // scan.CHUNK_TOKENS[0], INNER)
