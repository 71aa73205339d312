import pytest
import torch
from transformers.optimization import get_constant_schedule_with_warmup

from speciate.config.components import component_module, options_of


def curve(num_steps: int, **options: float) -> list[float]:
    settings = options_of("training/schedule", "constant")(kind="constant", **options)
    return [component_module(settings).factor(settings, step, num_steps) for step in range(num_steps)]


def test_by_hand() -> None:
    assert curve(6, warmup=0.5) == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    assert curve(3, warmup=0.0) == [1, 1, 1]
    assert curve(2, warmup=1.0) == [0.5, 1.0]


def test_it_is_transformers_schedule_one_step_ahead() -> None:
    # theirs begins with a step at rate 0
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (factor,) = get_constant_schedule_with_warmup(optimizer, num_warmup_steps=30).lr_lambdas
    assert curve(100, warmup=0.3) == pytest.approx([factor(step + 1) for step in range(100)])
