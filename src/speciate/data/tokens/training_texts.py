"""Stream the text that a tokenizer is fitted to: all training text, or an evenly spread part of it."""

import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow.compute as pc

from speciate.data.documents import read_tables


def training_texts(files: Sequence[pathlib.Path], max_bytes: int | None = None) -> Iterator[str]:
    """Yield the texts of documents files in order; with `max_bytes`, about that many bytes of them.

    The bytes are shared evenly among the domains; what a small domain cannot use goes to the others. Within a domain
    the chosen documents are spread over all its text: a document is taken while the bytes taken so far are at most the
    domain's share of the bytes seen so far. How its text is divided among files does not matter.
    """
    shares = None if max_bytes is None else _share_of_each_domain(files, max_bytes)
    seen, taken = Counter[str](), Counter[str]()
    for file in files:
        for table in read_tables(file, ["domain", "text"]):
            for domain, text in zip(*(table[name].to_pylist() for name in ("domain", "text")), strict=True):
                if shares is None or shares[domain] >= 1:
                    yield text
                    continue
                size = len(text.encode())
                if taken[domain] <= shares[domain] * seen[domain]:
                    taken[domain] += size
                    yield text
                seen[domain] += size


def _share_of_each_domain(files: Sequence[pathlib.Path], max_bytes: int) -> dict[str, float]:
    """Return the share of each domain's bytes to take."""
    sizes = Counter[str]()
    for file in files:
        for table in read_tables(file, ["domain", "text"]):
            if len(table):
                sizes[table["domain"][0].as_py()] += int(pc.sum(pc.binary_length(table["text"])).as_py())
    level, remaining = 0.0, float(max_bytes)
    for index, size in enumerate(sorted(sizes.values())):
        level = remaining / (len(sizes) - index)  # bytes per domain if this and all larger domains share the rest
        if size >= level:
            break
        remaining -= size
    else:
        level = float("inf")
    return {domain: min(1.0, level / max(1, size)) for domain, size in sizes.items()}
