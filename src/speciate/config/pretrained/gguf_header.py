"""Read the header of a GGUF file (llama.cpp's format, version 2 or 3): its metadata and the names of its tensors.

A header is `GGUF`, the version, two counts, the metadata as (key, type, value), and the tensors as (name, shape, type,
offset); all numbers are little-endian. The weights behind it are not read. The same file, weights included, is read by
model/hf/gguf.py with the library `gguf`, which the planning environment lacks.
"""

import pathlib
import struct
from typing import Any, BinaryIO

STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The format's type of a number -> that of `struct`."""
CONFIG_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "max_position_embeddings": "context_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}
"""Llama's config key -> the file's key, without the architecture's prefix."""


def config_of_fields(fields: dict[str, Any], tensors: set[str]) -> dict[str, Any]:
    """Return Llama's config, as a config.json would have it.

    Args:
        fields: the file's metadata.
        tensors: the names of its tensors; without one called output.weight, the head is tied.

    Raises:
        ValueError: the file is of another architecture, or lacks a key.
    """
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"general.architecture: {architecture!r} is not supported; only llama is")
    missing = [key for key in CONFIG_KEYS.values() if f"llama.{key}" not in fields]
    if missing:
        raise ValueError(f"llama.{missing[0]}: is missing")
    values = {key: fields[f"llama.{gguf_key}"] for key, gguf_key in CONFIG_KEYS.items()}
    # numbers of 32 bits: 1e-05 is written as 9.999999747378752e-06
    config = {key: float(f"{value:.7g}") if isinstance(value, float) else value for key, value in values.items()}
    return {**config, "model_type": "llama", "tie_word_embeddings": "output.weight" not in tensors}


def read_gguf_config(file: pathlib.Path) -> dict[str, Any]:
    """Return the config that the header of a GGUF file describes.

    Raises:
        ValueError: it is no such file, or of another architecture; names the file.
    """
    try:
        with file.open("rb") as opened:
            fields, tensors = _read_header(opened)
    except (OSError, ValueError, KeyError, struct.error, MemoryError, OverflowError) as error:
        raise ValueError(f"{file}: is no GGUF file, or is truncated: {error}") from None
    try:
        return config_of_fields(fields, tensors)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def _read_header(opened: BinaryIO) -> tuple[dict[str, Any], set[str]]:
    if opened.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = _number(opened, "I")
    if version not in (2, 3):
        raise ValueError(f"version {version} is neither 2 nor 3")
    num_tensors, num_fields = _number(opened, "Q"), _number(opened, "Q")
    fields = {_text(opened): _value(opened, _number(opened, "I")) for _ in range(num_fields)}
    tensors = set()
    for _ in range(num_tensors):
        tensors.add(_text(opened))
        dimensions = _number(opened, "I")
        opened.seek(8 * dimensions + 4 + 8, 1)  # shape, type, offset
    return fields, tensors


def _value(opened: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return _text(opened)
    if kind == ARRAY:
        inner, length = _number(opened, "I"), _number(opened, "Q")
        return [_value(opened, inner) for _ in range(length)]
    return _number(opened, NUMBERS[kind])


def _number(opened: BinaryIO, code: str) -> Any:
    data = opened.read(struct.calcsize(f"<{code}"))
    return struct.unpack(f"<{code}", data)[0]


def _text(opened: BinaryIO) -> str:
    length = _number(opened, "Q")
    data = opened.read(length)
    if len(data) < length:
        raise ValueError("a text is cut off")
    return data.decode("utf-8")
