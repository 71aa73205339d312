"""Read the token ids of a user's texts, for traces that say which document a token is of, and not which token it is."""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from speciate.selection.routing_record import Integers
from speciate.traces.lines import read_json_lines

NAMES = ("id", "document", "doc_id", "uuid")
TOKENS = ("token_ids", "tokens", "input_ids")


def read_token_ids(paths: Iterable[pathlib.Path]) -> dict[str, Integers]:
    """Return the token ids of each document, of json lines with an id and a list of token ids.

    Raises:
        ValueError: a line has no id or no token ids, or two lines have the same id; names the file and line.
    """
    found: dict[str, Integers] = {}
    for path in paths:
        for number, line in read_json_lines(path):
            where = f"{path}, line {number}"
            name = _first(line, NAMES, where, "document's name")
            tokens = _first(line, TOKENS, where, "token ids")
            if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
                raise ValueError(f"{where}: its token ids are not a list of whole numbers")
            if str(name) in found:
                raise ValueError(f"{where}: the document {name!r} is there twice")
            found[str(name)] = np.array(tokens, dtype=np.int64)
    return found


def _first(line: dict[str, Any], keys: tuple[str, ...], where: str, what: str) -> Any:
    found = next((line[key] for key in keys if line.get(key) is not None), None)
    if found is None:
        raise ValueError(f"{where}: has no {what}: none of the keys {', '.join(keys)}")
    return found
