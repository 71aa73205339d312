import hashlib

import numpy as np
import pytest

from speciate.config.components import ComponentOptions, options_of
from speciate.data.mixture import truncate


def options(**settings: float) -> ComponentOptions:
    return options_of("data/mixture", "truncate")(kind="truncate", **settings)


def test_domains_alternate_in_equal_parts_and_no_block_occurs_twice() -> None:
    mixture, warnings = truncate.mix(options(), {"a": 9, "b": 7, "c": 8})
    assert mixture.dtype == np.int32
    assert mixture.shape == (21, 2)
    assert mixture[:, 0].tolist() == [0, 1, 2] * 7
    for domain, blocks in enumerate([9, 7, 8]):
        rows = mixture[mixture[:, 0] == domain, 1]
        assert len(set(rows.tolist())) == 7
        assert set(rows.tolist()) <= set(range(blocks))
    assert warnings == []


def test_the_seed_draws_and_a_domain_does_not_disturb_another() -> None:
    first, _ = truncate.mix(options(), {"a": 90, "b": 60})
    other, _ = truncate.mix(options(seed=1), {"a": 90, "b": 60})
    assert (first != other).any()
    more, _ = truncate.mix(options(), {"c": 60, "a": 90, "b": 60})
    assert first[first[:, 0] == 0, 1].tolist() == more[more[:, 0] == 1, 1].tolist()


def test_each_block_is_kept_as_often_as_any_other() -> None:
    kept = np.zeros(10)
    for seed in range(400):
        mixture, _ = truncate.mix(options(seed=seed, warn_ratio=9.0), {"a": 10, "b": 5})
        kept[mixture[mixture[:, 0] == 0, 1]] += 1
    assert ((kept - 200) ** 2 / 100).sum() < 27.9  # about chi-squared with 9 degrees of freedom, 0.1 %


@pytest.mark.parametrize(("largest", "warned"), [(15, False), (16, True)])
def test_it_warns_above_the_ratio(largest: int, warned: bool) -> None:
    _, warnings = truncate.mix(options(), {"small": 10, "large": largest})
    assert bool(warnings) is warned
    if warned:
        assert warnings == [
            "large has 1.6 times the tokens of small (16 blocks, 10 blocks); every domain is cut to 10 blocks"
        ]


def test_an_empty_domain_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"domains.b: too small for one block of the train split \(blocks: a 3, b 0\)"):
        truncate.mix(options(), {"a": 3, "b": 0})


def test_the_order_is_the_one_that_it_always_was() -> None:
    mixture, _ = truncate.mix(options(seed=5), {"a": 90, "b": 61, "c": 75})
    assert hashlib.sha256(mixture.tobytes()).hexdigest()[:16] == "bfc238eb63fc9505"
