"""Read the tokens per expert that Megatron-LM saves: one JSON line for each iteration and layer, a file for each rank.

Written to `tokens_per_expert/rank*.jsonl` by megatron/training/activation_logging.py (NVIDIA/Megatron-LM, 2026): iter,
block ("decoder", or "mtp" with mtp_idx), layer, and tpe, a list of counts for each micro-batch. With expert
parallelism a rank counts the tokens of its own experts alone: rank r has the experts from (r mod EP) * (E / EP) on.
"""

import json
import pathlib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import Integers
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.counting import choices_of_counts, note_counts_only, undo_multiples
from speciate.traces.lines import first_json_line, read_json_lines
from speciate.traces.ranks import RankDigests, repeats_in_words

SUMMARY = "Megatron-LM's saved tokens per expert, counts by iteration and micro-batch"
FILES = "`tokens_per_expert/rank*.jsonl`"
CONTENTS = Contents()
LOOKS_FOR = "json lines with `iter`, `layer` and `tpe`"

Counts = dict[tuple[str, int, int, int], Integers]
"""Path of the router, its layer, iteration, micro-batch -> counts of the rank's own experts."""


def matches(path: pathlib.Path) -> bool:
    line = first_json_line(path)
    return line is not None and {"iter", "layer", "tpe"} <= line.keys()


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    builder.has_documents = False
    note_counts_only(builder)
    by_rank: dict[int, Counts] = {}
    digests = RankDigests()
    for path in sorted(paths, key=_rank):
        if _rank(path) in by_rank:
            raise ValueError(f"{path}: there are two files of rank {_rank(path)}")
        by_rank[_rank(path)] = found = _read_file(path, builder)
        for about, count_S in found.items():
            digests.add(str(_rank(path)), about, count_S.tobytes(), int(count_S.sum()))
    repeats = digests.repeats()
    if repeats:
        builder.add_note("duplicated_ranks", repeats_in_words({f"rank {a}": f"rank {b}" for a, b in repeats.items()}))
    kept = {rank: found for rank, found in by_rank.items() if str(rank) not in repeats}
    where = ", ".join(map(str, paths[:2])) + (" ..." if len(paths) > 2 else "")
    num_experts, own = _num_experts(kept, builder, options, where)
    k = choices_of_counts(None, builder, options, where)
    every = np.concatenate([count_S for found in kept.values() for count_S in found.values()])
    undo_multiples(every, builder, options, where)
    _add(kept, builder, options, num_experts=num_experts, own=own, k=k)


def _add(
    by_rank: dict[int, Counts], builder: RecordBuilder, options: ReadOptions, *, num_experts: int, own: int, k: int
) -> None:
    parts = num_experts // own
    totals: dict[tuple[int, str, int, int, int], Integers] = defaultdict(lambda: np.zeros(num_experts, dtype=np.int64))
    for place, found in enumerate(by_rank.values()):
        start = place % parts * own
        for (path, layer, iteration, batch), count_S in found.items():
            totals[place // parts, path, layer, iteration, batch][start : start + own] += (
                count_S // options.data_parallel
            )
    for (group, path, layer, iteration, batch), count_S in totals.items():
        row = builder.row(f"iteration {iteration} micro-batch {batch} group {group}", phase=options.phase)
        builder.add_counts(SelectorShape(path, layer, num_experts, k, ordered=False), row, count_S)


def _num_experts(
    by_rank: dict[int, Counts], builder: RecordBuilder, options: ReadOptions, where: str
) -> tuple[int, int]:
    """Return E, and how many of them a rank has."""
    sizes = {len(count_S) for found in by_rank.values() for count_S in found.values()}
    if len(sizes) != 1:
        raise ValueError(f"{where}: ranks or layers have different numbers of experts: {sorted(sizes)}")
    (own,) = sizes
    said = options.num_experts
    if said is None:
        if len(by_rank) > 1:
            raise ValueError(
                f"{where}: each rank counts the tokens of its own {own} experts, and nothing says whether other ranks"
                " have others; give --experts"
            )
        builder.add_note(
            "num_experts_guessed",
            f"The file of one rank has {own} experts. With expert parallelism they are this rank's alone, and the"
            " others are missing: give --experts.",
        )
        return own, own
    if said % own or (len(by_rank) * own) % said:
        raise ValueError(
            f"{where}: {len(by_rank)} ranks with {own} experts each do not make up --experts {said}; files of"
            " ranks are missing, or --experts is wrong"
        )
    return said, own


def _read_file(path: pathlib.Path, builder: RecordBuilder) -> Counts:
    found: Counts = {}
    batches: dict[tuple[str, int], int] = defaultdict(int)
    for number, line in read_json_lines(path, when_cut=lambda text: builder.add_note("truncated", text)):
        where = f"{path}, line {number}"
        missing = [name for name in ("iter", "layer", "tpe") if not isinstance(line.get(name), int | list)]
        if missing:
            raise ValueError(f"{where}: has no {', '.join(missing)}, or not a number")
        router, layer = _selector(line)
        for counts in line["tpe"]:
            count_S = _whole_numbers(counts, where)
            batch = batches[router, line["iter"]]
            batches[router, line["iter"]] += 1
            found[router, layer, line["iter"], batch] = count_S
    if not found:
        raise ValueError(f"{path}: has no counts")
    return found


def _whole_numbers(counts: Any, where: str) -> Integers:
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        raise ValueError(f"{where}: tpe has {json.dumps(counts)[:60]}, not counts >= 0 of each expert")
    return np.array(counts, dtype=np.int64)


def _selector(line: dict[str, Any]) -> tuple[str, int]:
    if line.get("block") == "mtp":
        return f"mtp.layers.{line.get('mtp_idx', 0)}.mtp_model_layer.layers.{line['layer']}.mlp.router", -1
    return f"decoder.layers.{line['layer']}.mlp.router", line["layer"]


def _rank(path: pathlib.Path) -> int:
    match = re.search(r"rank(\d+)", path.stem)
    if match is None:
        raise ValueError(f"{path}: its name has no rank, as rank0.jsonl has")
    return int(match[1])
