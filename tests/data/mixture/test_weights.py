from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.config.components import ComponentOptions, options_of
from speciate.data.mixture import weights


def options(domain_weights: dict[str, float], **settings: Any) -> ComponentOptions:
    return options_of("data/mixture", "weights")(kind="weights", weights=domain_weights, **settings)


def counts(mixture: np.ndarray) -> list[int]:
    return np.bincount(mixture[:, 0]).tolist()


def test_four_to_one_with_no_block_twice() -> None:
    mixture, warnings = weights.mix(options({"code": 4, "prose": 1}), {"code": 100, "prose": 50})
    assert counts(mixture) == [100, 25]
    assert warnings == []
    assert len(set(map(tuple, mixture.tolist()))) == 125
    assert counts(mixture[:50]) == [40, 10]
    # the scarcest domain decides
    assert counts(weights.mix(options({"code": 4, "prose": 1}), {"code": 100, "prose": 10})[0]) == [40, 10]


def test_decimal_weights_are_taken_at_their_word() -> None:
    assert counts(weights.mix(options({"a": 0.8, "b": 0.2}), {"a": 8, "b": 2})[0]) == [8, 2]
    assert counts(weights.mix(options({"a": 0.1, "b": 0.2, "c": 0.7}), {"a": 3, "b": 6, "c": 21})[0]) == [3, 6, 21]


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.lists(st.integers(1, 60), min_size=2, max_size=5),
    share=st.lists(st.integers(1, 9), min_size=5, max_size=5),
    asked=st.none() | st.integers(50, 300),
)
def test_shares_are_within_one_block_and_epochs_are_whole(
    blocks: list[int], share: list[int], asked: int | None
) -> None:
    names = "abcde"[: len(blocks)]
    domain_weights = {name: float(weight) for name, weight in zip(names, share, strict=False)}
    available = dict(zip(names, blocks, strict=True))
    refused = ""
    try:
        mixture, warnings = weights.mix(options(domain_weights, blocks=asked), available)
    except ValueError as error:
        refused = str(error)
    assert not refused or (asked is None and "less than one" in refused)
    if refused:
        return
    used_blocks = counts(mixture)
    if asked is not None:
        assert len(mixture) == asked
    for index, (name, count) in enumerate(zip(names, used_blocks, strict=True)):
        assert abs(count - len(mixture) * domain_weights[name] / sum(domain_weights.values())) < 1
        used = np.bincount(mixture[mixture[:, 0] == index, 1], minlength=available[name])
        assert used.max() - used.min() <= 1, "a block comes again only when all others have come"
        assert (count > available[name]) == any(warning.startswith(f"{name} has") for warning in warnings)
        assert asked is not None or count <= available[name]


def test_repetition_is_flagged_or_refused() -> None:
    four = {"code": 4.0, "prose": 1.0}
    mixture, warnings = weights.mix(options(four, blocks=200), {"code": 100, "prose": 50})
    assert counts(mixture) == [160, 40]
    assert warnings == ["code has 100 blocks, and its share is 160: each is used 1.60 times"]
    first, second = np.split(mixture[mixture[:, 0] == 0, 1], [100])
    assert sorted(first.tolist()) == list(range(100))
    assert first[:60].tolist() != second.tolist()
    with pytest.raises(
        ValueError, match=r"mixture.blocks: code has 100 blocks, .* 1.60 times; at most 125 can be used without repeats"
    ):
        weights.mix(options(four, blocks=200, repeat="refuse"), {"code": 100, "prose": 50})


@pytest.mark.parametrize("of", [{"a": 1.0}, {"a": 1.0, "b": 1.0, "c": 1.0}])
def test_weights_of_other_domains_are_refused(of: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"mixture.weights: needs one for each of a, b, not for a"):
        weights.mix(options(of), {"a": 3, "b": 3})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_weights_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weights"):
        options({"a": weight, "b": 1.0})


def test_a_share_of_less_than_a_block_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"mixture.weights.b: its share of 10 blocks is less than one"):
        weights.mix(options({"a": 1000.0, "b": 1.0}), {"a": 10, "b": 10})
