"""What a finding is, and what several of them ask of the tables: which runs have selectors, which selector is worst."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.stage_specs import ReportSpec
from speciate.reporting.formats import join_names, plain_name

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Finding:
    """One part of the answer: a sentence, details about single arms, and caveats."""

    about: str
    """Its heading."""
    text: str
    points: Sequence[tuple[str, str]] = ()
    """(arm, sentence about it)"""
    after: str = ""
    """Caveats, and how the intervals were made."""


def runs_with_selectors(tables: Tables, spec: ReportSpec) -> dict[str, pd.DataFrame]:
    """Return the runs of every arm that has selectors."""
    runs = tables["runs"]
    routed = runs[runs["num_selectors"] > 0]
    by_arm = {arm.name: routed[routed["ablation"] == arm.name].sort_values("seed") for arm in spec.arms}
    return {arm: arm_runs for arm, arm_runs in by_arm.items() if len(arm_runs)}


def has_collapsed(arm_runs: pd.DataFrame, spec: ReportSpec) -> bool:
    """Return whether any of the arm's runs collapsed, by the alarm or by the finished model's interval.

    A run that is uneven without having learned to be may raise the alarm, and has not collapsed.
    """
    learned = arm_runs[~arm_runs["ablation"].isin(spec.controls) & (arm_runs["state"] != "uneven")]
    return bool((learned["state"] == "collapsed").any() or learned["alarm_step"].notna().any())


def worst_selector(tables: Tables, arm: str, seed: int) -> pd.Series | None:
    """Return the row of the finished model's selector that is nearest to its limits, or furthest beyond them.

    None where none was measured. Shares do not compare selectors: half of the choices is an even share of two slots.
    """
    rows = tables["selectors"]
    rows = rows[(rows["probe"] == "full") & (rows["ablation"] == arm) & (rows["seed"] == seed)]
    return None if rows["unevenness"].isna().all() else rows.loc[rows["unevenness"].idxmax()]


def short_path(path: str) -> str:
    """Return a module's path without the prefix that all paths share."""
    return path.removeprefix("parts.").removeprefix("blocks.")


def selector_place(row: pd.Series) -> str:
    """Return where a selector is: its layer, or the name of a part outside the layers."""
    return str(row["layer"]) if row["layer"] >= 0 else short_path(str(row["selector"]))


def group_by_seed(texts: Iterable[tuple[int, str]]) -> str:
    """Join the texts about seeds, and merge seeds with the same text: 'X (seeds 0 and 2); Y (seed 1)'."""
    seeds_of: dict[str, list[str]] = {}
    for seed, text in texts:
        seeds_of.setdefault(text, []).append(str(seed))
    return "; ".join(
        f"{text} ({'seed' if len(seeds) == 1 else 'seeds'} {join_names(seeds)})" for text, seeds in seeds_of.items()
    )


def verdicts_by_arm(tables: Tables) -> dict[tuple[str, str, str], str]:
    """Map (statistic, arm, reference) to what became of the predictions about it: 'collapse costs: supported'.

    A prediction has a margin, and one of equivalence another interval, so its verdict is not whether the plain interval
    contains zero. Where both are shown, the verdict is named beside the interval.
    """
    rows = tables["hypotheses"]
    named: dict[tuple[str, str, str], list[str]] = {}
    for row in rows[rows["test"] == "difference"].itertuples():
        key = (str(row.statistic), str(row.arm), str(row.reference))
        named.setdefault(key, []).append(f"{plain_name(str(row.name))}: {row.verdict}")
    return {key: "; ".join(verdicts) for key, verdicts in named.items()}
