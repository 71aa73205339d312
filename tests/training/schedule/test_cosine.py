import math

import pytest

from speciate.config.components import component_module, options_of


def curve(num_steps: int, **options: float) -> list[float]:
    settings = options_of("training/schedule", "cosine")(kind="cosine", **options)
    return [component_module(settings).factor(settings, step, num_steps) for step in range(num_steps)]


def test_it_rises_in_a_line_to_the_peak_and_falls_as_a_cosine() -> None:
    factors = curve(10, warmup=0.4)
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4:] == pytest.approx([(1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])


def test_without_warmup_the_first_step_is_at_the_peak() -> None:
    factors = curve(4, warmup=0.0)
    assert factors == pytest.approx([1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2])


def test_it_can_be_all_warmup() -> None:
    assert curve(4, warmup=1.0) == pytest.approx([0.25, 0.5, 0.75, 1.0])


def test_it_ends_near_final_and_never_below() -> None:
    factors = curve(1000, warmup=0.1, final=0.2)
    assert max(factors) == 1.0
    assert min(factors[100:]) == factors[-1] == pytest.approx(0.2, abs=1e-4)
    assert factors[-1] > 0.2
    assert factors[550] == pytest.approx(0.6)


def test_a_single_step_is_at_the_peak() -> None:
    assert curve(1) == [1.0]


def test_no_step_is_wasted() -> None:
    assert all(factor > 0 for warmup in (0.0, 0.1, 0.5, 1.0) for factor in curve(37, warmup=warmup))
