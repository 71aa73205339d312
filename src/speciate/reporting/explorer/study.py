"""Fill an explorer from a finished study: what its runs chose on the probe set, while they trained and at the end.

Every run was observed on the same texts. The finished models were observed on the whole probe set, and earlier steps on
a prefix of it with as many blocks of each domain. What does not fit is left out, and the page says so.

Shape suffixes: B blocks of T tokens, P positions of the probe set, M tokens that are shown, K chosen slots, S slots.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import safetensors.numpy

from speciate.config.stage_specs import ExploreSpec
from speciate.reporting import formats
from speciate.reporting.explorer.data import (
    EXPERTS,
    KEYS,
    MASKS,
    Check,
    Document,
    ExplorerData,
    Integers,
    Layer,
    Model,
    kind_of,
    slot_names,
)

Run = tuple[str, int]
"""(ablation, seed)"""
Arrays = dict[str, npt.NDArray[np.generic]]
Keys = Callable[[Run], Mapping[str, npt.NDArray[np.int16]]]
"""A run -> path of each selector of keys -> how many tokens back each chosen key of each position stands, (P, J)."""
OF_FINISHED = 0.6
"""Share of them that finished models may take; the rest is for earlier steps."""


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


@dataclass(frozen=True, eq=False)
class Files:
    """Where a study's files are."""

    runs: pathlib.Path
    mixture: pathlib.Path
    tables: pathlib.Path


def from_study(
    spec: ExploreSpec, files: Files, pieces: Callable[[Sequence[int]], list[str]], keys: Keys
) -> ExplorerData:
    """Return the explorer of a finished study.

    Args:
        spec: its runs.
        files: where its files are.
        pieces: token ids -> the text of each.
        keys: the keys that an indexer of sparse attention chose; asked only for runs that have one.

    Raises:
        ValueError: a run's files do not belong to the mixture; names the file.
    """
    found = {run: _read(files.runs, run, "probe") for run in runs_in_order(spec)}
    shown = {run: arrays for run, arrays in found.items() if _paths(arrays)}
    finished, with_steps, num_blocks = plan(spec, files, shown)
    probe = read_probe(files.mixture, num_blocks)
    tables = {name: pd.read_parquet(files.tables / f"{name}.parquet") for name in TABLES}
    models = [_model(spec, run, shown[run], probe, Sources(files, tables, keys, run in with_steps)) for run in finished]
    texts = list(generated(tables["details"], finished, spec))
    ids = np.concatenate([probe.token_M, *(text.token_M for text in texts)])
    order_P = np.concatenate([np.full(len(probe.token_M), -1), *(text.order_M for text in texts)])
    used = [int(token) for token in np.unique(ids)]
    return ExplorerData(
        title=f"{formats.plain_name(spec.study)}: what each selector chooses, token by token",
        documents=(*probe.documents, *(text.document for text in texts)),
        token_P=ids,
        pieces=dict(zip(used, pieces(used), strict=True)),
        models=tuple(models),
        order_P=order_P if texts else None,
        aligned=False,
        notes=tuple(notes(spec, found, texts)),
        left_out=tuple(left_out(probe, list(shown), finished, with_steps)),
    )


TABLES = ("experts", "selectors", "runs", "interventions", "details")
"""The study's tables that are read."""


def runs_in_order(spec: ExploreSpec) -> list[Run]:
    """Return the runs, the first seed of every arm first: these are kept if not all can be."""
    return [(arm.name, seed) for seed in spec.seeds for arm in spec.arms]


