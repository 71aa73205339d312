"""Fill the layers of one run of a study: its choices at each check, and what the study's tables say of its slots.

Shape suffixes: P positions of the probe set, M tokens that are shown, K chosen slots, S slots.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from speciate.config.contracts.slots import EXPERTS, MASKS, kind_of, slot_names
from speciate.config.stage_specs import ExploreSpec
from speciate.reporting import formats
from speciate.reporting.explorer.data import Check, Layer, Model
from speciate.reporting.explorer.study_files import (
    Arrays,
    Files,
    KeyArrays,
    Probe,
    Run,
    name_of,
    of_run,
    paths_of,
    read_arrays,
)

UNSAID = ("Lifts are of one run on the probe set; the report says what holds over seeds, with intervals and tests.",)


@dataclass(frozen=True, eq=False)
class Sources:
    """Where the layers of one run come from."""

    files: Files
    tables: Mapping[str, pd.DataFrame]
    keys: Mapping[Run, KeyArrays]
    """By selector, the single keys that are shown."""
    with_steps: set[Run]


def model_of(spec: ExploreSpec, run: Run, arrays: Arrays, probe: Probe, *, sources: Sources) -> Model:
    early = read_arrays(sources.files.runs, run, "telemetry") if run in sources.with_steps else {}
    tables = {name: of_run(rows, run) for name, rows in sources.tables.items()}
    paths = sorted(paths_of(arrays), key=_place)
    chosen_keys = sources.keys.get(run, {})
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


def _place(path: str) -> tuple[bool, list[tuple[bool, int, str]]]:
    """Return a key by which paths are in the order of the model's blocks, other parts after them."""
    parts = [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.split(".")]
    return path.startswith("parts."), parts
