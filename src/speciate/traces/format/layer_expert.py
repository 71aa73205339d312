"""Read a csv with one row `layer,expert` for each choice, as llama.cpp's example moe-trace writes it.

The example (ggml-org/llama.cpp pull request 28544, 2026) logs the tensors ffn_moe_topk of the prompt's evaluation and
of a short continuation: for each layer of each micro-batch, the k choices of its tokens one after the other. Neither k
nor the tokens nor the phase are in the file: k is what the lengths of a layer's runs of rows have in common, since a
step of generation has one token. Which of the k is the first is not certain, since the library's top-k need not sort.
"""

import pathlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import Integers
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.decisions import Decisions
from speciate.traces.lines import csv_header

SUMMARY = "A csv of `layer,expert`, one row a choice, as llama.cpp's moe-trace example writes it"
FILES = "`moe_trace.csv`"
CONTENTS = Contents()
LOOKS_FOR = "a csv of two columns, `layer,expert`, with or without a header"
COLUMNS = ["layer", "expert"]
MOST_CHOSEN = 64
"""A larger k means that no step of generation is in the file, so that runs of rows tell nothing."""


def matches(path: pathlib.Path) -> bool:
    header = csv_header(path)
    return header is not None and (header == COLUMNS or (len(header) == 2 and all(map(str.isdecimal, header))))


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions = Decisions(builder, options)
    builder.has_documents = False
    if not options.phase:
        builder.add_note(
            "mixed_phases",
            "The trace holds a prompt and what was generated after it, and does not tell them apart; give --phase if"
            " all tokens have one.",
        )
    for path in paths:
        _read_file(path, decisions, options)
    decisions.finish()


def _read_file(path: pathlib.Path, decisions: Decisions, options: ReadOptions) -> None:
    rows_M2 = _rows(path, decisions.builder)
    layer_M, expert_M = rows_M2[:, 0], rows_M2[:, 1]
    start_T = np.flatnonzero(np.r_[True, layer_M[1:] != layer_M[:-1]])
    length_T = np.diff(np.r_[start_T, len(layer_M)])
    k = options.num_chosen or _guess_num_chosen(length_T, expert_M, path, decisions.builder)
    wrong_T = length_T % k != 0
    if wrong_T[:-1].any() or (wrong_T.any() and length_T[-1] % k and len(length_T) == 1):
        at = int(np.argmax(wrong_T))
        raise ValueError(
            f"{path}, row {start_T[at] + 1}: {length_T[at]} choices of layer {layer_M[start_T[at]]} follow one another,"
            f" which are not tokens with {k} each; --chosen is wrong"
        )
    if wrong_T.any():
        decisions.builder.add_note("truncated", f"{path} ends within a token, which was left out.")
        length_T[-1] -= length_T[-1] % k
    for layer in np.unique(layer_M):
        of_T = layer_M[start_T] == layer
        at_M = _within(start_T[of_T], length_T[of_T])
        choice_NK = expert_M[at_M].reshape(-1, k)
        windows = np.arange(len(choice_NK)) // options.document_length
        names = [f"{path.stem} window {window}" for window in range(int(windows[-1]) + 1 if len(windows) else 0)]
        row_W = np.array([decisions.row(name) for name in names], dtype=np.int64)
        decisions.add(
            f"{path}, layer {layer}",
            (f"layer {layer}", int(layer)),
            row_W[windows],
            choice_NK,
            ordered=False,
            position_N=np.arange(len(choice_NK)) % options.document_length,
        )


def _rows(path: pathlib.Path, builder: RecordBuilder) -> npt.NDArray[np.int64]:
    header = csv_header(path)
    if header is None:
        raise ValueError(f"{path}: is no csv of layer,expert" if path.stat().st_size else f"{path}: is empty")
    skipped = 1 if header == COLUMNS else 0
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            builder.add_note("truncated", f"The last line of {path} has no end: it may be cut off, and its number too.")
    try:
        table = pd.read_csv(path, names=COLUMNS, skiprows=skipped, dtype=np.int64, index_col=False)
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.EmptyDataError):
        return _rows_one_by_one(path, skipped, builder)
    if not len(table):
        raise ValueError(f"{path}: has no rows")
    rows: npt.NDArray[np.int64] = table.to_numpy()
    return rows


def _rows_one_by_one(path: pathlib.Path, skipped: int, builder: RecordBuilder) -> npt.NDArray[np.int64]:
    """Find the line that is wrong; the last one may be cut off."""
    rows: list[tuple[int, int]] = []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    for number, line in enumerate(lines[skipped:], start=skipped + 1):
        match = re.fullmatch(r"\s*(-?\d{1,18})\s*,\s*(-?\d{1,18})\s*", line)
        if match is None:
            if number == len(lines) and not text.endswith("\n") and rows:
                builder.add_note("truncated", f"{path}, line {number} is cut off and was left out.")
                break
            raise ValueError(f"{path}, line {number}: is {line[:40]!r}, not layer,expert")
        rows.append((int(match[1]), int(match[2])))
    if not rows:
        raise ValueError(f"{path}: has no rows")
    return np.array(rows, dtype=np.int64)


def _guess_num_chosen(length_T: Integers, expert_M: Integers, path: pathlib.Path, builder: RecordBuilder) -> int:
    whole_T = length_T[:-1] if len(length_T) > 1 else length_T  # the last run may be cut off
    k = int(np.gcd.reduce(whole_T))
    distinct = k <= MOST_CHOSEN and len(set(expert_M[:k].tolist())) == k
    if not distinct:
        raise ValueError(
            f"{path}: does not say how many experts a token chooses, and its rows do not tell; give --chosen"
        )
    builder.add_note(
        "num_chosen_guessed",
        f"The file does not say how many experts a token chooses; {k} was taken, which the rows of each layer have in"
        " common. Give --chosen to be certain.",
    )
    return k


def _within(start_T: Integers, length_T: Integers) -> Integers:
    """Return all places of some runs."""
    before_T = np.cumsum(length_T) - length_T
    places: Integers = np.arange(int(length_T.sum())) + np.repeat(start_T - before_T, length_T)
    return places
