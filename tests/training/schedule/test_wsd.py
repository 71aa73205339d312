import math

import pytest
import torch
from transformers.optimization import get_wsd_schedule

from speciate.config.components import component_module, options_of


def curve(num_steps: int, **options: object) -> list[float]:
    settings = options_of("training/schedule", "wsd")(kind="wsd", **options)
    return [component_module(settings).factor(settings, step, num_steps) for step in range(num_steps)]


def test_linear_by_hand() -> None:
    factors = curve(10, warmup=0.2, decay=0.4, shape="linear", final=0.2)
    assert factors == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4])


def test_square_root_by_hand() -> None:
    factors = curve(6, warmup=0.0, decay=4 / 6, shape="1-sqrt")
    assert factors == pytest.approx([1, 1, 1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])


@pytest.mark.parametrize("shape", ["linear", "1-sqrt"])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_equals_transformers(shape: str, final: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = get_wsd_schedule(
        optimizer, num_warmup_steps=10, num_decay_steps=30, num_training_steps=100, decay_type=shape, min_lr_ratio=final
    )
    (factor,) = reference.lr_lambdas
    ours = curve(100, warmup=0.1, decay=0.3, shape=shape, final=final)
    assert ours[10:] == pytest.approx([factor(step) for step in range(10, 100)])
    # theirs warms up from `final` and starts there
    assert ours[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("decay", [0.0, 0.2, 0.5, 1.0])
def test_no_step_is_wasted_and_the_peak_is_reached(warmup: float, decay: float) -> None:
    if warmup + decay <= 1:
        for num_steps in (1, 2, 7, 37):
            factors = curve(num_steps, warmup=warmup, decay=decay)
            assert min(factors) > 0
            assert max(factors) == 1


def test_what_comes_before_the_decay_does_not_depend_on_the_length() -> None:
    long, short = curve(1000, warmup=0.01, decay=0.1), curve(100, warmup=0.1, decay=0.5)
    assert long[:50] == short[:50]


def test_more_than_the_whole_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup and decay: 0\.6 and 0\.5 add up to more than the whole run"):
        curve(10, warmup=0.6, decay=0.5)