def plan(spec: ExploreSpec, files: Files, shown: Mapping[Run, Arrays]) -> tuple[list[Run], set[Run], int]:
    """Return the runs whose finished models are shown, those of them whose steps are, and on how many blocks.

    One seed of every arm comes first, on as much text as fits; then further seeds, and steps in the same order.
    """
    document_BT = np.load(files.mixture / "probe.document.npy", mmap_mode="r")
    per_token = {run: sum(_width(arrays[f"{path}/choice"]) for path in _paths(arrays)) for run, arrays in shown.items()}
    first = sum(width for (_, seed), width in per_token.items() if seed == spec.seeds[0])
    room = int(spec.most_choices * OF_FINISHED)
    domains = max(1, len(json.loads((files.mixture / "mixture.json").read_text(encoding="utf-8"))["labels"]))
    blocks = min(len(document_BT), room // max(1, first * document_BT.shape[1]))
    blocks = max(domains, blocks - blocks % domains)
    finished: list[Run] = []
    for run, width in per_token.items():
        if width * blocks * document_BT.shape[1] <= room or not finished:
            finished.append(run)
            room -= width * blocks * document_BT.shape[1]
    room += spec.most_choices - int(spec.most_choices * OF_FINISHED)
    with_steps: set[Run] = set()
    for run in finished:
        early = _read(files.runs, run, "telemetry")
        size = sum(int(np.prod(early[f"{path}/choice"].shape[:2])) * width_of(early, path) for path in _paths(early))
        if size <= room:
            with_steps.add(run)
            room -= size
    return finished, with_steps, blocks


def width_of(early: Arrays, path: str) -> int:
    """Return the largest number of slots that a token chose at any check, from its packed bits."""
    bits_KPB = early[f"{path}/choice"]
    return max(1, int(np.bitwise_count(bits_KPB.astype(np.uint8)).sum(axis=2).max(initial=1)))


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
class Sources:
    """Where the layers of one run come from."""

    files: Files
    tables: Mapping[str, pd.DataFrame]
    keys: Keys
    with_steps: bool


def _model(spec: ExploreSpec, run: Run, arrays: Arrays, probe: Probe, sources: Sources) -> Model:
    early = _read(sources.files.runs, run, "telemetry") if sources.with_steps else {}
    tables = {name: _of_run(rows, run) for name, rows in sources.tables.items()}
    paths = sorted(_paths(arrays), key=_place)
    chosen_keys = (
        sources.keys(run) if any(kind_of(path, arrays[f"{path}/choice"].shape[1]) == KEYS for path in paths) else {}
    )
    layers = [
        _layer(
            path,
            Observed(name_of(run), spec.num_steps[run[0]], arrays, early),
            probe,
            tables,
            keys=chosen_keys.get(path),
        )
        for path in paths
    ]
    about = next(arm.about for arm in spec.arms if arm.name == run[0])
    state = tables["runs"]["state"].tolist()
    told = f"{about}. " if about else ""
    about = f"{told}The run counts as {state[0]}." if state and state[0] else told.strip()
    return Model(name_of(run), about, tuple(layers))


def name_of(run: Run) -> str:
    """Return a run's name as the page shows it."""
    return f"{formats.plain_name(run[0])}, seed {run[1]}"


@dataclass(frozen=True, eq=False)
class Observed:
    """What was observed of one run."""

    name: str
    num_steps: int
    final: Arrays
    early: Arrays
    """Empty where earlier steps are not shown."""


def _layer(
    path: str,
    observed: Observed,
    probe: Probe,
    tables: Mapping[str, pd.DataFrame],
    *,
    keys: npt.NDArray[np.int16] | None,
) -> Layer:
    arrays, last, name = observed.final, observed.num_steps, observed.name
    choice_PS = arrays[f"{path}/choice"].astype(np.uint8)
    if probe.position_M.max() >= len(choice_PS):
        raise ValueError(
            f"run {name}, selector {path}: {len(choice_PS)} choices, fewer than the probe set has positions; evaluate"
            " the run anew"
        )
    slots = choice_PS.shape[1]
    kind = kind_of(path, slots)
    tokens_M = np.arange(len(probe.position_M))
    final = Check(last, tokens_M, slots_of(choice_PS[probe.position_M]))
    experts, lifts = _expert_tables(path, tables) if kind == EXPERTS else (None, None)
    key_MJ = None if keys is None else keys[probe.position_M]
    return Layer(
        path=path,
        kind=kind,
        slots=slot_names(kind, slots),
        checks=(*_early_checks(path, observed, probe, slots), final),
        ordered=final.choice_MK.shape[1] == 1,
        sentence=_sentence(path, tables["selectors"]),
        key_MJ=key_MJ,
        score_M=_importance(tables["details"], probe) if kind == MASKS else None,
        experts=experts,
        lifts=lifts,
        unsaid=() if kind != EXPERTS else UNSAID,
    )


UNSAID = ("Lifts are of one run on the probe set; the report says what holds over seeds, with intervals and tests.",)


def _early_checks(path: str, observed: Observed, probe: Probe, slots: int) -> Iterator[Check]:
    """Yield the checks before the end, on those of the shown tokens that were observed then."""
    early = observed.early
    if f"{path}/choice" not in early:
        return
    bits_KPB = early[f"{path}/choice"].astype(np.uint8)
    at_M = np.flatnonzero(probe.position_M < bits_KPB.shape[1])
    for step, bits_PB in zip(early["steps"].tolist(), bits_KPB, strict=True):
        if step < observed.num_steps:
            choice_PS = np.unpackbits(bits_PB[probe.position_M[at_M]], axis=1, count=slots)
            yield Check(int(step), at_M, slots_of(choice_PS))


def slots_of(choice_PS: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Return the numbers of the chosen slots in ascending order, (P, K), filled with -1."""
    width = max(1, int(choice_PS.sum(axis=1, dtype=np.int64).max(initial=0)))
    row_N, slot_N = np.nonzero(choice_PS)
    first_P = np.searchsorted(row_N, np.arange(len(choice_PS)))
    chosen_PK = np.full((len(choice_PS), width), -1, dtype=np.int16)
    chosen_PK[row_N, np.arange(len(row_N)) - first_P[row_N]] = slot_N
    return chosen_PK


def _expert_tables(path: str, tables: Mapping[str, pd.DataFrame]) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Return what is known of each expert, and of each expert and domain, with the costs of masking it."""
    rows = tables["experts"]
    rows = rows[(rows["selector"] == path) & (rows["probe"] == "full")]
    if not len(rows):
        return None, None
    costs = _costs(path, tables["interventions"])
    whole = rows[rows["domain"] == "all"][["slot", "share"]].assign(dead=lambda table: table["share"] == 0)
    named = {"cost_nats": "cost", "cost_low_nats": "cost_low", "cost_high_nats": "cost_high"}
    experts = whole.merge(costs[costs["domain"] == "all"].rename(columns=named), on="slot", how="left")
    lifts = rows[rows["domain"] != "all"][["slot", "domain", "lift", "placebo_lift"]]
    lifts = lifts.merge(costs.rename(columns={"cost_nats": "cost"}), on=["slot", "domain"], how="left")
    return experts, lifts.rename(columns={"domain": "label"})


def _costs(path: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return what masking each slot costs by domain, beside rerouting as many random tokens."""
    rows = rows[rows["selector"] == path]
    keys, costs = ["slot", "domain"], ["cost_nats", "cost_low_nats", "cost_high_nats"]
    masked = rows[rows["intervention"] == "masked_slot"][[*keys, *costs]]
    control = rows[rows["intervention"] == "masked_control"][[*keys, "cost_nats"]]
    return masked.merge(control.rename(columns={"cost_nats": "control"}), on=keys, how="left")


def _sentence(path: str, rows: pd.DataFrame) -> str:
    """Return what the study measured of a selector, in a sentence."""
    rows = rows[(rows["selector"] == path) & (rows["probe"] == "full")]
    if not len(rows):
        return ""
    row = rows.iloc[-1]
    parts = [f"Its largest share is {formats.format_percent(row['max_share'])}"]
    if not np.isnan(row["information_bits"]):
        parts.append(
            f"its choice has {formats.format_number(row['information_bits'])} bits of information about the domain"
            f" ({formats.format_number(row['null_mean_bits'])} by chance)"
        )
    return f"{', and '.join(parts)}."


def _importance(rows: pd.DataFrame, probe: Probe) -> npt.NDArray[np.float32]:
    """Return the importance of each shown token; NaN beyond the blocks of which the objective shows it."""
    rows = rows[rows["what"] == "importance"]
    score_P = np.full(int(probe.position_M.max()) + 1, np.nan, dtype=np.float32)
    position = (rows["item"] * probe.block_length + rows["position"]).to_numpy(dtype=np.int64)
    kept = position < len(score_P)
    score_P[position[kept]] = rows["x"].to_numpy(dtype=np.float32)[kept]
    return score_P[probe.position_M]


@dataclass(frozen=True, eq=False)
class Generated:
    """A text that a sampler made, with the step in which it lifted each mask."""

    document: Document
    token_M: Integers
    order_M: Integers


def generated(details: pd.DataFrame, finished: Sequence[Run], spec: ExploreSpec) -> Iterator[Generated]:
    """Yield the texts that models which fill masks generated, of the first seed of each arm."""
    for run in finished:
        rows = _of_run(details, run)
        rows = rows[rows["what"].str.startswith("unmasking_")]
        if run[1] != spec.seeds[0]:
            continue
        for (what, item), text in rows.groupby(["what", "item"]):
            text = text.sort_values("position")
            sampler = formats.plain_name(str(what).removeprefix("unmasking_"))
            number = f", text {int(item) + 1}" if rows["item"].nunique() > 1 else ""
            document = Document(f"generated, sampler {sampler}{number}", "generated", len(text), name_of(run))
            yield Generated(document, text["token"].to_numpy(np.int64), text["x"].to_numpy(np.int64))


def notes(spec: ExploreSpec, found: Mapping[Run, Arrays], texts: Sequence[Generated]) -> Iterator[str]:
    """Yield sentences that say what the texts are."""
    yield (
        "The texts are the study’s probe set, which no run was trained on. Seeds number their experts at random: with"
        " two runs side by side, experts are matched by the tokens that they share."
    )
    without = sorted({run[0] for run, arrays in found.items() if not _paths(arrays)}, key=str)
    if without:
        yield f"Without a selector, or without a finished run, so not here: {formats.join_names(without)}."
    if texts:
        yield "The last texts were generated by filling masks; the darker a token, the later its mask was lifted."


def left_out(probe: Probe, runs: list[Run], finished: list[Run], with_steps: set[Run]) -> Iterator[str]:
    """Yield sentences that say what the page leaves out."""
    if probe.num_blocks < probe.all_blocks:
        yield f"To keep the page small it shows {probe.num_blocks} of the {probe.all_blocks} blocks of the probe set."
    if missing := [run for run in runs if run not in finished]:
        yield f"{len(missing)} of {formats.pluralise(len(runs), 'run')} are left out: {_several(missing)}."
    if missing := [run for run in finished if run not in with_steps]:
        yield f"Earlier steps are left out of {formats.pluralise(len(missing), 'run')}: {_several(missing)}."
    if with_steps:
        yield "Earlier steps were observed on the first blocks of each domain only."


def _several(runs: Sequence[Run]) -> str:
    names = [name_of(run) for run in runs[:6]]
    return "; ".join(names) + (f"; and {len(runs) - 6} more" if len(runs) > 6 else "")


def _read(runs: pathlib.Path, run: Run, name: str) -> Arrays:
    """Read an array file of a run; nothing where it failed before it wrote any."""
    file = runs / run[0] / f"seed{run[1]}" / f"{name}.safetensors"
    return safetensors.numpy.load_file(file) if file.is_file() else {}


def _paths(arrays: Arrays) -> list[str]:
    return [name.removesuffix("/choice") for name in arrays if name.endswith("/choice")]


def _place(path: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Return a key by which paths are in the order of the model's blocks, other parts after them."""
    parts = [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.split(".")]
    return path.startswith("parts."), parts


def _width(choice_PS: npt.NDArray[np.generic]) -> int:
    return max(1, int(choice_PS.astype(np.uint8).sum(axis=1, dtype=np.int64).max(initial=0)))


def _of_run(rows: pd.DataFrame, run: Run) -> pd.DataFrame:
    return rows[(rows["ablation"] == run[0]) & (rows["seed"] == run[1])]
