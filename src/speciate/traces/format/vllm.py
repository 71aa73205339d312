"""Read the experts that vLLM returns with a request (`--enable-return-routed-experts`), kept as npz or json lines.

vLLM (vllm-project/vllm, 2025-11 to 2026-08) gives `routed_experts`, an array of integers [tokens, layers, k], on each
completion, and `prompt_routed_experts` on the request; older versions give one array for prompt and generation. Over
HTTP an array is the base64 of a .npy file; programs that serve it further send base64 with `shape` and `dtype`. The
last token that was generated is never fed back, so it has no row. Layers without a router, and tokens whose prefix was
cached, may be filled with zeros. A file has one request a line, or is an npz with these names; the ids of the tokens
stand in `prompt_token_ids` and `token_ids`.
"""

import base64
import binascii
import io
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from speciate.selection.record_builder import RecordBuilder
from speciate.selection.routing_record import Integers
from speciate.traces.contract import Contents, ReadOptions
from speciate.traces.decisions import Decisions
from speciate.traces.lines import first_json_line, read_json_lines

SUMMARY = "Routed experts that vLLM returns with its requests, prompt and generation apart"
FILES = "`*.npz`, `*.jsonl`"
CONTENTS = Contents(documents=True, tokens=True, order=True, phases=True, labels=True)
LOOKS_FOR = "an npz, or json lines, with `routed_experts` or `prompt_routed_experts`"

PROMPT, GENERATED = "prompt_routed_experts", "routed_experts"
NAMES = ("id", "request_id", "sample_id", "document")
GENERATED_IDS = ("token_ids", "output_token_ids", "completion_token_ids")
Array = npt.NDArray[np.integer]


def matches(path: pathlib.Path) -> bool:
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return bool({f"{PROMPT}.npy", f"{GENERATED}.npy"} & set(archive.namelist()))
    line = first_json_line(path)
    if line is None:
        return False
    choices = line.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    return bool({PROMPT, GENERATED} & (line.keys() | first.keys()))


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    decisions = Decisions(builder, options)
    empty = 0
    for path in paths:
        for where, name, request in _requests(path, builder):
            for number, completion in enumerate(_completions(request)):
                document = name if number == 0 else f"{name} completion {number}"
                empty += not _add(decisions, where, document, completion, has_prompt=number == 0)
    if empty:
        builder.add_note("not_recorded", f"{empty} completions came without routed experts and were left out.")
    decisions.finish()


def _requests(path: pathlib.Path, builder: RecordBuilder) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if zipfile.is_zipfile(path):
        yield str(path), path.stem, _read_npz(path)
        return
    for number, line in read_json_lines(path, when_cut=lambda text: builder.add_note("truncated", text)):
        name = next((str(line[key]) for key in NAMES if line.get(key) is not None), f"{path.stem} line {number}")
        yield f"{path}, line {number}", name, line


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: {_why(error)}") from None


