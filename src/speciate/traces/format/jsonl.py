"""Read json lines with the chosen experts, and maybe their scores, as many hooks write them.

A line is a token in a layer, or a batch of tokens: `indices` is [k] or [tokens, k], and `scores` likewise; scores of
all E experts that sum to one are read as probabilities. `layer`, `document`, `position`, `token`, `label` and `phase`
may stand beside them, under these or other common names (`KEYS`).
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.record_builder import RecordBuilder
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.decisions import Decisions
from speciate.traces.lines import first_json_line, read_json_lines

SUMMARY = "JSON lines of `indices` and `scores`, as hooks of many programs write them"
FILES = "`*.jsonl`"
CONTENTS = Contents(documents=True, tokens=True, order=True, weights=True, phases=True, labels=True)
LOOKS_FOR = "json lines with `indices`, `topk_indices`, `topk_ids`, `topk_experts` or `experts`"

KEYS = {
    "indices": ("indices", "topk_indices", "topk_ids", "topk_experts", "expert_ids", "experts", "selected_experts"),
    "scores": ("scores", "topk_scores", "topk_weights", "weights", "probs"),
    "layer": ("layer", "layer_id", "layer_idx", "layer_index"),
    "document": ("document", "doc_id", "id", "request_id"),
    "position": ("position", "positions", "pos"),
    "token": ("token", "token_id", "token_ids", "tokens"),
    "phase": ("phase",),
    "label": ("label", "domain"),
}
"""What is read -> the keys that it may have."""


def matches(path: pathlib.Path) -> bool:
    line = first_json_line(path)
    if line is None or ("step" in line and "top_indices" in line):
        return False
    return any(isinstance(line.get(key), list) for key in KEYS["indices"])


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions = Decisions(builder, options)
    seen: dict[int, int] = {}
    for path in paths:
        for number, line in read_json_lines(path, when_cut=lambda text: builder.add_note("truncated", text)):
            _add(decisions, seen, f"{path}, line {number}", line)
    decisions.finish()


def _add(decisions: Decisions, seen: dict[int, int], where: str, line: dict[str, Any]) -> None:
    options = decisions.options
    choice_NK = _matrix(_value(line, "indices"), f"{where}: indices", whole=True)
    num = len(choice_NK)
    if not num:
        return
    layer = _value(line, "layer")
    if layer is None:
        decisions.builder.add_note(
            "layer_unknown",
            "Lines name no layer, so all were taken as one router; if there are several, they are mixed.",
        )
    elif not isinstance(layer, int):
        raise ValueError(f"{where}: layer is {layer!r}, not a whole number")
    number = 0 if layer is None else layer
    document, position_N = _value(line, "document"), _column(line, "position", num, where)
    if document is None:
        decisions.builder.has_documents = False
        at_N = seen.get(number, 0) + np.arange(num)
        seen[number] = seen.get(number, 0) + num
        windows, position_N = at_N // options.document_length, at_N % options.document_length
        names = [f"window {window}" for window in range(int(windows[0]), int(windows[-1]) + 1)]
    else:
        windows, names = np.zeros(num, dtype=np.int64), [str(document)]
    label = line.get(options.label_column) if options.label_column is not None else _value(line, "label")
    if options.label_column is not None and options.label_column not in line:
        raise ValueError(f"{where}: has no key {options.label_column!r} for the label")
    phase = str(_value(line, "phase") or "")
    row_W = np.array([decisions.row(name, label="" if label is None else str(label), phase=phase) for name in names])
    token_N = _column(line, "token", num, where)
    if token_N is None and document is not None and position_N is not None:
        token_N = decisions.tokens(str(document), position_N)
    scores = _scores(line, choice_NK, options, where)
    decisions.add(
        where,
        (f"layer {number}", number),
        row_W[windows - windows[0]],
        choice_NK.astype(np.int64),
        num_experts=scores["probs_NS"].shape[1] if "probs_NS" in scores else None,
        position_N=position_N,
        token_N=token_N,
        weight_NK=scores.get("weight_NK"),
        probs_NS=scores.get("probs_NS"),
    )


def _scores(
    line: dict[str, Any], choice_NK: npt.NDArray[Any], options: ReadOptions, where: str
) -> dict[str, npt.NDArray[Any]]:
    """Return the scores as weights of the chosen, or as probabilities of all experts."""
    value = _value(line, "scores")
    if value is None:
        return {}
    scores = _matrix(value, f"{where}: scores", whole=False)
    if scores.shape == choice_NK.shape and scores.shape[1] != options.num_experts:
        return {"weight_NK": scores}
    num_experts = options.num_experts or scores.shape[1]
    if len(scores) != len(choice_NK) or not choice_NK.max(initial=0) < num_experts == scores.shape[1]:
        raise ValueError(
            f"{where}: scores are {scores.shape[0]} x {scores.shape[1]}, but indices are {choice_NK.shape[0]} x"
            f" {choice_NK.shape[1]}"
        )
    if not np.allclose(scores.sum(axis=1), 1, atol=1e-2) or scores.min() < 0:
        return {"weight_NK": np.take_along_axis(scores, choice_NK, axis=1)}
    return {"probs_NS": scores / scores.sum(axis=1, keepdims=True)}


def _matrix(value: Any, where: str, *, whole: bool) -> npt.NDArray[Any]:
    """Return a list of numbers, or a list of such lists, as a matrix with a row for each token."""
    try:
        found = np.array(value, dtype=np.int64 if whole else np.float64)
        exact = not whole or bool((found == np.array(value)).all())
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{where} are no numbers, or tokens have different numbers of them") from None
    if found.ndim == 1:
        found = found[None, :]
    if found.ndim != 2 or not exact:
        raise ValueError(f"{where} are not [k] or [tokens, k]" + (" whole numbers" if whole else ""))
    return found


def _column(line: dict[str, Any], name: str, num: int, where: str) -> npt.NDArray[np.int64] | None:
    value = _value(line, name)
    if value is None or isinstance(value, str):
        return None
    found = np.atleast_1d(np.array(value))
    if not np.issubdtype(found.dtype, np.integer) or len(found) not in (1, num) or (len(found) == 1 < num):
        raise ValueError(f"{where}: {name} has {found.size} values for {num} tokens, or no whole numbers")
    return found.astype(np.int64)


def _value(line: dict[str, Any], name: str) -> Any:
    return next((line[key] for key in KEYS[name] if line.get(key) is not None), None)
