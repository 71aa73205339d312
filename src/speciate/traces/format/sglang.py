"""Read what SGLang's expert distribution recorder dumps, in each of its modes.

Written by python/sglang/srt/eplb/expert_distribution.py (sgl-project/sglang, 2025 to 2026):
`per_token`: records with forward_pass_id, rank, input_ids, positions, extend_seq_lens, forward_mode and
topk_ids_of_layer [layers, tokens, 8], filled with -1; `per_pass`: records with global_physical_count [layers, physical
experts]; both with last_physical_to_logical_map. `stat`: logical_count [steps, layers, logical experts], summed over
all ranks. The experts of records are physical; the map is that of the recording's end.

Requests are not named. What was generated, and the next chunk of a long prompt, is joined to what came before by its
position, in the order of the batch, which SGLang keeps. Steps that verify drafts, and those of a draft model, are left
out: they hold tokens that were rejected.
The files are read by torch, which builds tensors and plain values and refuses any other object.
"""

import errno
import pathlib
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, Integers
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.counting import choices_of_counts, note_counts_only, undo_multiples
from speciate.traces.decisions import Decisions
from speciate.traces.ranks import RankDigests, repeats_in_words
from speciate.traces.served import ServedSequences

SUMMARY = "SGLang's expert distribution recorder, by token, by pass or in sum"
FILES = "`expert_distribution_recorder_*.pt`"
CONTENTS = Contents(documents=True, tokens=True, order=True, phases=True)
LOOKS_FOR = "a torch file with `topk_ids_of_layer`, `global_physical_count` or `logical_count`"

MARKS = (b"topk_ids_of_layer", b"global_physical_count", b"logical_count")
EXTEND, DECODE, MIXED, IDLE, TARGET_VERIFY = 1, 2, 3, 4, 5
"""Values of SGLang's ForwardMode; the first five have not changed."""
PIECES = 1 << 26
"""Bytes of a file's description that are searched for its names."""


def matches(path: pathlib.Path) -> bool:
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                with archive.open(name) as file:
                    return _has_mark(file.read(PIECES))
    return False


def _has_mark(data: bytes) -> bool:
    return any(mark in data for mark in MARKS)


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions = Decisions(builder, options)
    digests, repeats, kinds = RankDigests(), dict[str, str](), set[str]()
    for path in paths:
        dump = _load(path)
        if "logical_count" in dump:
            kinds.add("stat")
            _add_sums(path, dump, builder, options)
            continue
        records = dump.get("records")
        if not isinstance(records, list) or not records:
            raise ValueError(f"{path}: has no records; was the recorder dumped before it was started?")
        for record in records:
            digests.add(str(path), record.get("forward_pass_id"), *_content(record))
        repeats = dict(digests.repeats())
        if str(path) in repeats:
            continue
        logical = _logical_map(path, dump, builder)
        if "topk_ids_of_layer" in records[0]:
            kinds.add("per_token")
            _Rank(path, decisions, logical).read(records)
        else:
            kinds.add("per_pass")
            _add_passes(path, records, builder, options, logical_LE=logical)
    if len(kinds) > 1:
        raise ValueError(f"the files are of different modes of the recorder: {', '.join(sorted(kinds))}")
    if repeats:
        builder.add_note("duplicated_ranks", repeats_in_words(repeats))
    if kinds == {"per_token"}:
        decisions.finish()


def _load(path: pathlib.Path) -> dict[str, Any]:
    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: holds other objects than tensors and plain values, which are never loaded since they can run code"
        ) from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, ValueError, OSError) as error:
        # torch seeks before the start of a file that is cut off, which the system calls an invalid argument
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise ValueError(f"{path}: is damaged or cut off: {str(error).splitlines()[0]}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds {type(found).__name__}, not what SGLang's recorder dumps")
    return found


def _content(record: dict[str, Any]) -> tuple[bytes, int]:
    """Return what is compared between ranks, and the number of its tokens."""
    if "topk_ids_of_layer" in record:
        ids = record["topk_ids_of_layer"].numpy()
        return repr(record.get("input_ids")).encode() + ids.tobytes(), ids.shape[1]
    count = record.get("global_physical_count")
    if count is None:
        raise ValueError(f"a record has neither topk_ids_of_layer nor global_physical_count: {sorted(record)}")
    return count.numpy().tobytes(), int(count.sum())


