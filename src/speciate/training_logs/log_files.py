"""Read the scalars of a training log: JSON lines, CSV, TensorBoard's event files, or transformers' trainer_state.json.

Whatever the format, a log becomes rows of (key, step, value) in the order in which they were written.
"""

import csv
import json
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from speciate.selection.routing_record import Note
from speciate.training_logs import event_files

STEPS = (
    *("step", "global_step", "_step", "Step", "iteration", "iter", "global_steps", "train/global_step"),
    *("trainer/global_step", "training/global_step", "train/step", "steps"),
)
"""Names of the step, the first that a line has."""
LONG_KEYS = ("tag", "key", "name", "metric")
"""Names of the column that holds a key, in a CSV with a row for each value."""
SUFFIXES = (".jsonl", ".csv", ".json", ".tsv")
BESIDES_WANDB = re.compile(r"__(?:MIN|MAX)$")
"""Columns of bounds that a CSV from wandb has beside each column of values."""


@dataclass
class Scalars:
    """The scalars of a log, and what was found while reading them."""

    rows: list[tuple[str, int, float, str]] = field(default_factory=list)
    """(key, step, value, file), in the order in which they were written."""
    notes: list[Note] = field(default_factory=list)
    files: list[pathlib.Path] = field(default_factory=list)

    def add_note(self, kind: str, text: str) -> None:
        """Note something, once."""
        if Note(kind, text) not in self.notes:
            self.notes.append(Note(kind, text))


def read_scalars(paths: Sequence[str | pathlib.Path]) -> Scalars:
    """Read log files, or all log files in folders.

    Raises:
        ValueError: a file is none of the formats, or damaged; or a folder holds no log.
        OSError: a file cannot be read.
    """
    scalars = Scalars()
    for file in _log_files(paths):
        scalars.files.append(file)
        before = len(scalars.rows)
        if event_files.MARK in file.name:
            _read_events(file, scalars)
        elif file.suffix in (".csv", ".tsv"):
            _read_csv(file, scalars)
        elif file.suffix == ".json":
            _add_lines(file, _json_lines(file), scalars)
        else:
            _add_lines(file, _lines(file, scalars), scalars)
        _note_steps(file, scalars.rows[before:], scalars)
    return scalars


def _log_files(paths: Sequence[str | pathlib.Path]) -> Iterator[pathlib.Path]:
    for path in map(pathlib.Path, paths):
        if not path.is_dir():
            yield path
            continue
        inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
        found = [file for file in inside if event_files.MARK in file.name or file.suffix in (".jsonl", ".csv", ".tsv")]
        found = found or [file for file in inside if file.name == "trainer_state.json"]
        if not found:
            raise ValueError(
                f"{path}: holds no log: no file *{event_files.MARK}*, *.jsonl, *.csv or trainer_state.json"
            )
        yield from found


def _read_events(file: pathlib.Path, scalars: Scalars) -> None:
    try:
        for key, step, value in event_files.scalars(file):
            scalars.rows.append((key, step, value, str(file)))
    except event_files.CutOff:
        scalars.add_note("truncated", f"{file}: its last record is cut off; what is before it was read.")


def _lines(file: pathlib.Path, scalars: Scalars) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line number, object) of JSON lines.

    Raises:
        ValueError: most lines are no JSON objects.
    """
    good, bad = 0, []
    with file.open(encoding="utf-8", errors="replace") as stream:
        number = 0
        for number, text in enumerate(stream, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except json.JSONDecodeError:
                line = None
            if isinstance(line, dict):
                good += 1
                yield number, line
            else:
                bad.append(number)
    if bad and good <= len(bad):
        raise ValueError(f"{file}: is no log: line {bad[0]} is no JSON object, and so are {len(bad)} of its lines")
    if bad == [number]:
        scalars.add_note("truncated", f"{file}: its last line, {number}, is cut off, and was left out.")
    elif bad:
        scalars.add_note(
            "no_json", f"{file}: {len(bad)} lines are no JSON objects, and were left out; first: {bad[0]}."
        )


def _json_lines(file: pathlib.Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (place, object) of trainer_state.json's `log_history`, or of a list of objects."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: is not JSON: {error}") from None
    lines = content.get("log_history") if isinstance(content, dict) else content
    if not isinstance(lines, list) or not all(isinstance(line, dict) for line in lines):
        raise ValueError(f"{file}: is no log: it has neither `log_history` nor a list of objects")
    yield from enumerate(lines, 1)


def flatten(line: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a line: `{"data": {"moe": 1.5}}` gives `data/moe`; null is NaN."""
    values: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            values |= flatten(value, f"{prefix}{key}/")
        elif value is None:
            values[f"{prefix}{key}"] = math.nan
        elif isinstance(value, int | float) and not isinstance(value, bool):
            values[f"{prefix}{key}"] = float(value)
    return values


