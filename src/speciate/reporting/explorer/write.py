"""Write an explorer as one HTML file that needs no network, or as a part of another page.

The data are one binary block, compressed with gzip and written as base64 in the page: four bytes with the length of a
JSON head, the head, and the arrays that it names as [type, offset, length]. The browser decompresses the block.

Shape suffixes: P tokens, M tokens of one check, K chosen slots.
"""

import base64
import gzip
import json
import pathlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from speciate.config.contracts.slots import KINDS
from speciate.io import atomic_write
from speciate.reporting import page
from speciate.reporting.explorer.data import (
    EXPERT_COLUMNS,
    LIFT_COLUMNS,
    Check,
    ExplorerData,
    Layer,
    Model,
)

UNKNOWN = 255
"""Stands for -1 in an array of bytes."""
TYPES = {"uint8": "u1", "int16": "i2", "int32": "i4", "float32": "f4"}
"""Type of an array -> its name in the head of the block."""


def write_explorer(data: ExplorerData, path: pathlib.Path) -> None:
    """Write a page with the explorer alone."""
    text = page.render_page(pathlib.Path(__file__).with_name("write.html.jinja"), data=data, explorer=embed(data))
    with atomic_write(path) as temp_path:
        temp_path.write_text(text, encoding="utf-8")


def embed(data: ExplorerData) -> Markup:
    """Return the explorer as HTML for the body of a page whose style is that of the reports."""
    here = pathlib.Path(__file__)
    style, script = (here.with_name(f"write.{part}.jinja").read_text(encoding="utf-8") for part in ("style", "script"))
    block = base64.b64encode(pack(data)).decode("ascii")
    # the data are base64, which nothing can break out of; style and script are our own files
    return Markup(
        f"<style>{style}</style>\n"
        '<div class="explorer" id="explorer"><noscript>The explorer needs JavaScript.</noscript>'
        '<p class="ex-wait" role="status">Unpacking the texts …</p></div>\n'
        f'<script type="application/octet-stream" id="explorer-data">{block}</script>\n<script>{script}</script>'
    )


def pack(data: ExplorerData) -> bytes:
    """Return the compressed block of the data; the same data give the same bytes."""
    arrays = _Arrays()
    used = [int(token) for token in np.unique(data.token_P)]
    head: dict[str, Any] = {
        "title": data.title,
        "kinds": KINDS,
        "notes": data.notes,
        "left_out": data.left_out,
        "aligned": data.aligned,
        "labels": data.labels,
        "documents": [
            [document.name, document.label, document.num_tokens, document.generated_by] for document in data.documents
        ],
        # ids are renumbered, so that they and their texts are short lists
        "ids": used,
        "pieces": [data.pieces.get(token) for token in used],
        "token": arrays.add(np.searchsorted(used, data.token_P)),
        "order": None if data.order_P is None else arrays.add(data.order_P),
        "models": [_model(model, arrays) for model in data.models],
    }
    text = json.dumps(head, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    return gzip.compress(struct.pack("<I", len(text)) + text + arrays.content(), compresslevel=9, mtime=0)


class _Arrays:
    """Collects arrays behind one another, each at a multiple of four bytes; equal arrays are kept once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._length = 0
        self._known: dict[tuple[str, bytes], list[str | int]] = {}

    def add(self, value: npt.NDArray[Any]) -> list[str | int]:
        """Add an array in the smallest type that holds it, and return its place."""
        array = _smallest(value)
        content = np.ascontiguousarray(array).tobytes()
        kind = TYPES[array.dtype.name]
        if (kind, content) not in self._known:
            self._known[kind, content] = [kind, self._length, array.size]
            padded = content + b"\0" * (-len(content) % 4)
            self._parts.append(padded)
            self._length += len(padded)
        return self._known[kind, content]

    def content(self) -> bytes:
        return b"".join(self._parts)


def _smallest(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the array as little-endian uint8 (with UNKNOWN for -1), int16, int32 or float32."""
    if np.issubdtype(value.dtype, np.floating):
        return value.astype("<f4")
    highest = int(value.max()) if value.size else 0
    if highest < UNKNOWN:
        return np.where(value < 0, UNKNOWN, value).astype(np.uint8)
    return value.astype("<i2" if highest < 1 << 15 else "<i4")


def _model(model: Model, arrays: _Arrays) -> dict[str, Any]:
    return {"name": model.name, "about": model.about, "layers": [_layer(layer, arrays) for layer in model.layers]}


def _layer(layer: Layer, arrays: _Arrays) -> dict[str, Any]:
    described: dict[str, Any] = {
        "path": layer.path,
        "kind": layer.kind,
        "slots": layer.slots,
        "ordered": layer.ordered,
        "sentence": layer.sentence,
        "unsaid": layer.unsaid,
        "checks": [_check(check, arrays) for check in layer.checks],
    }
    if layer.weight_MK is not None:
        # a weight is shown in percent, so a hundredth is fine enough
        weight = np.round(100 * np.nan_to_num(layer.weight_MK, nan=-0.01)).clip(-1, 100).astype(np.int64)
        described["weight"] = arrays.add(weight)
    if layer.key_MJ is not None:
        described["keys"] = [layer.key_MJ.shape[1], arrays.add(layer.key_MJ)]
    for name, value in (("margin", layer.margin_M), ("score", layer.score_M)):
        if value is not None:
            described[name] = arrays.add(value.astype(np.float32))
    for name, table, columns in (("experts", layer.experts, EXPERT_COLUMNS), ("lifts", layer.lifts, LIFT_COLUMNS)):
        if table is not None:
            described[name] = _columns(table, columns)
    return described


def _check(check: Check, arrays: _Arrays) -> list[Any]:
    at = None if check.token_M is None else arrays.add(check.token_M)
    return [check.step, at, check.choice_MK.shape[1], arrays.add(check.choice_MK)]


def _columns(table: pd.DataFrame, columns: dict[str, str]) -> dict[str, list[Any]]:
    """Return the known columns of a table as lists; what is missing or infinite becomes null."""
    return {name: [_plain(value) for value in table[name].tolist()] for name in columns if name in table}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value
