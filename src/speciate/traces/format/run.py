"""Read a finished run of a study: what its selectors chose on the probe set, with the null that each has.

A run's folder holds probe.safetensors: sums by document of every selector (as `Tally` has them), and the choices of
each position. The texts are those of the study's mixture, which results/<study>/specs/folders.json names.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.selection.module_path import layer_of
from speciate.selection.record_builder import RecordBuilder, SelectorShape
from speciate.selection.routing_record import NOT_CHOSEN, Integers
from speciate.selection.tally import Tally
from speciate.traces.contract import Contents, ReadOptions

SUMMARY = "A finished run of a study, with each selector's own null"
FILES = "the run's folder"
CONTENTS = Contents(documents=True, tokens=True, phases=False, labels=True)
LOOKS_FOR = "a folder with run.json and probe.safetensors"
PROBE = "probe.safetensors"


def matches(path: pathlib.Path) -> bool:
    return path.is_dir() and (path / "run.json").is_file() and (path / PROBE).is_file()


def read(paths: Sequence[pathlib.Path], builder: RecordBuilder, options: ReadOptions) -> None:
    if len(paths) != 1:
        raise ValueError(f"{', '.join(map(str, paths))}: a record is of one run; compare two by reading each")
    (folder,) = paths
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if facts.get("state") == "failed":
        raise ValueError(f"{folder}: the run failed at step {facts.get('step')}: {facts.get('reason')}")
    mixture = options.mixture or _mixture_of(folder)
    for name in ("probe.documents.parquet", "probe.document.npy", "probe.tokens.npy"):
        if not (mixture / name).is_file():
            raise ValueError(f"{mixture / name}: there is no such file; name the folder that `balance` wrote")
    documents = pd.read_parquet(mixture / "probe.documents.parquet")
    names = documents["id"] if "id" in documents else documents["document"].astype(str)
    rows = [
        builder.row(str(name), label=str(domain), group=str(group))
        for name, domain, group in zip(names, documents["domain"], documents["group"], strict=True)
    ]
    document_P = np.load(mixture / "probe.document.npy").reshape(-1).astype(np.int64)
    token_P = np.load(mixture / "probe.tokens.npy").reshape(-1).astype(np.int64)
    arrays = _load(folder / PROBE)
    paths_of = [name.removesuffix("/choice") for name in arrays if name.endswith("/choice")]
    if not paths_of:
        raise ValueError(f"{folder}: the run has no selector, so there is nothing to judge")
    for path in paths_of:
        _add(builder, path, arrays, np.array(rows, dtype=np.int64), texts=(document_P, token_P), file=folder / PROBE)
    builder.pieces |= _pieces(folder, np.unique(token_P[document_P >= 0]))


def _mixture_of(folder: pathlib.Path) -> pathlib.Path:
    """Return the mixture's folder, which the study's results name: results/<study>/runs/<ablation>/seed<k>."""
    home = folder.resolve().parents[2]
    file = home / "specs" / "folders.json"
    if not file.is_file():
        raise ValueError(f"{folder}: is not in a study's results ({file} is missing); name the run's mixture")
    return pathlib.Path(home.parent / json.loads(file.read_text(encoding="utf-8"))["mixture"])


def _load(file: pathlib.Path) -> dict[str, npt.NDArray[Any]]:
    import safetensors
    import safetensors.numpy

    try:
        arrays: dict[str, npt.NDArray[Any]] = safetensors.numpy.load_file(file)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file}: is damaged or cut off: {error}") from None
    return arrays


def _add(
    builder: RecordBuilder,
    path: str,
    arrays: dict[str, npt.NDArray[Any]],
    row_D: Integers,
    *,
    texts: tuple[Integers, Integers],
    file: pathlib.Path,
) -> None:
    document_P, token_P = texts
    where = f"{file}, selector {path}"
    parts = []
    for name in Tally.__dataclass_fields__:
        value = arrays.get(f"{path}/{name}")
        if value is None or len(value) != len(row_D):
            problem = "is missing" if value is None else f"has {len(value)} documents, not {len(row_D)}"
            raise ValueError(f"{where}: {name} {problem}; the run and the mixture do not belong together")
        parts.append(value.astype(np.float64))
    tally = Tally(*parts)
    choice_PS = arrays[f"{path}/choice"]
    if len(choice_PS) != len(document_P):
        raise ValueError(
            f"{where}: {len(choice_PS)} choices for {len(document_P)} positions; the run and the mixture do not belong"
            " together"
        )
    made_P = (document_P >= 0) & choice_PS.any(axis=1)
    count_P = choice_PS[made_P].sum(axis=1, dtype=np.int64)
    num_chosen = float(count_P.mean()) if len(count_P) else 1.0
    whole = int(num_chosen) if num_chosen.is_integer() else num_chosen
    shape = SelectorShape(path, layer_of(path), choice_PS.shape[1], whole, ordered=False)
    builder.add_tally(shape, row_D, tally)
    if len(count_P):
        builder.add_to_sample(
            shape,
            row_D[document_P[made_P]],
            _numbers(choice_PS[made_P], int(count_P.max())),
            position_N=_positions(document_P)[made_P],
            token_N=token_P[made_P],
        )


def _numbers(choice_NS: npt.NDArray[Any], most: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the chosen slots, in their order, and `NOT_CHOSEN` after them."""
    at_N, slot_N = np.nonzero(choice_NS)
    count_N = np.bincount(at_N, minlength=len(choice_NS))
    numbers_NK = np.full((len(choice_NS), most), NOT_CHOSEN, dtype=np.int64)
    numbers_NK[at_N, np.arange(len(at_N)) - np.repeat(np.cumsum(count_N) - count_N, count_N)] = slot_N
    return numbers_NK


def _positions(document_P: Integers) -> Integers:
    """Return the position of each token within its document, whose tokens come in order."""
    order_P = np.argsort(document_P, kind="stable")
    count_D = np.bincount(document_P + 1)
    start_D = np.cumsum(count_D) - count_D
    position_P = np.empty(len(document_P), dtype=np.int64)
    position_P[order_P] = np.arange(len(document_P)) - start_D[document_P[order_P] + 1]
    return position_P


def _pieces(folder: pathlib.Path, tokens: Integers) -> dict[int, str]:
    """Return the texts of token ids, where the tokenizer's library is there."""
    file = folder / "tokenizer" / "tokenizer.json"
    if not file.is_file():
        return {}
    try:
        import tokenizers
    except ModuleNotFoundError:
        return {}
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    return {int(token): tokenizer.decode([int(token)], skip_special_tokens=False) for token in tokens}
