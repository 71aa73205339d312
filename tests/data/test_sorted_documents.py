"""Test the order of documents: that of their texts' digests, in parts that together are the whole."""

import hashlib
import pathlib
import random

import pytest

from speciate.data.documents import Document, num_documents, read_documents
from speciate.data.sorted_documents import DocumentSorter


def documents(count: int) -> list[Document]:
    """Return documents, some of them with one text and several groups and ids."""
    return [
        Document(f"s/{number}", "d", f"g{number % 3}", f"ü {number % (count - count // 4)}") for number in range(count)
    ]


def sorter(found: list[Document], seed: int) -> DocumentSorter:
    made = DocumentSorter()
    for document in random.Random(seed).sample(found, len(found)):
        made.add(document)
    return made


def order(document: Document) -> tuple[bytes, bytes, bytes]:
    text, group, id_ = (value.encode() for value in (document.text, document.group, document.id))
    return hashlib.blake2b(text, digest_size=16).digest(), *(
        hashlib.blake2b(value, digest_size=8).digest() for value in (group, id_)
    )


@pytest.mark.parametrize("num_parts", [1, 2, 3, 7, 64])
def test_every_order_of_arrival_gives_one_order_in_equal_ranges_of_the_digests(
    tmp_path: pathlib.Path, num_parts: int
) -> None:
    found = documents(400)
    files = [tmp_path / f"{seed}" for seed in range(2)]
    parts, again = (sorter(found, seed).write(file, num_parts) for seed, file in enumerate(files))
    assert files[0].read_bytes() == files[1].read_bytes() and parts == again
    assert list(read_documents(files[0])) == sorted(found, key=order)
    start = 0
    for index, part in enumerate(parts):
        of_part = list(read_documents(files[0], start=start, stop=start + part.row_groups))
        start += part.row_groups
        assert (len(of_part), sum(len(each.text.encode()) for each in of_part)) == (part.documents, part.bytes)
        shares = [int.from_bytes(order(each)[0], "big") / 2**128 for each in of_part]
        assert all(index <= share * num_parts < index + 1 for share in shares)
    assert sum(part.documents for part in parts) == len(found)


def test_writing_stops_with_the_document_that_reaches_the_limit(tmp_path: pathlib.Path) -> None:
    found = sorted((Document(str(number), "d", "g", "x" * (number + 1)) for number in range(20)), key=order)
    for limit in (0, 1, 50, 10**6):
        (part,) = sorter(found, 0).write(tmp_path / "file", max_bytes=limit)
        kept, size = [], 0
        for document in found:
            if size >= limit:
                break
            kept.append(document)
            size += len(document.text)
        assert list(read_documents(tmp_path / "file")) == kept
        assert (part.documents, part.bytes) == (len(kept), size)


def test_nothing_can_be_sorted(tmp_path: pathlib.Path) -> None:
    parts = DocumentSorter().write(tmp_path / "file", 3)
    assert [part.documents for part in parts] == [0, 0, 0] and num_documents(tmp_path / "file") == 0


def test_row_groups_that_are_not_there_are_refused(tmp_path: pathlib.Path) -> None:
    sorter(documents(9), 0).write(tmp_path / "file")
    with pytest.raises(ValueError, match=r"file: has 1 row groups, not 3"):
        list(read_documents(tmp_path / "file", start=0, stop=3))
