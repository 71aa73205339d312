"""Convert the routing metrics of a training log to one definition.

log = read_training_log(["run/events.out.tfevents.1"], experts=64, chosen=8)
log.table       # a row for each measure, step and layer
"""

import math
import pathlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from speciate.selection.routing_record import Note
from speciate.training_logs.log_files import Scalars, read_scalars
from speciate.training_logs.log_names import Framework, Match, frameworks, match

COLUMNS = {
    "framework": "which framework logs such a name: a file of `training_logs/framework`",
    "phase": "train, eval, rollout, ...: the tokens that were counted",
    "step": "the step under which it was logged",
    "layer": "number of the layer as the framework counts; -1 for a summary of the layers",
    "over": "what was taken over the layers: mean, max, min, median; empty for one layer",
    "metric": "max_vio, effective_share, cv, dead_share or unevenness, in the one definition",
    "relation": "`=`: the measure is `value`; `<=`: it is at most that; `>=`: at least",
    "value": "the converted value",
    "key": "the name under which it was logged",
    "logged": "the value that was logged",
    "file": "the file that it was read from",
}
"""Column of a training log's table -> its meaning."""
LOOKS_LIKE_ROUTING = re.compile(
    r"(?i)moe|expert|rout(?:er|ing)|load[\s_-]*(?:im)?balanc|imbalance|max[\s_-]*vio|aux[\s_-]*loss|\bgating\b"
)
"""Names that may be measures of routing, and are listed if nobody knows them."""
SHOWN_KEYS = 8
TOLERANCE = 1e-3
"""Two values of one measure contradict each other if they differ by more than this share of them, and of 1."""


@dataclass(frozen=True, eq=False)
class TrainingLog:
    """What a training log says of routing, in one definition."""

    source: str
    table: pd.DataFrame
    """COLUMNS, ordered by phase, layer, measure and step."""
    experts: int | None
    """E, as it was given."""
    chosen: int | None
    """k, as it was given."""
    unconverted: dict[str, str]
    """Known name that has no conversion -> the reason."""
    unknown: tuple[str, ...]
    """Names that look like measures of routing, and that no framework is known to log."""
    notes: tuple[Note, ...]

    @property
    def frameworks(self) -> tuple[str, ...]:
        """Return the frameworks whose names occur."""
        return tuple(dict.fromkeys(self.table["framework"]))


def read_training_log(
    paths: Sequence[str | pathlib.Path], *, experts: int | None = None, chosen: int | None = None
) -> TrainingLog:
    """Read log files and convert their routing metrics.

    Args:
        paths: files, or folders of files, of one training.
        experts: E, the number of experts of a layer; some conversions need it.
        chosen: k, the number of experts that a token chooses; a verdict needs it.

    Raises:
        ValueError: no routing metric is in the log, or a file cannot be read; names what was looked for.
        OSError: a file cannot be read.
    """
    check_sizes(experts, chosen)
    known, scalars = frameworks(), read_scalars(paths)
    source = ", ".join(map(str, paths))
    matched = {key: match(key, known) for key in dict.fromkeys(key for key, _, _, _ in scalars.rows)}
    found = {key: one for key, one in matched.items() if one is not None}
    others = tuple(key for key, one in matched.items() if one is None)
    if not found:
        raise ValueError(_nothing_found(source, others, known))
    unconverted = {key: one.name.formula for key, one in found.items() if not one.name.metric}
    if experts is None:
        missing = {key: one for key, one in found.items() if one.name.metric and one.name.needs_experts}
        unconverted |= {
            key: f"{one.name.formula} needs the number of experts: --experts" for key, one in missing.items()
        }
    table = _table(scalars, {key: one for key, one in found.items() if key not in unconverted}, experts or 1)
    table = _without_impossible(table, experts, chosen, scalars)
    if table.empty and not unconverted:
        raise ValueError(f"{source}: holds no possible value: {scalars.notes[-1].text}")
    _note_contradictions(table, scalars)
    for framework in known:
        if framework.name in set(table["framework"]):
            scalars.notes += [Note("framework", f"{framework.title}: {text}") for text in framework.notes]
    return TrainingLog(
        source=source,
        table=table,
        experts=experts,
        chosen=chosen,
        unconverted=unconverted,
        unknown=tuple(key for key in others if LOOKS_LIKE_ROUTING.search(key)),
        notes=tuple(scalars.notes),
    )


def check_sizes(experts: int | None, chosen: int | None) -> None:
    """Raise ValueError unless the numbers of experts and of choices are possible."""
    if experts is not None and experts < 2:
        raise ValueError(f"--experts: a layer has at least two experts, not {experts}")
    if chosen is not None and chosen < 1:
        raise ValueError(f"--chosen: a token chooses at least one expert, not {chosen}")
    if experts is not None and chosen is not None and chosen >= experts:
        raise ValueError(f"--chosen: a token that chooses {chosen} of {experts} experts has no choice")


def _nothing_found(source: str, keys: Sequence[str], known: Sequence[Framework]) -> str:
    names = "; ".join(
        f"{framework.title}: {', '.join(name.shown for name in framework.names if name.metric)}" for framework in known
    )
    shown = ", ".join(sorted(keys, key=lambda key: not LOOKS_LIKE_ROUTING.search(key))[:SHOWN_KEYS]) or "none at all"
    return f"{source}: has no routing metric that is known. It has {len(keys)} names: {shown}. Looked for {names}"


