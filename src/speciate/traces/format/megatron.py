"""Read the router trace of Megatron-Core: one JSON line for each step, block and layer, and one file for each rank.

Written with `--moe-routing-trace-path` by megatron/core/transformer/moe/router_trace.py (NVIDIA/Megatron-LM, 2026):
step, stage, block ("decoder", or "mtp" with mtp_idx), layer, rank, num_tokens, topk, top_indices. In training the
indices come from a mask of tokens by experts, so those of a token ascend and the order of its k choices is lost. The
record names no sequences, does not tell prompt from generation, and numbers the layers of each pipeline stage from 0.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.record_builder import RecordBuilder
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.decisions import Decisions
from speciate.traces.lines import first_json_line, read_json_lines
from speciate.traces.ranks import RankDigests, repeats_in_words

SUMMARY = "Megatron-Core's router trace (`--moe-routing-trace-path`)"
FILES = "`router_trace_rank*.jsonl`"
CONTENTS = Contents(order=True)
LOOKS_FOR = "json lines with `step`, `layer` and `top_indices`"

NEEDED = ("step", "layer", "num_tokens", "topk", "top_indices")
COMPARED = 256
"""Records of each rank that are compared with those of the others, to find ranks that share their tokens."""


def matches(path: pathlib.Path) -> bool:
    line = first_json_line(path)
    return line is not None and {"step", "layer", "top_indices"} <= line.keys()


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions = Decisions(builder, options)
    builder.has_documents = False
    repeats = _repeated_files(paths)
    if repeats:
        builder.add_note("duplicated_ranks", repeats_in_words(repeats))
    if not options.phase:
        builder.add_note(
            "mixed_phases",
            "The trace does not tell prompt from generation, nor inference from training; give --phase if all tokens"
            " have one.",
        )
    layers_of: dict[pathlib.Path, frozenset[str]] = {}
    for path in paths:
        if str(path) not in repeats:
            layers_of[path] = frozenset(_read_file(path, decisions, options))
    if len(layers_of) > 1 and len(set(layers_of.values())) == 1:
        builder.add_note(
            "layers_of_ranks",
            f"{len(layers_of)} ranks recorded the same layers for different tokens. With pipeline parallelism each"
            " stage numbers its layers from 0, and different layers would be taken as one: then read one stage's files"
            " at a time.",
        )
    decisions.finish()


def _read_file(path: pathlib.Path, decisions: Decisions, options: ReadOptions) -> set[str]:
    """Add a rank's file; return the paths of its routers."""
    seen: set[str] = set()
    parts: dict[tuple[str, Any], int] = {}
    for number, line in read_json_lines(path, when_cut=lambda text: decisions.builder.add_note("truncated", text)):
        where = f"{path}, line {number}"
        missing = [name for name in NEEDED if name not in line]
        if missing:
            raise ValueError(f"{where}: has no {', '.join(missing)}")
        choice_NK = _indices(line, where)
        if not len(choice_NK):
            continue
        selector = _selector(line, where)
        seen.add(selector[0])
        # micro-batches of a step come one after the other
        part = parts.setdefault((selector[0], line["step"]), 0)
        parts[selector[0], line["step"]] += 1
        windows = np.arange(len(choice_NK)) // options.document_length
        name = f"{path.stem} step {line['step']} part {part}"
        row_W = np.array([decisions.row(f"{name} window {window}") for window in range(int(windows[-1]) + 1)])
        position_N = np.arange(len(choice_NK)) % options.document_length
        decisions.add(where, selector, row_W[windows], choice_NK, position_N=position_N)
    return seen


def _indices(line: dict[str, Any], where: str) -> npt.NDArray[np.int64]:
    num, k = line["num_tokens"], line["topk"]
    try:
        found = np.array(line["top_indices"], dtype=np.int64).reshape(len(line["top_indices"]), -1)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{where}: top_indices are not whole numbers, the same number of them for each token"
        ) from None
    if len(found) != num or (num and found.shape[1] != k):
        raise ValueError(
            f"{where}: top_indices are {found.shape[0]} x {found.shape[1]}, but num_tokens is {num} and topk is {k}"
        )
    return found


def _selector(line: dict[str, Any], where: str) -> tuple[str, int]:
    block, layer = line.get("block", "decoder"), line["layer"]
    if not isinstance(layer, int):
        raise ValueError(f"{where}: layer is {layer!r}, not a whole number")
    if block == "mtp":
        return f"mtp.layers.{line.get('mtp_idx', 0)}.mtp_model_layer.layers.{layer}.mlp.router", -1
    return f"{block}.layers.{layer}.mlp.router", layer


def _repeated_files(paths: Sequence[pathlib.Path]) -> dict[str, str]:
    """Return the files of ranks that recorded the same as another's, by their first records."""
    if len(paths) < 2:
        return {}
    digests = RankDigests()
    for path in paths:
        for number, line in read_json_lines(path, when_cut=lambda text: None):
            if number > COMPARED:
                break
            about = (line.get("step"), line.get("block"), line.get("mtp_idx"), line.get("layer"))
            indices = line.get("top_indices")
            digests.add(str(path), about, json.dumps(indices).encode(), len(indices or ()))
    return dict(digests.repeats())