def _logical_map(path: pathlib.Path, dump: dict[str, Any], builder: RecordBuilder) -> npt.NDArray[np.int64]:
    """Return the logical expert of each physical one, [layers, physical experts]."""
    found = dump.get("last_physical_to_logical_map")
    if found is None:
        raise ValueError(
            f"{path}: has no last_physical_to_logical_map, without which its physical experts cannot be told"
        )
    logical: npt.NDArray[np.int64] = found.numpy().astype(np.int64)
    if logical.ndim != 2:
        raise ValueError(f"{path}: last_physical_to_logical_map is {list(logical.shape)}, not [layers, experts]")
    if (logical != np.arange(logical.shape[1])).any():
        builder.add_note(
            "physical_ids",
            "Experts were recorded as the server's physical ones and brought to the model's by the map of the"
            " recording's end; if the server moved experts meanwhile, earlier choices are wrong.",
        )
    return logical


@dataclass(eq=False)
class _Rank:
    """Reads the records of one rank, in the order of its passes."""

    path: pathlib.Path
    decisions: Decisions
    logical_LE: npt.NDArray[np.int64]
    sequences: ServedSequences = field(default_factory=ServedSequences)
    left_out: int = 0
    in_the_middle: int = 0
    unknown: int = 0

    def read(self, records: Sequence[dict[str, Any]]) -> None:
        k = max((_most_chosen(record["topk_ids_of_layer"].numpy()) for record in records), default=0)
        if not k:
            raise ValueError(f"{self.path}: no record has a choice")
        for number, record in enumerate(records):
            where = f"{self.path}, record {number}"
            mode = record.get("forward_mode")
            ids_LNK = record["topk_ids_of_layer"].numpy()[:, :, :k].astype(np.int64)
            if mode == IDLE or not ids_LNK.shape[1]:
                continue
            if mode not in (EXTEND, DECODE, MIXED):
                self.left_out += ids_LNK.shape[1]
                continue
            self._add(where, record, ids_LNK)
        self._note()

    def _add(self, where: str, record: dict[str, Any], ids_LNK: npt.NDArray[np.int64]) -> None:
        token_N = np.array(record["input_ids"], dtype=np.int64)
        position_N = np.array(record["positions"], dtype=np.int64)
        num = ids_LNK.shape[1]
        if len(token_N) != num or len(position_N) != num:
            raise ValueError(
                f"{where}: {len(token_N)} input_ids and {len(position_N)} positions for {num} tokens with experts"
            )
        row_N = np.empty(num, dtype=np.int64)
        self.sequences.begin_step()
        for place, (start, stop) in enumerate(_pieces(record, position_N, where)):
            first = int(position_N[start])
            is_generated = record["forward_mode"] == DECODE or (record["forward_mode"] == MIXED and stop - start == 1)
            # a long prompt comes in chunks
            sequence = self.sequences.find(first) if is_generated or first > 0 else None
            if sequence is None:
                self.unknown += is_generated
                self.in_the_middle += not is_generated and first > 0
                name = f"{self.path.stem} pass {record.get('forward_pass_id')} sequence {place}"
                sequence = self.sequences.begin(name)
            sequence.next_position = int(position_N[stop - 1]) + 1
            row_N[start:stop] = self.decisions.row(sequence.document, phase="generation" if is_generated else "prompt")
        choice_LNK = self._logical(ids_LNK, where)
        for layer, choice_NK in enumerate(choice_LNK):
            if (choice_NK >= 0).any():
                self.decisions.add(
                    where,
                    (f"layer {layer}", layer),
                    row_N,
                    choice_NK,
                    num_experts=int(self.logical_LE.max()) + 1,
                    position_N=position_N,
                    token_N=token_N,
                )

    def _logical(self, ids_LNK: npt.NDArray[np.int64], where: str) -> npt.NDArray[np.int64]:
        layers, physical = self.logical_LE.shape
        if len(ids_LNK) != layers:
            raise ValueError(f"{where}: experts of {len(ids_LNK)} layers, but the map has {layers}")
        if int(ids_LNK.max()) >= physical or int(ids_LNK.min()) < NOT_CHOSEN:
            wrong = int(ids_LNK.max()) if int(ids_LNK.max()) >= physical else int(ids_LNK.min())
            raise ValueError(
                f"{where}: expert {wrong} is out of range: the server has {physical} physical experts. Shared experts"
                " that it fuses with the others are recorded as one more; disable their fusion"
            )
        mapped = self.logical_LE[np.arange(layers)[:, None, None], np.maximum(ids_LNK, 0)]
        return np.where(ids_LNK >= 0, mapped, NOT_CHOSEN)

    def _note(self) -> None:
        builder = self.decisions.builder
        if self.left_out:
            builder.add_note(
                "rejected_drafts",
                f"{self.path}: {self.left_out} tokens of speculative decoding were left out: the record does not say"
                " which drafts were rejected.",
            )
        if self.in_the_middle:
            builder.add_note(
                "cached_prefixes",
                f"{self.path}: {self.in_the_middle} prompts begin in the middle, after a prefix that was cached; the"
                " prefix has no experts here.",
            )
        if self.unknown:
            builder.add_note(
                "unknown_prompts",
                f"{self.path}: {self.unknown} generated sequences have no prompt in the record.",
            )


