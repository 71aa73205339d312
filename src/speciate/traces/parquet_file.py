"""The columns of a trace in parquet, and the errors of such files in one line."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {
    "document": "name of the text that the token belongs to; absent if unknown",
    "position": "position of the token within its document, from 0; absent if tokens come in order",
    "token": "token id; absent or null if unknown",
    "layer": "number of the layer",
    "rank": "0 for the first choice, k - 1 for the last; absent if the order is unknown",
    "expert": "number of the expert that was chosen; null if the token chose fewer than k",
    "weight": "weight of the expert as the model applies it; absent if unknown",
    "label": "what the user calls the document's kind; absent if unknown",
    "phase": "`prompt` or `generation`; absent if there is no difference",
}
"""Column -> meaning. `layer` and `expert` must be there; one row is one choice."""
METADATA = b"speciate.trace"
"""Key of the file's metadata that holds `Layout` as JSON."""
VERSION = 1


@dataclass(frozen=True)
class Layout:
    """What the writer of a file says of it; every part is optional, and the reader finds out what is absent."""

    num_experts: int | None = None
    num_chosen: int | None = None
    paths: dict[str, str] = field(default_factory=dict)
    """Number of a layer -> path of its router, as the model names it."""
    rows: list[int] = field(default_factory=list)
    """Rows of each row group, if each has one layer, with the k choices of each token one after the other."""
    repeats: list[int] = field(default_factory=list)
    """Row groups whose tokens are those of the group before, so that only `expert` and `weight` differ."""
    version: int = VERSION

    def to_metadata(self) -> dict[bytes, bytes]:
        return {METADATA: json.dumps(self.__dict__).encode()}


def read_layout(file: pq.ParquetFile, path: pathlib.Path) -> Layout:
    """Return what the writer says of a file, and the empty layout if it says nothing."""
    found = (file.metadata.metadata or {}).get(METADATA)
    if found is None:
        return Layout()
    try:
        said: dict[str, Any] = json.loads(found)
        layout = Layout(**said)
    except (ValueError, TypeError):
        raise ValueError(f"{path}: its metadata {METADATA.decode()} is not what a trace has; remove it") from None
    if layout.version > VERSION:
        raise ValueError(f"{path}: was written by a newer version (format {layout.version}); update speciate")
    counted = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    if layout.rows == counted:
        return layout
    # somebody filtered or joined the file, and the library kept the metadata
    return Layout(num_experts=layout.num_experts, num_chosen=layout.num_chosen, paths=layout.paths)


def column_names(path: pathlib.Path) -> list[str] | None:
    """Return the names of a parquet file's columns, or None if it is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return None
    with explain_errors(path):
        return list(pq.read_schema(path).names)


@contextlib.contextmanager
def explain_errors(path: pathlib.Path) -> Iterator[None]:
    """Raise errors about a file's content as a ValueError that names it; errors of the file system stay as they are."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError, LookupError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ValueError(f"{path}: is damaged or cut off: {line.strip()}") from error
