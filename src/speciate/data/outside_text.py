"""Read a text outside training, as `prepare_text` wrote it."""

import itertools
import json
import pathlib

from speciate.data.documents import Document, read_documents


def read_outside_text(name: str, folder: pathlib.Path, max_documents: int | None = None) -> list[Document]:
    """Return the documents of a text of `evaluation.texts`, in its fixed pseudo-random order.

    Args:
        name: the text's name, for messages.
        folder: what `prepare_text` wrote.
        max_documents: number of documents to read; None: all.

    Raises:
        ValueError: the text's sources could not be read, or nothing is left of it; names the text and says why.
    """
    file = folder / "counts.json"
    try:
        counts = json.loads(file.read_text(encoding="utf-8"))
        unavailable, read, dropped = counts["unavailable"], counts["read"], counts["dropped"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: does not hold the counts of text {name}: {error!r}") from None
    if unavailable:
        raise ValueError(f"text {name} could not be read: {unavailable}")
    documents = list(itertools.islice(read_documents(folder / "documents.parquet"), max_documents))
    if not documents:
        reasons = ", ".join(f"{reason} {count}" for reason, count in dropped.items()) or "none"
        raise ValueError(f"text {name}: no documents are left (texts read: {read}; dropped: {reasons})")
    return documents
