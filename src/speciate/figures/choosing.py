"""Choose which arms and selectors a figure draws, name them, and say which are left out."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from speciate.config.contracts.slots import slot_words
from speciate.figures.style import Subject, join_names


def arms_with_selectors(frame: pd.DataFrame, subject: Subject) -> list[str]:
    """Return the arms of a table of selectors, in the order of the study."""
    present = set(frame["ablation"])
    return [arm for arm in subject.arms if arm in present]


def selector_names(frame: pd.DataFrame) -> dict[str, str]:
    """Map every selector's path, in order of depth, to 'layer 3', or to a short path where a layer has several."""
    pairs = frame[["layer", "selector"]].drop_duplicates().sort_values(["layer", "selector"])
    count = pairs["layer"].value_counts()
    return {
        path: f"layer {int(layer)}"
        if layer >= 0 and (count[layer] == 1 or path == f"blocks.{layer}")
        else _short_path(path)
        for layer, path in pairs.itertuples(index=False, name=None)
    }


def _short_path(path: str) -> str:
    """Return a path without the prefix that all paths share."""
    return path.removeprefix("parts.").removeprefix("blocks.")


def slot_words_of(frame: pd.DataFrame, selectors: pd.DataFrame) -> tuple[str, str]:
    """Return what a slot of the selectors of some rows is called, and several: 'expert', 'experts'.

    Args:
        frame: rows with the column `selector`.
        selectors: the table of that name, which has the number of slots of each.
    """
    pairs = selectors[["selector", "num_slots"]].drop_duplicates()
    pairs = pairs[pairs["selector"].isin(set(frame["selector"]))]
    return slot_words((str(path), int(number)) for path, number in pairs.itertuples(index=False, name=None))


def choose_names(names: Sequence[str], limit: int, weight: Mapping[str, float]) -> list[str]:
    """Choose at most `limit` of `names`, in order: the first, the last and the heaviest, then evenly spaced others."""
    if len(names) <= limit:
        return list(names)
    heaviest = max(names, key=lambda name: weight.get(name, 0.0))
    order = [heaviest, names[0], names[-1]]
    order += [names[int(index)] for index in np.linspace(0, len(names) - 1, limit).round()]
    order += list(names)
    kept = list(dict.fromkeys(order))[:limit]
    return [name for name in names if name in kept]


def most_uneven(full: pd.DataFrame, paths: Sequence[str], limit: int, subject: Subject) -> list[str]:
    """Choose at most `limit` of the selectors `paths`: the most uneven of arms that learn, then those of other arms.

    `full` has a row per run and selector with its unevenness.
    """
    learned = full[~full["ablation"].isin([*subject.controls, *subject.fixed])]
    worst, others = (rows.groupby("selector")["unevenness"].max() for rows in (learned, full))
    order = sorted(paths, key=lambda path: (-worst.get(path, -np.inf), -others.get(path, -np.inf)))
    kept = set(order[:limit])
    return [path for path in paths if path in kept]


def choose_arms(arms: Sequence[str], limit: int, weight: Mapping[str, float], subject: Subject) -> list[str]:
    """Choose at most `limit` of `arms`, in order: the reference and the controls, then the heaviest."""
    heaviest = sorted(arms, key=lambda arm: -weight.get(arm, 0.0))
    wanted = [arm for arm in (subject.reference, *subject.controls) if arm in arms][: max(1, limit - 1)]
    kept = list(dict.fromkeys([*wanted, *heaviest]))[:limit]
    return [arm for arm in arms if arm in kept]


def selectors_of_columns(paths: Sequence[str], columns: Sequence[str]) -> list[str | None]:
    """Return the selector in each column for an arm with these `paths`: the column's, or another of the arm."""
    others = [path for path in paths if path not in columns]
    num_free = sum(column not in paths for column in columns)
    chosen = iter(choose_names(others, num_free, {}) if num_free else [])
    return [column if column in paths else next(chosen, None) for column in columns]


def drawn_selectors(frame: pd.DataFrame, arms: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return every selector that is drawn in the rows of `arms`."""
    by_arm = frame[frame["ablation"].isin(arms)].groupby("ablation")["selector"].unique()
    drawn = {path for paths in by_arm for path in selectors_of_columns(list(paths), columns) if path is not None}
    return [path for path in selector_names(frame) if path in drawn]


def column_selectors(names: Mapping[str, str]) -> list[str]:
    """Return the selectors that may have a column: those that are alone in their layer, or else all of them."""
    layered = [path for path, name in names.items() if name.startswith("layer ")]
    return layered or list(names)


def all_and_drawn(names: Mapping[str, str], kept: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of all selectors and of the `kept` paths, for `note_left_out`."""
    return list(names.values()), [names[path] for path in kept]


def note_left_out(*pairs: tuple[Sequence[str], Sequence[str]]) -> str:
    """Return ' Not shown ...' for a caption, from pairs (all names, drawn names) of arms or layers; or nothing."""
    missing = [[name for name in everything if name not in shown] for everything, shown in pairs]
    parts = []
    for names in filter(None, missing):
        layers = len(names) > 1 and all(name.startswith("layer ") for name in names)
        parts.append(
            f"layers {join_names(name.removeprefix('layer ') for name in names)}" if layers else join_names(names)
        )
    return f" Not shown for lack of room: {'; '.join(parts)}." if parts else ""


def note_incomparable(present: Iterable[str], subject: Subject) -> str:
    """Return ' Not drawn ...' for a caption, with those of `present` whose losses cannot be compared; or nothing."""
    names = [arm for arm in subject.arms if arm in subject.incomparable and arm in set(present)]
    if not names:
        return ""
    return (
        f" Not drawn, because a bound is not a likelihood, and neither is a loss that looks ahead: {join_names(names)}."
    )
