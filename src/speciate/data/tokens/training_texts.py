"""The text that a tokenizer is fitted to: all training text, or an even part of it, streamed."""

import pathlib
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from speciate.data.documents import read_tables


def training_texts(files: Sequence[pathlib.Path], max_bytes: int | None = None) -> Iterator[str]:
    """The texts of documents files, in order; where `max_bytes` is given, about so many bytes of them.

    The bytes are shared evenly among the domains, and what a small domain cannot use goes to the others. Within a
    domain the documents taken are spread over all of its files: one is taken while the bytes taken so far are at most
    the domain's share of those that came by.
    """
    shares = dict.fromkeys(files, 1.0) if max_bytes is None else _shares(files, max_bytes)
    for file, share in shares.items():
        seen = taken = 0
        for table in read_tables(file, ["text"]):
            for text in table["text"].to_pylist():
                if share >= 1 or taken <= share * seen:
                    taken += len(text.encode()) if share < 1 else 0
                    yield text
                seen += len(text.encode()) if share < 1 else 0


def _shares(files: Sequence[pathlib.Path], max_bytes: int) -> dict[pathlib.Path, float]:
    """The share of each file to take; files without documents are left out."""
    domain_of, sizes = {}, dict[str, int]()
    for file in files:
        first = next(read_tables(file, ["domain"]), None)
        if first is not None and len(first):
            domain = domain_of[file] = first["domain"][0].as_py()
            sizes[domain] = sizes.get(domain, 0) + _text_bytes(file)
    level, left = 0.0, float(max_bytes)
    for index, size in enumerate(sorted(sizes.values())):
        level = left / (len(sizes) - index)  # what each domain gets where this one and larger ones share the rest
        if size >= level:
            break
        left -= size
    else:
        level = float("inf")
    return {file: min(1.0, level / sizes[domain]) for file, domain in domain_of.items()}


def _text_bytes(file: pathlib.Path) -> int:
    """The bytes of a file's texts and a few more for each, from its metadata alone."""
    metadata = pq.read_metadata(file)
    column = metadata.schema.names.index("text")
    groups = range(metadata.num_row_groups)
    sizes: list[int] = [metadata.row_group(group).column(column).total_uncompressed_size for group in groups]
    return max(1, sum(sizes))
