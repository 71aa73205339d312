"""Bounds are inclusive."""

from speciate.data.documents import Document
from speciate.data.filters.length import Filter, Options


def test_bounds_are_inclusive_and_count_characters() -> None:
    keep = Filter(Options(kind="length", min_characters=2, max_characters=4))
    reasons = [keep.reason(Document("", "", "", "ü" * length)) for length in range(1, 6)]
    assert reasons == ["too_short", None, None, None, "too_long"]


def test_no_upper_bound_by_default() -> None:
    assert Filter(Options(kind="length")).reason(Document("", "", "", "x" * 10**6)) is None
