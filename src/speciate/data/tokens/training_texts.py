"""Stream the text that a tokenizer is fitted to: all training text, or an evenly spread part of it."""

import pathlib
from collections.abc import Iterator, Sequence

import pyarrow.parquet as pq

from speciate.data.documents import read_tables


def training_texts(files: Sequence[pathlib.Path], max_bytes: int | None = None) -> Iterator[str]:
    """Yield the texts of documents files in order; with `max_bytes`, about that many bytes of them.

    The bytes are shared evenly among the domains; what a small domain cannot use goes to the others. Within a domain
    the chosen documents are spread over all its files: a document is taken while the bytes taken so far are at most the
    domain's share of the bytes seen so far.
    """
    shares = dict.fromkeys(files, 1.0) if max_bytes is None else _share_of_each_file(files, max_bytes)
    for file, share in shares.items():
        seen = taken = 0
        for table in read_tables(file, ["text"]):
            for text in table["text"].to_pylist():
                if share >= 1 or taken <= share * seen:
                    taken += len(text.encode()) if share < 1 else 0
                    yield text
                seen += len(text.encode()) if share < 1 else 0


def _share_of_each_file(files: Sequence[pathlib.Path], max_bytes: int) -> dict[pathlib.Path, float]:
    """Return the share of each file to take; files without documents are left out."""
    domain_of, sizes = {}, dict[str, int]()
    for file in files:
        first = next(read_tables(file, ["domain"]), None)
        if first is not None and len(first):
            domain = domain_of[file] = first["domain"][0].as_py()
            sizes[domain] = sizes.get(domain, 0) + _text_bytes(file)
    level, remaining = 0.0, float(max_bytes)
    for index, size in enumerate(sorted(sizes.values())):
        level = remaining / (len(sizes) - index)  # bytes per domain if this and all larger domains share the rest
        if size >= level:
            break
        remaining -= size
    else:
        level = float("inf")
    return {file: min(1.0, level / sizes[domain]) for file, domain in domain_of.items()}


def _text_bytes(file: pathlib.Path) -> int:
    """Return the bytes of a file's texts, and a few more for each text, from the file's metadata alone."""
    metadata = pq.read_metadata(file)
    column = metadata.schema.names.index("text")
    groups = range(metadata.num_row_groups)
    sizes: list[int] = [metadata.row_group(group).column(column).total_uncompressed_size for group in groups]
    return max(1, sum(sizes))
