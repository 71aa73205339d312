"""Test the moving average of the weights against torch's own, and its use in a run."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from speciate.config.run import RunSpec
from speciate.training.checkpoint.ema import WeightAverage


def trained(model: nn.Module, num_steps: int, seen: Callable[[int], object]) -> None:
    """Run some steps of gradient descent; call `seen` after each step with its number, counted from 1."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, num_steps + 1):
        model(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen(step)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def with_warmup(averaged: list[Tensor], current: list[Tensor], number: Tensor | int) -> None:
    """Apply torch_ema's rule in torch's AveragedModel, whose counter is 1 at the second call."""
    decay = min(0.9, (1 + int(number)) / (10 + int(number)))
    torch._foreach_lerp_(averaged, current, 1 - decay)


@pytest.mark.parametrize("warmup", [False, True])
def test_equals_torchs_averaged_model(warmup: bool) -> None:
    of = model()
    theirs = AveragedModel(of, multi_avg_fn=with_warmup if warmup else get_ema_multi_avg_fn(0.9))
    ours = WeightAverage(of, 0.9, warmup)
    theirs.update_parameters(of)  # its first call copies the weights unchanged

    def seen(step: int) -> None:
        ours.update(of, step)
        theirs.update_parameters(of)

    trained(of, 120, seen)  # the warm-up ends at step 80
    for name, weight in theirs.module.named_parameters():
        assert torch.equal(ours.weights[name], weight), name
    assert not torch.equal(ours.weights["0.weight"], of[0].weight)


def test_by_hand() -> None:
    of = nn.Linear(1, 1, bias=False)
    nn.init.constant_(of.weight, 1.0)
    average = WeightAverage(of, 0.75, warmup=False)
    for step, value in enumerate((2.0, 4.0), start=1):
        nn.init.constant_(of.weight, value)
        average.update(of, step)
    assert average.weights["weight"].item() == pytest.approx(0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 4)


def test_the_warm_up_by_hand() -> None:
    average = WeightAverage(nn.Linear(1, 1), 0.5, warmup=True)
    assert [average.decay_at(update) for update in (1, 2, 8, 9)] == [2 / 11, 3 / 12, 0.5, 0.5]


def test_an_average_that_is_not_kept_cannot_be_asked_for(run_spec: Callable[..., RunSpec]) -> None:
    with pytest.raises(ValueError, match="evaluate_ema: there is no average of the weights; set ema to its decay"):
        run_spec(training={"evaluate_ema": True})
    with pytest.raises(ValueError, match="ema_warmup: there is no average of the weights; set ema to its decay"):
        run_spec(training={"ema_warmup": True})
    with pytest.raises(ValueError, match="less than 1"):
        run_spec(training={"ema": 1.0})
