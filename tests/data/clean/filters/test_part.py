"""Test that parts are disjoint, cover everything, keep groups together, and have nearly equal sizes."""

import pytest
from pydantic import ValidationError

from speciate.data.clean.filters.part import Options
from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document


def kept(make, documents: list[Document], **settings: int) -> set[str]:
    each = make("part", **settings)
    return {document.id for document in documents if not isinstance(each.apply(document), Drop)}


def test_every_document_is_in_exactly_one_part(make) -> None:
    documents = [Document(f"s/{i}", "d", f"group{i}", "text") for i in range(3000)]
    parts = [kept(make, documents, index=index, of=3) for index in range(3)]
    assert sum(map(len, parts)) == 3000 and len(set.union(*parts)) == 3000
    assert all(abs(len(part) - 1000) < 5 * (3000 * 2 / 9) ** 0.5 for part in parts)  # five standard deviations
    assert kept(make, documents, index=0, of=3, seed=1) != parts[0]


def test_groups_stay_whole_under_any_name_of_their_source(make) -> None:
    first = make("part", index=0, of=2)
    for group in range(50):
        alike = [Document(f"{name}/{row}", "d", f"g{group}", "t") for name in ("one", "two") for row in range(2)]
        assert len({isinstance(first.apply(document), Drop) for document in alike}) == 1


def test_a_part_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValidationError, match="index: 3 of 3 parts; the last is 2"):
        Options(kind="part", index=3, of=3)
