"""Test that the null of many labels is that of few: the band is computed in another way where there are many units."""

import numpy as np
import pytest

from speciate.analysis import draws
from speciate.analysis.specialisation import nulls


def test_the_band_of_many_units_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    counts_US = draw.multinomial(50, np.full(4, 0.25), size=30).astype(np.float64)
    drawn = draws.null_draws(np.repeat(np.arange(3), 10), 99, 0)
    usual = nulls.domain_null(counts_US[None], drawn)
    monkeypatch.setattr(draws, "SUMS_AT_ONCE", 500)
    many = nulls.domain_null(counts_US[None], drawn)
    for name in ("observed", "mean", "low", "high", "z", "p_value"):
        assert getattr(many, name) == pytest.approx(getattr(usual, name))