def _add_lines(file: pathlib.Path, lines: Iterable[tuple[int, Mapping[str, Any]]], scalars: Scalars) -> None:
    """Add the numbers of lines under their steps.

    Raises:
        ValueError: a step is no whole number.
    """
    without = []
    for number, line in lines:
        values = flatten(line)
        name = next((name for name in STEPS if math.isfinite(values.get(name, math.nan))), None)
        if name is None:
            without += [number] if len(values) else []
            continue
        step = _whole(values[name], f"{file}: line {number}: {name}")
        scalars.rows += [(key, step, value, str(file)) for key, value in values.items() if key not in STEPS]
    if without:
        text = f"{file}: {len(without)} lines have no step, and were left out; first: {without[0]}. Looked for: "
        scalars.add_note("no_step", text + ", ".join(STEPS) + ".")


def _read_csv(file: pathlib.Path, scalars: Scalars) -> None:
    """Add the numbers of a CSV: a column for each key, or a row for each value.

    Raises:
        ValueError: it has no column of steps, or no names of keys.
    """
    with file.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.reader(stream, delimiter="\t" if file.suffix == ".tsv" else ",")
        header = next(rows, [])
        step = next((name for name in STEPS if name in header), None)
        if step is None:
            raise ValueError(f"{file}: its first line names no column of steps; looked for: {', '.join(STEPS)}")
        at_step = header.index(step)
        long_key = next((name for name in LONG_KEYS if name in header and "value" in map(str.lower, header)), None)
        if long_key is None and {name.lower() for name in header} == {"wall time", "step", "value"}:
            raise ValueError(
                f"{file}: a CSV from TensorBoard does not name what it holds; give the event file, or a CSV with a"
                " column for each name"
            )
        short, last = [], 1
        for number, row in enumerate(rows, 2):
            last = number
            if len(row) != len(header):
                short += [number] if row else []
                continue
            at = _whole(_float(row[at_step]), f"{file}: line {number}: {step}")
            if long_key is not None:
                value = row[[name.lower() for name in header].index("value")]
                scalars.rows.append((row[header.index(long_key)], at, _float(value), str(file)))
                continue
            for key, value in zip(header, row, strict=True):
                if value != "" and key not in STEPS and not BESIDES_WANDB.search(key):
                    scalars.rows.append((key.rpartition(" - ")[2], at, _float(value), str(file)))
        if short == [last]:
            scalars.add_note("truncated", f"{file}: its last line, {last}, is cut off, and was left out.")
        elif short:
            text = f"{len(short)} lines have not the columns of the first, and were left out; first: {short[0]}."
            scalars.add_note("no_columns", f"{file}: {text}")


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(value: float, where: str) -> int:
    if not math.isfinite(value) or value != int(value):
        raise ValueError(f"{where}: a step is a whole number, not {value:g}")
    return int(value)


def _note_steps(file: pathlib.Path, rows: Sequence[tuple[str, int, float, str]], scalars: Scalars) -> None:
    """Note where the steps of one key go back: the training was resumed, or two runs share the file."""
    last: dict[str, int] = {}
    for key, step, _, _ in rows:
        if step < last.get(key, step):
            scalars.add_note(
                "resumed",
                f"{file}: steps go back from {last[key]} to {step}: the run was resumed, or the file holds several"
                " runs. Where a step was logged twice, the last value counts.",
            )
            return
        last[key] = step
