"""The first of equal texts stays."""

from speciate.data.documents import Document
from speciate.data.filters.exact_duplicate import Filter, Options


def test_the_first_stays_and_passes_are_apart() -> None:
    keep = Filter(Options(kind="exact_duplicate"))
    reasons = [keep.reason(Document(text, "d", text, text)) for text in ["a", "b", "a", "a ", "b"]]
    assert reasons == [None, None, "exact_duplicate", None, "exact_duplicate"]
    assert Filter(Options(kind="exact_duplicate")).reason(Document("", "", "", "a")) is None
