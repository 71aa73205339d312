r"""From a record, a mapping of column names to values, to a passage: what jsonl, parquet and the hub have in common.

`text` names the column that holds the text, or is a template that names several: "{question}\n\n{answer}". What a
study got wrong (a column that is not there) is always an error. What one record got wrong (no JSON, half a surrogate
pair, a number for a text) is an error too, unless the study says `bad_records: drop`; then the record is a passage
without text whose `fault` is the reason of its drop, so that it is counted and never silently lost.
"""

import json
import string
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from speciate.data.passage import Passage


class RecordColumns(Protocol):
    """The options that every kind with records has."""

    @property
    def text(self) -> str:
        """A column, or a template of columns."""

    @property
    def id(self) -> str | None:
        """A column."""

    @property
    def group(self) -> str | None:
        """A column."""

    @property
    def bad_records(self) -> Literal["refuse", "drop"]:
        """What to do with them."""


class BadRecord(ValueError):
    """What is wrong with one record; `fault` is the reason that its drop is counted under."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class RecordParser:
    """Makes passages of the records of one source.

    Raises:
        ValueError: `text` is a template that cannot be read, or names no column.
    """

    def __init__(self, columns: RecordColumns, source: str) -> None:
        self._template_parts = _parse_template(columns.text, source) if "{" in columns.text or "}" in columns.text else None
        self._text_columns = [columns.text] if self._template_parts is None else [name for _, name in self._template_parts if name]
        self._id, self._group = columns.id, columns.group
        self._drop = columns.bad_records == "drop"
        self.columns = tuple(dict.fromkeys(filter(None, [*self._text_columns, columns.id, columns.group])))
        """Every column that is read."""

    def check_columns(self, columns: list[str], where: str) -> None:
        """Raises ValueError, naming `where` and what columns there are, unless `columns` has each that is read."""
        for name in self.columns:
            if name not in columns:
                raise ValueError(f"{where}: there is no column '{name}'; there are: {', '.join(columns) or 'none'}")

    def to_passage(self, record: Mapping[str, Any] | BadRecord, name: str, where: str) -> Passage:
        """The passage of one record.

        Args:
            record: its columns, or what made it unreadable.
            name: its id where no column gives one, such as 'file#row'.
            where: where it stands, for messages.

        Raises:
            ValueError: a column that is not there, or a bad record that is not to be dropped; names `where`.
        """
        try:
            if isinstance(record, BadRecord):
                raise record
            self.check_columns(list(record), where)
            text = self._record_text(record)
            found = name if self._id is None else _label_text(record[self._id], self._id, "id")
            group = found if self._group is None else _label_text(record[self._group], self._group, "group")
            return Passage(found, group, text)
        except BadRecord as error:
            if not self._drop:
                raise ValueError(f"{where}: {error}") from None
            return Passage(name, name, None, error.fault)

    def _record_text(self, record: Mapping[str, Any]) -> str | None:
        values = {name: record[name] for name in self._text_columns}
        if any(value is None for value in values.values()):
            return None
        for name, value in values.items():
            if not isinstance(value, str):
                raise BadRecord("no_text", f"column '{name}' holds {type(value).__name__}, not text")
            _check_encodable(value, name)
        if self._template_parts is None:
            return str(values[self._text_columns[0]])
        return "".join(literal + (values[name] if name else "") for literal, name in self._template_parts)


def parse_json_line(line: bytes | str) -> dict[str, Any] | BadRecord:
    """The record in one line of JSON, or what is wrong with it."""
    try:
        record = json.loads(line.decode() if isinstance(line, bytes) else line)
    except UnicodeDecodeError as error:
        return BadRecord("not_utf8", f"is not UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}")
    except json.JSONDecodeError as error:
        return BadRecord("not_json", f"is not JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets nested by thousands
        return BadRecord("not_json", f"is not JSON that can be read: {error}")
    if not isinstance(record, dict):
        return BadRecord("not_json", f"is not a JSON object but {type(record).__name__}")
    return record


def _parse_template(text: str, source: str) -> list[tuple[str, str | None]]:
    """The template as (literal, column after it) pairs."""
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"source {source}: text: {text!r} is not a template of columns: {error}") from None
    if any(name == "" or spec or conversion for _, name, spec, conversion in pieces) or not any(
        name for _, name, _, _ in pieces
    ):
        raise ValueError(f"source {source}: text: {text!r} is not a template of columns like '{{question}}: {{answer}}'")
    return [(literal, name) for literal, name, _, _ in pieces]


def _label_text(value: Any, column: str, role: str) -> str:
    """An id or a group: text as it is, a whole number in digits."""
    if isinstance(value, str):
        _check_encodable(value, column)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    held = "nothing" if value is None else type(value).__name__
    raise BadRecord(f"no_{role}", f"column '{column}' is its {role} but holds {held}, neither text nor a whole number")


def _check_encodable(text: str, column: str) -> None:
    """Refuses text that UTF-8 cannot write: JSON lets half a surrogate pair through."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"column '{column}' holds half a surrogate pair at character {error.start}, which UTF-8 cannot write"
        raise BadRecord("surrogate", problem) from None
