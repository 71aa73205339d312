"""Format values for the pages, and build tables of them: sensible digits, real minus signs, a dash for no value."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DASH = "–"


@dataclass(frozen=True)
class Column:
    """Heading of a column; numbers are aligned right."""

    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A small table under a figure; `note` says what each row is."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""


def make_table(
    title: str, words: Iterable[str], numbers: Iterable[str], rows: Sequence[Sequence[str]], *, note: str = ""
) -> Table:
    """Build a table whose first columns, `words`, hold text and whose others, `numbers`, hold numbers."""
    columns = [*(Column(label, numeric=False) for label in words), *(Column(label) for label in numbers)]
    assert all(len(row) == len(columns) for row in rows), title
    return Table(title, columns, rows, note)


def is_missing(value: object) -> bool:
    """Return whether a cell of a study's table is empty."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or value == ""


def format_number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """Format a number with `digits` digits after the point and a real minus sign; NaN becomes a dash."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def format_percent(value: float | None, digits: int = 1) -> str:
    """Format a share as a percentage."""
    return DASH if value is None or math.isnan(value) else f"{100 * value:.{digits}f}%"


def format_count(value: float | None) -> str:
    """Format a count with separated thousands."""
    return DASH if value is None or math.isnan(value) else f"{value:,.0f}".replace("-", "−")


def format_interval(low: float | None, high: float | None, digits: int = 3, sign: bool = False) -> str:
    """Format an interval as '[low, high]'; a missing one becomes a dash."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return DASH
    return f"[{format_number(low, digits, sign)}, {format_number(high, digits, sign)}]"


def format_percent_interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """Format an interval of shares as percentages."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return DASH
    return f"[{format_percent(low, digits)}, {format_percent(high, digits)}]"


def format_p_value(value: float | None) -> str:
    """Format a p-value with three digits, and never as zero."""
    if value is None or math.isnan(value):
        return DASH
    return "< 0.001" if value < 0.001 else format_number(value)


def format_duration(seconds: float | None) -> str:
    """Format seconds as '59.9 s', '1 min 2 s' or '1 h 2 min'."""
    if seconds is None or math.isnan(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_bytes(num_bytes: float | None) -> str:
    """Format bytes in MB, or in kB below one MB."""
    if num_bytes is None or math.isnan(num_bytes):
        return DASH
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"


def plain_name(name: str) -> str:
    """Return a config key as the report prints it: with spaces for underscores."""
    return name.replace("_", " ")


def join_names(names: Iterable[str]) -> str:
    """Join names as 'a, b and c'; 'none' where there are none."""
    words = [plain_name(name) for name in names]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def pluralise(count: int, thing: str) -> str:
    """Return a count with its noun: '1 run', '2 runs'."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