def _most_chosen(ids_LNK: npt.NDArray[Any]) -> int:
    return int((ids_LNK >= 0).sum(axis=2).max(initial=0))


def _pieces(record: dict[str, Any], position_N: Integers, where: str) -> list[tuple[int, int]]:
    """Return where each sequence begins and ends among the tokens of a pass."""
    num = len(position_N)
    if record["forward_mode"] == DECODE:
        return [(place, place + 1) for place in range(num)]
    lengths = record.get("extend_seq_lens")
    if lengths is None:
        starts = np.flatnonzero(np.r_[True, np.diff(position_N) != 1])
        return list(zip(starts.tolist(), [*starts[1:].tolist(), num], strict=True))
    ends = np.cumsum(np.array(lengths, dtype=np.int64))
    if not len(ends) or ends[-1] != num:
        raise ValueError(f"{where}: extend_seq_lens add up to {int(ends[-1]) if len(ends) else 0}, not {num} tokens")
    return [(int(end - length), int(end)) for end, length in zip(ends, lengths, strict=True) if length]


def _add_passes(
    path: pathlib.Path,
    records: Sequence[dict[str, Any]],
    builder: RecordBuilder,
    options: ReadOptions,
    *,
    logical_LE: npt.NDArray[np.int64],
) -> None:
    note_counts_only(builder)
    builder.has_documents = False
    k = choices_of_counts(None, builder, options, str(path))
    num_experts = int(logical_LE.max()) + 1
    for number, record in enumerate(records):
        count_LE = record["global_physical_count"].numpy().astype(np.int64)
        if count_LE.shape != logical_LE.shape:
            raise ValueError(
                f"{path}, record {number}: counts are {list(count_LE.shape)}, but the map is {list(logical_LE.shape)}"
            )
        row = builder.row(f"{path.stem} pass {record.get('forward_pass_id', number)}", phase=options.phase)
        for layer, count_E in enumerate(count_LE):
            if count_E.any():
                count_S = np.bincount(logical_LE[layer], count_E, num_experts).astype(np.int64)
                builder.add_counts(SelectorShape(f"layer {layer}", layer, num_experts, k, False), row, count_S)


def _add_sums(path: pathlib.Path, dump: dict[str, Any], builder: RecordBuilder, options: ReadOptions) -> None:
    note_counts_only(builder)
    builder.has_documents = False
    k = choices_of_counts(None, builder, options, str(path))
    count = dump["logical_count"].numpy().astype(np.int64)
    if count.ndim == 2:
        count = count[None]
    if count.ndim != 3:
        raise ValueError(f"{path}: logical_count is {list(count.shape)}, not [steps, layers, experts]")
    count = undo_multiples(count.reshape(-1), builder, options, str(path)).reshape(count.shape)
    for step, count_LE in enumerate(count):
        if not count_LE.any():
            continue
        row = builder.row(f"{path.stem} step {step}", phase=options.phase)
        for layer, count_S in enumerate(count_LE):
            if count_S.any():
                builder.add_counts(SelectorShape(f"layer {layer}", layer, len(count_S), k, False), row, count_S)
