"""Values as a report prints them, and tables of them: aligned numbers, sensible digits, a dash for what is not."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are aligned right."""

    label: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A small table under a figure; `note` says what a row is."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""


def make_table(
    title: str, words: Iterable[str], numbers: Iterable[str], rows: Sequence[Sequence[str]], note: str = ""
) -> Table:
    """A table whose first columns, `words`, are text and whose others, `numbers`, are figures."""
    columns = [*(Column(label, numeric=False) for label in words), *(Column(label) for label in numbers)]
    assert all(len(row) == len(columns) for row in rows), title
    return Table(title, columns, rows, note)


def is_missing(value: object) -> bool:
    """Whether a cell of a table of the study holds nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or value == ""


def format_number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number with so many digits after the point and a real minus sign; a dash for NaN."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not float(text):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def format_percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return DASH if value is None or math.isnan(value) else f"{100 * value:.{digits}f}%"


def format_count(value: float | None) -> str:
    """A count, its thousands apart."""
    return DASH if value is None or math.isnan(value) else f"{value:,.0f}".replace("-", "−")


def format_interval(low: float | None, high: float | None, digits: int = 3, sign: bool = False) -> str:
    """'[low, high]'; a dash where there is none."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return DASH
    return f"[{format_number(low, digits, sign)}, {format_number(high, digits, sign)}]"


def format_percent_interval(low: float | None, high: float | None, digits: int = 1) -> str:
    """An interval of shares."""
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return DASH
    return f"[{format_percent(low, digits)}, {format_percent(high, digits)}]"


def format_p_value(value: float | None) -> str:
    """A p-value: three digits, never a zero."""
    if value is None or math.isnan(value):
        return DASH
    return "< 0.001" if value < 0.001 else format_number(value)


def format_duration(seconds: float | None) -> str:
    """Seconds as a reader says them."""
    if seconds is None or math.isnan(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def format_bytes(num_bytes: float | None) -> str:
    """Bytes in MB, or kB where that is less than one."""
    if num_bytes is None or math.isnan(num_bytes):
        return DASH
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.1f} kB"


def plain_name(name: str) -> str:
    """A config key as the report prints it."""
    return name.replace("_", " ")


def join_names(names: Iterable[str]) -> str:
    """'a, b and c'."""
    words = [plain_name(name) for name in names]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "none"


def pluralise(count: int, thing: str) -> str:
    """'1 run', '2 runs'."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