def _completions(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = request.get("choices")
    if not isinstance(choices, list):
        yield request
        return
    for choice in choices:
        yield {**request, **choice}


def _add(decisions: Decisions, where: str, document: str, request: dict[str, Any], *, has_prompt: bool) -> bool:
    """Add a completion, and the prompt unless another completion has; return whether there was anything."""
    options = decisions.options
    prompt_NLK = _decoded(request.get(PROMPT), f"{where}: {PROMPT}")
    found_NLK = _decoded(request.get(GENERATED), f"{where}: {GENERATED}")
    prompt_ids = _ids(request, ("prompt_token_ids",), where)
    ids = _ids(request, GENERATED_IDS, where)
    num_prompt = len(prompt_ids) if prompt_ids is not None else _count(request, "prompt_tokens", "num_prompt_tokens")
    num_generated = len(ids) if ids is not None else _count(request, "completion_tokens", "num_output_tokens")
    if prompt_NLK is None and found_NLK is not None:
        prompt_NLK, found_NLK = _split(found_NLK, num_prompt, num_generated, where)
    label = request.get(options.label_column or "label") or (None if options.label_column else request.get("domain"))
    if options.label_column is not None and options.label_column not in request:
        raise ValueError(f"{where}: has no key {options.label_column!r} for the label")
    parts = [("prompt", prompt_NLK, prompt_ids, num_prompt, 0)] if has_prompt else []
    parts.append(("generation", found_NLK, ids, num_generated, num_prompt or 0))
    for phase, part_NLK, part_ids, num, start in parts:
        if part_NLK is None or not len(part_NLK):
            continue
        # the last token that was generated has no row
        if num is not None and len(part_NLK) not in ({num} if phase == "prompt" else {num, num - 1}):
            raise ValueError(_wrong_length(where, phase, len(part_NLK), num))
        if num is None and phase == "generation" and options.phase:
            phase = options.phase
        if phase == "generation" and num_prompt is None and request.get(PROMPT) is None and not options.phase:
            phase = ""
            decisions.builder.add_note(
                "mixed_phases",
                "Some requests do not say how many tokens the prompt has, so prompt and generation are not apart.",
            )
        row = decisions.row(document, label="" if label is None else str(label), phase=phase)
        position_N = start + np.arange(len(part_NLK))
        token_N = None if part_ids is None else part_ids[: len(part_NLK)]
        if token_N is None:
            token_N = decisions.tokens(document, position_N)
        for layer in range(part_NLK.shape[1]):
            decisions.add(
                where,
                (f"layer {layer}", layer),
                np.full(len(part_NLK), row),
                part_NLK[:, layer],
                position_N=position_N,
                token_N=np.full(len(part_NLK), -1) if token_N is None else token_N,
            )
    return any(part is not None and len(part) for part in (prompt_NLK, found_NLK))


def _split(
    found_NLK: Array, num_prompt: int | None, num_generated: int | None, where: str
) -> tuple[Array | None, Array | None]:
    """Return the rows of the prompt and those of the generation, of an array that has both or the latter."""
    num = len(found_NLK)
    if num_prompt is None:
        return None, found_NLK
    if num_generated is None:
        if num < num_prompt:
            raise ValueError(_wrong_length(where, "prompt", num, num_prompt))
        return found_NLK[:num_prompt], found_NLK[num_prompt:]
    if num in (num_prompt + num_generated, num_prompt + num_generated - 1):
        return found_NLK[:num_prompt], found_NLK[num_prompt:]
    if num in (num_generated, num_generated - 1):
        return None, found_NLK
    raise ValueError(_wrong_length(where, "prompt and generation", num, num_prompt + num_generated))


def _wrong_length(where: str, phase: str, num: int, expected: int) -> str:
    drafts = "; drafts that were rejected may be among them" if num > expected else "; some were not recorded"
    return f"{where}: {phase}: {num} tokens with experts, but {expected} tokens{drafts}"


def _decoded(value: Any, where: str) -> Array | None:
    """Return an array [tokens, layers, k], however it was sent."""
    if value is None:
        return None
    if isinstance(value, str):
        found = _from_base64(value, where)
    elif isinstance(value, Mapping):
        found = _from_parts(value, where)
    else:
        try:
            found = np.asarray(value)
        except ValueError:
            raise ValueError(f"{where} is ragged: tokens have different numbers of layers or experts") from None
    if found.size == 0:
        return None
    if found.ndim != 3 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"{where} is an array {list(found.shape)} of {found.dtype}, not [tokens, layers, k] of whole numbers"
        )
    return found


def _from_base64(value: str, where: str) -> npt.NDArray[Any]:
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError(f"{where} is a text, but not base64") from None
    if not data.startswith(b"\x93NUMPY"):
        raise ValueError(
            f"{where} is bytes without a shape, so layers and k are unknown; keep it as a .npy, or with shape and dtype"
        )
    try:
        result: npt.NDArray[Any] = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{where}: {_why(error)}") from None
    return result


def _from_parts(value: Mapping[str, Any], where: str) -> npt.NDArray[Any]:
    missing = [name for name in ("data", "shape", "dtype") if name not in value]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}")
    try:
        data = base64.b64decode(value["data"], validate=True)
        return np.frombuffer(data, dtype=np.dtype(value["dtype"])).reshape(value["shape"])
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: data, shape and dtype do not fit: {error}") from None


def _why(error: BaseException) -> str:
    if "allow_pickle" in str(error):
        return "holds a pickle, which is never loaded since it can run code; save numbers alone"
    return f"is damaged or cut off: {error}"


def _ids(request: Mapping[str, Any], names: tuple[str, ...], where: str) -> Integers | None:
    value = next((request[name] for name in names if request.get(name) is not None), None)
    if value is None:
        return None
    found = np.asarray(value)
    if found.size and (found.ndim != 1 or not np.issubdtype(found.dtype, np.integer)):
        raise ValueError(f"{where}: {names[0]} is not a list of whole numbers")
    return found.astype(np.int64)


def _count(request: Mapping[str, Any], in_usage: str, flat: str) -> int | None:
    usage = request.get("usage")
    value = usage.get(in_usage) if isinstance(usage, Mapping) else request.get(flat)
    return int(value) if isinstance(value, int) else None
