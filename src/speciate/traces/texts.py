"""Join the labels and tokens of a user's texts to the documents of a trace, by the documents' names."""

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speciate.selection.routing_record import Integers
from speciate.traces.lines import read_json_lines

NAMES = ("id", "document", "doc_id", "uuid")
TOKENS = ("token_ids", "tokens", "input_ids")
LABELS = ("label", "domain")


@dataclass(eq=False)
class Texts:
    """What is known of each document, by its name."""

    labels: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, Integers] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


def read_texts(paths: Iterable[pathlib.Path], label: str | None = None) -> Texts:
    """Read jsonl files whose lines have an id and a label, and maybe a text, a group and token ids.

    Args:
        paths: the files.
        label: name of the key that holds the label; by default `label` or `domain`.

    Raises:
        ValueError: a line has no id, or two lines have the same one; names the file and line.
    """
    found = Texts()
    for path in paths:
        for number, line in read_json_lines(path):
            where = f"{path}, line {number}"
            name = _first(line, NAMES)
            if name is None:
                raise ValueError(f"{where}: has no id; one of the keys {', '.join(NAMES)} must name the document")
            name = str(name)
            if name in found.labels:
                raise ValueError(f"{where}: the document {name!r} is there twice")
            if label is not None and label not in line:
                raise ValueError(f"{where}: has no key {label!r} for the label; it has {', '.join(sorted(line))}")
            value = line[label] if label is not None else _first(line, LABELS)
            found.labels[name] = "" if value is None else str(value)
            if "group" in line:
                found.groups[name] = str(line["group"])
            if isinstance(line.get("text"), str):
                found.texts[name] = line["text"]
            tokens = _first(line, TOKENS)
            if isinstance(tokens, list) and all(isinstance(token, int) for token in tokens):
                found.tokens[name] = np.array(tokens, dtype=np.int64)
    return found


def _first(line: dict[str, Any], keys: tuple[str, ...]) -> Any:
    return next((line[key] for key in keys if key in line), None)
