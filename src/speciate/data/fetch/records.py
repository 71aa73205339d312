r"""Turn a record (column -> value) into a passage; jsonl, parquet and the hub share this.

`text` names the column that holds the text, or is a template that names several: "{question}\n\n{answer}". A mistake of
the study, such as a column that no record of a file has, is always an error. A mistake of one record (invalid JSON, a
key that it has twice or lacks, half a surrogate pair, a number in place of a text) is an error too, unless the study
sets `bad_records: drop`. Then the record becomes a passage without text whose `fault` is the reason of its drop, so it
is counted and never silently lost.
"""

import json
import string
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol

from speciate.data.fetch.encodings import BYTE_ORDER_MARK, other_encoding_of
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError

MAX_COLUMNS_SHOWN = 40
"""Most columns that a message lists."""
MIN_ENCODED_CHARACTERS = 8
"""Length from which the text of a record can tell that it was decoded wrongly."""


class RecordColumns(Protocol):
    """The options that every source or reader of records has."""

    @property
    def text(self) -> str:
        """A column, or a template of columns."""

    @property
    def id(self) -> str | None:
        """The column that names a record."""

    @property
    def group(self) -> str | None:
        """The column that groups records."""

    @property
    def bad_records(self) -> Literal["refuse", "drop"]:
        """Whether to refuse or to drop records that cannot be read."""


class BadRecord(ValueError):
    """One record cannot be read; `fault` is the reason under which its drop is counted."""

    def __init__(self, fault: str, message: str) -> None:
        super().__init__(message)
        self.fault = fault


NO_COLUMN = "no_column"
"""The fault of a record that lacks a column."""


class RecordParser:
    """Turn the records of one source into passages.

    Raises:
        ValueError: `text` is a template that cannot be parsed or that names no column.
    """

    def __init__(self, columns: RecordColumns, source: str) -> None:
        is_template = "{" in columns.text or "}" in columns.text
        parts: list[tuple[str, str | None]] = [("", columns.text)]
        self._template_parts = _parse_template(columns.text, source) if is_template else parts
        self._text_columns = [name for _, name in self._template_parts if name]
        self._id, self._group = columns.id, columns.group
        self._drop = columns.bad_records == "drop"
        self.columns = tuple(dict.fromkeys(filter(None, [*self._text_columns, columns.id, columns.group])))
        """Every column that is read."""

    def check_columns(self, columns: list[str], where: str) -> None:
        """Raise ReadingError, with `where` and the columns present, unless each column that is read is there once."""
        for name in self.columns:
            if columns.count(name) > 1:
                raise ReadingError(f"{where}: there are {columns.count(name)} columns '{name}'; rename all but one")
            if name not in columns:
                raise ReadingError(f"{where}: {_missing_column(name, columns)}")

    def check_some_record(self, records: Iterable[Mapping[str, Any] | BadRecord], where: str) -> None:
        """Raise ReadingError unless one of a file's records has every column that is read.

        Dropping records that lack a column must not hide that the study names a column that there never is.
        """
        seen: dict[str, None] = {}
        for record in records:
            if isinstance(record, BadRecord):
                continue
            if all(name in record for name in self.columns):
                return
            seen |= dict.fromkeys(record)
        missing = next(name for name in self.columns if name not in seen) if set(self.columns) - set(seen) else None
        if missing is None:
            raise ReadingError(f"{where}: no record has all of the columns {', '.join(self.columns)}")
        raise ReadingError(f"{where}: {_missing_column(missing, list(seen))}")

    def to_passage(self, record: Mapping[str, Any] | BadRecord, name: str, where: str) -> Passage:
        """Return the passage of one record.

        Args:
            record: its columns, or what made it unreadable.
            name: its id where no column gives one, such as 'file#row'.
            where: the record's place, for messages.

        Raises:
            ReadingError: the record is bad and bad records are refused; the message names `where`.
        """
        try:
            if isinstance(record, BadRecord):
                raise record
            for column in self.columns:
                if column not in record:
                    raise BadRecord(NO_COLUMN, _missing_column(column, list(record)))
            text = self._record_text(record)
            passage_id = name if self._id is None else _label_text(record[self._id], self._id, "id")
            group = None if self._group is None else _label_text(record[self._group], self._group, "group")
            return Passage(passage_id, group, text, place=where.partition(": ")[2])
        except BadRecord as error:
            if not self._drop:
                raise ReadingError(f"{where}: {error}") from None
            return Passage(name, None, None, error.fault)

    def _record_text(self, record: Mapping[str, Any]) -> str | None:
        values = {name: record[name] for name in self._text_columns}
        if any(value is None for value in values.values()):
            return None
        for name, value in values.items():
            if not isinstance(value, str):
                raise BadRecord("no_text", f"column '{name}' holds {type(value).__name__}, not text")
            _check_encodable(value, name)
            _check_encoding(value, name)
        return "".join(literal + (values[name] if name else "") for literal, name in self._template_parts)


