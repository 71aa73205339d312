"""The files of a study's runs that an explorer is filled from.

Shape suffixes: P positions of the probe set, M tokens that are shown, J chosen keys, S slots.
"""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.config.contracts.slots import KEYS, kind_of
from speciate.config.stage_specs import ExploreSpec
from speciate.reporting import formats
from speciate.reporting.explorer.data import Document, Integers

Run = tuple[str, int]
"""(ablation, seed)"""
Arrays = dict[str, npt.NDArray[np.generic]]
KeyArrays = Mapping[str, npt.NDArray[np.int16]]
"""Path of each selector of keys -> how many tokens back each chosen key of each position stands, (P, J); -1: no key."""


@dataclass(frozen=True, eq=False)
class Files:
    """Where a study's files are."""

    runs: pathlib.Path
    mixture: pathlib.Path
    tables: pathlib.Path


@dataclass(frozen=True, eq=False)
class Probe:
    """The probe set, without padding; whole blocks only, as many as the page shows."""

    position_M: Integers
    """Position of each token in the whole set."""
    token_M: Integers
    documents: tuple[Document, ...]
    block_length: int
    num_blocks: int
    all_blocks: int


def read_probe(folder: pathlib.Path, num_blocks: int) -> Probe:
    """Read the first blocks of the probe set; a text that a block cuts is a document of its own in each block."""
    document_BT = np.load(folder / "probe.document.npy")
    token_BT = np.load(folder / "probe.tokens.npy")
    rows = pd.read_parquet(folder / "probe.documents.parquet")
    names, labels = rows["id"].astype(str).tolist(), rows["domain"].astype(str).tolist()
    all_blocks, length = document_BT.shape
    document_P = document_BT[:num_blocks].reshape(-1).astype(np.int64)
    position_M = np.flatnonzero(document_P >= 0)
    piece_M = position_M // length * (len(rows) + 1) + document_P[position_M]
    starts = np.flatnonzero(np.diff(piece_M, prepend=-1))
    ends = np.append(starts[1:], len(piece_M))
    seen: set[int] = set()
    documents = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        number = int(document_P[position_M[start]])
        name = f"{names[number]} (continued)" if number in seen else names[number]
        seen.add(number)
        documents.append(Document(name, labels[number], end - start))
    token_M = token_BT[:num_blocks].reshape(-1)[position_M].astype(np.int64)
    return Probe(position_M, token_M, tuple(documents), length, num_blocks, all_blocks)


@dataclass(frozen=True, eq=False)
class Generated:
    """A text that a sampler made, with the step in which it lifted each mask."""

    document: Document
    token_M: Integers
    order_M: Integers


def generated(details: pd.DataFrame, finished: Sequence[Run], spec: ExploreSpec) -> Iterator[Generated]:
    """Yield the texts that models which fill masks generated, of the first seed of each arm."""
    for run in finished:
        rows = of_run(details, run)
        rows = rows[rows["what"].str.startswith("unmasking_")]
        if run[1] != spec.seeds[0]:
            continue
        for (what, item), text in rows.groupby(["what", "item"]):
            text = text.sort_values("position")
            sampler = formats.plain_name(str(what).removeprefix("unmasking_"))
            number = f", text {int(item) + 1}" if rows["item"].nunique() > 1 else ""
            document = Document(f"generated, sampler {sampler}{number}", "generated", len(text), name_of(run))
            yield Generated(document, text["token"].to_numpy(np.int64), text["x"].to_numpy(np.int64))


def name_of(run: Run) -> str:
    """Return a run's name as the page shows it."""
    return f"{formats.plain_name(run[0])}, seed {run[1]}"


def read_arrays(runs: pathlib.Path, run: Run, name: str) -> Arrays:
    """Read an array file of a run; nothing where it failed before it wrote any.

    Raises:
        ValueError: the file is damaged; names it.
    """
    file = runs / run[0] / f"seed{run[1]}" / f"{name}.safetensors"
    # the rest of this room needs no more than the light core
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(file) if file.is_file() else {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file}: cannot be read: {error}; train and evaluate the run anew") from None


def paths_of(arrays: Arrays) -> list[str]:
    return [name.removesuffix("/choice") for name in arrays if name.endswith("/choice")]


def has_keys(arrays: Arrays) -> bool:
    return any(kind_of(path, arrays[f"{path}/choice"].shape[1]) == KEYS for path in paths_of(arrays))


def most_chosen(choice_PS: npt.NDArray[np.generic]) -> int:
    return max(1, int(choice_PS.astype(np.uint8).sum(axis=1, dtype=np.int64).max(initial=0)))


def of_run(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    return rows[(rows["ablation"] == run[0]) & (rows["seed"] == run[1])]
