import numpy as np
import pytest

from speciate.config.components import ComponentOptions, options_of
from speciate.data.mixture import natural


def options(**settings: int) -> ComponentOptions:
    return options_of("data/mixture", "natural")(kind="natural", **settings)


def test_every_block_once_in_proportion() -> None:
    mixture, warnings = natural.mix(options(), {"a": 30, "b": 10, "c": 2})
    assert warnings == []
    blocks = sorted(map(tuple, mixture.tolist()))
    assert blocks == [(domain, row) for domain, count in enumerate((30, 10, 2)) for row in range(count)]
    assert np.bincount(mixture[:21, 0]).tolist() == [15, 5, 1]


def test_the_seed_draws_the_order() -> None:
    first, again, other = (natural.mix(options(seed=seed), {"a": 30, "b": 10})[0] for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()


def test_an_empty_domain_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"domains.b: too small for one block of the train split"):
        natural.mix(options(), {"a": 3, "b": 0})