class _RepeatedKeys(dict[str, Any]):
    """A JSON object that has a key twice: `repeated`."""

    repeated: str


def _json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; Python's own would keep the last value of a key that comes twice, without a word."""
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    result, seen = _RepeatedKeys(record), set[str]()
    for key, _ in pairs:
        if key in seen:
            result.repeated = key
            break
        seen.add(key)
    return result


DECODER = json.JSONDecoder(object_pairs_hook=_json_object)


def parse_json_line(line: bytes) -> dict[str, Any] | BadRecord:
    """Return the record in one line of JSON, or what is wrong with it.

    A byte-order mark in front is left out: joining files puts one into the middle of a file.
    """
    try:
        record = DECODER.decode(line.removeprefix(BYTE_ORDER_MARK).decode())
    except UnicodeDecodeError as error:
        offset = len(line) - len(error.object) + error.start
        return BadRecord("not_utf8", f"is not UTF-8: byte {line[offset]:#04x} at offset {offset}")
    except json.JSONDecodeError as error:
        return BadRecord("not_json", f"is not JSON: {error.msg} at character {error.pos}")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of nested brackets
        return BadRecord("not_json", f"is not JSON that can be read: {error}")
    if isinstance(record, _RepeatedKeys):
        return BadRecord("repeated_key", f"has the key {record.repeated!r} more than once")
    if not isinstance(record, dict):
        return BadRecord("not_json", f"is not a JSON object but {type(record).__name__}")
    return record


def _missing_column(name: str, columns: list[str]) -> str:
    shown = [column if column.isprintable() else repr(column) for column in columns[:MAX_COLUMNS_SHOWN]]
    rest = [f"and {len(columns) - MAX_COLUMNS_SHOWN} more"] if len(columns) > MAX_COLUMNS_SHOWN else []
    return f"there is no column '{name}'; available: {', '.join(shown + rest) or 'none'}"


def _parse_template(text: str, source: str) -> list[tuple[str, str | None]]:
    """Return the template as pairs (literal text, the column that follows it)."""
    try:
        fields = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ValueError(f"source {source}: text: {text!r} is not a template of columns: {error}") from None
    if any(name == "" or spec or conversion for _, name, spec, conversion in fields) or not any(
        name for _, name, _, _ in fields
    ):
        raise ValueError(
            f"source {source}: text: {text!r} is not a template of columns like '{{question}}: {{answer}}'"
        )
    return [(literal, name) for literal, name, _, _ in fields]


def _label_text(value: Any, column: str, role: str) -> str:
    """Return an id or a group as text: text unchanged, an integer in digits."""
    if isinstance(value, str):
        _check_encodable(value, column)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    content = "nothing" if value is None else type(value).__name__
    raise BadRecord(
        f"no_{role}", f"column '{column}' is its {role} but holds {content}, neither text nor a whole number"
    )


def _check_encodable(text: str, column: str) -> None:
    """Refuse text that UTF-8 cannot encode: JSON allows half a surrogate pair."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"column '{column}' holds half a surrogate pair at character {error.start}, which UTF-8 cannot write"
        raise BadRecord("surrogate", problem) from None


def _check_encoding(text: str, column: str) -> None:
    """Refuse text that was decoded as UTF-8 and is UTF-16: every other character is a control character."""
    if len(text) < MIN_ENCODED_CHARACTERS:
        return
    problem = other_encoding_of(text)
    if problem:
        raise BadRecord("not_utf8", f"column '{column}' {problem}")