def _table(scalars: Scalars, found: dict[str, Match], experts: int) -> pd.DataFrame:
    """Return the converted values; NaN and infinite ones are left out and noted."""
    unusable: Counter[str] = Counter()
    first_step: dict[str, int] = {}
    last: dict[tuple[str, int], tuple[float, str]] = {}
    for key, step, value, file in scalars.rows:
        if key not in found:
            continue
        if not math.isfinite(value):
            unusable[key] += 1
            first_step.setdefault(key, step)
        elif not (value == 0 and found[key].name.zero_is_absent):
            last[key, step] = (value, file)  # of a step that was logged twice the last value counts
    for key, count in unusable.items():
        scalars.add_note(
            "not_finite", f"{key}: {count} values are not finite, and were left out; first at step {first_step[key]}."
        )
    rows = []
    for (key, step), (value, file) in last.items():
        one = found[key]
        converted = one.name.convert(value, experts)
        place = (one.framework.name, one.phase, step, one.layer, one.over, one.name.metric, one.name.relation)
        rows.append((*place, converted, key, value, file))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    table = _largest_expert(table, {key for key, one in found.items() if "expert" in one.groups})
    order = ["phase", "layer", "over", "metric", "step", "key"]
    return table.sort_values(order, kind="stable").reset_index(drop=True)


def _largest_expert(table: pd.DataFrame, of_experts: set[str]) -> pd.DataFrame:
    """Return the table with only the most loaded expert of each layer and step, where single experts are logged."""
    single = table["key"].isin(of_experts)
    largest = table[single].sort_values("value", ascending=False, kind="stable")
    largest = largest.drop_duplicates(["framework", "phase", "step", "layer", "metric"])
    return pd.concat([table[~single], largest])


def _without_impossible(table: pd.DataFrame, experts: int | None, chosen: int | None, scalars: Scalars) -> pd.DataFrame:
    """Return the rows with possible values; the others are noted."""
    most_vio = math.inf if experts is None else experts / (chosen or 1) - 1
    most_cv = math.inf if experts is None else math.sqrt(experts - 1)
    bounds = {"max_vio": (0, most_vio), "effective_share": (0, 1), "cv": (0, most_cv), "dead_share": (0, 1)}
    bounds |= {"unevenness": (0, math.inf)}
    low, high = (table["metric"].map(lambda metric, side=side: bounds[metric][side]).astype(float) for side in (0, 1))
    # a lower bound may lie below what is possible; values are rounded to float32 or less
    too_low = (table["value"] < low - TOLERANCE) & (table["relation"] != ">=")
    wrong = too_low | (table["value"] > high * (1 + TOLERANCE) + TOLERANCE) & (table["relation"] != "<=")
    for key, rows in table[wrong].groupby("key", sort=False):
        metric, step = rows["metric"].iloc[0], rows["step"].iloc[0]
        least, most = bounds[metric]
        sizes = "" if experts is None else f" with {experts} experts and {chosen or 'an unknown number'} chosen"
        scalars.add_note(
            "impossible",
            f"{key}: {rows['logged'].iloc[0]:g} at step {step} gives {metric} {rows['value'].iloc[0]:.4g}, and"
            f" that lies between {least:g} and {most:.4g}{sizes}; {len(rows)} such values were left out.",
        )
    return table[~wrong].reset_index(drop=True)


def _note_contradictions(table: pd.DataFrame, scalars: Scalars) -> None:
    """Note names that say different things of the same measure, step and layer."""
    place = ["phase", "metric", "layer", "over", "step"]
    exact = table[table["relation"] == "="]
    for (phase, metric, layer, over), rows in exact.groupby(place[:-1], sort=False):
        if rows["key"].nunique() < 2:
            continue
        wide = rows.pivot_table(index="step", columns="key", values="value", aggfunc="last").dropna()
        spread = wide.max(axis=1) - wide.min(axis=1)
        apart = spread[spread > TOLERANCE * np.maximum(1, wide.abs().max(axis=1))]
        if len(apart):
            at = wide.loc[apart.index[0]]
            said = ", ".join(f"{key} {value:.4g}" for key, value in at.items())
            where = f"layer {layer}" if layer >= 0 else f"the {over} over layers"
            scalars.add_note(
                "contradiction",
                f"names contradict each other on {metric} of {where} ({phase}) at {len(apart)} steps; first at step"
                f" {apart.index[0]}: {said}.",
            )
    layers = exact[exact["layer"] >= 0].groupby(["phase", "metric", "step"])["value"].agg(["max", "min", "mean"])
    for over in ("max", "min"):
        summary = exact[exact["over"] == over].set_index(["phase", "metric", "step"])["value"]
        both = layers.join(summary[~summary.index.duplicated()], how="inner")
        beyond = both["max"] - both["value"] if over == "max" else both["value"] - both["min"]
        apart = beyond[beyond > TOLERANCE * np.maximum(1, both["value"].abs())]
        for phase, metric, step in apart.index[:1]:
            scalars.add_note(
                "contradiction",
                f"the {over} over layers of {metric} ({phase}) at step {step} is"
                f" {both.loc[(phase, metric, step), 'value']:.4g}, and a layer has"
                f" {both.loc[(phase, metric, step), over]:.4g}.",
            )
