"""The study's answer in sentences, made from its tables: what collapsed, what was learned, what it did to the loss.

Each sentence carries its interval, and says so where the interval decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.formats import (
    pluralise,
    format_number,
    format_interval,
    join_names,
    format_percent,
    format_percent_interval,
    plain_name,
)

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Finding:
    """One part of the answer: a sentence, then what it says of single arms, then what to keep in mind."""

    about: str
    text: str
    points: Sequence[tuple[str, str]] = ()
    """(arm, what is said of it)"""
    after: str = ""


def findings(tables: Tables, spec: ReportSpec) -> list[Finding]:
    """The study's answer, part by part."""
    parts = [
        describe_collapse(tables, spec),
        describe_stable_arms(tables, spec),
        describe_controls(tables, spec),
        describe_learning(tables, spec),
        describe_losses(tables, spec),
        describe_published(tables, spec),
        describe_predictions(tables),
    ]
    return [part for part in parts if part is not None]


def missing_runs(tables: Tables, spec: ReportSpec) -> list[tuple[str, int, str]]:
    """The runs that the study has and the tables do not: arm, seed, and why, where that is known."""
    runs = tables["runs"]
    reason = tables["missing"].set_index(["ablation", "seed"])["reason"].fillna("")
    there = set(zip(runs["ablation"], runs["seed"], strict=True))
    runs_of_study = [(arm.name, seed) for arm in spec.arms for seed in spec.seeds]
    return [(*key, str(reason.get(key, ""))) for key in runs_of_study if key not in there]


def _runs_with_selectors(tables: Tables, spec: ReportSpec) -> dict[str, pd.DataFrame]:
    """The runs of every arm that has selectors."""
    runs = tables["runs"]
    routed = runs[runs["num_selectors"] > 0]
    arms = {arm.name: routed[routed["ablation"] == arm.name].sort_values("seed") for arm in spec.arms}
    return {arm: mine for arm, mine in arms.items() if len(mine)}


def _has_collapsed(mine: pd.DataFrame) -> bool:
    """Whether any run of an arm collapsed, by the alarm or by the finished model's interval."""
    return bool((mine["state"] == "collapsed").any() or mine["alarm_step"].notna().any())


def worst_selector(tables: Tables, arm: str, seed: int) -> pd.Series | None:
    """The finished model's selector with the largest share, with that share's interval."""
    full = tables["selectors"]
    mine = full[(full["probe"] == "full") & (full["ablation"] == arm) & (full["seed"] == seed)]
    return None if mine["max_share"].isna().all() else mine.loc[mine["max_share"].idxmax()]


def short_path(path: str) -> str:
    """A module's path without what every one begins with."""
    return path.removeprefix("parts.").removeprefix("blocks.")


def selector_place(row: pd.Series) -> str:
    """Where a selector is, as columns say it: its layer, or the name of a part beside the layers."""
    return str(row["layer"]) if row["layer"] >= 0 else short_path(str(row["selector"]))


def group_by_seed(said: Iterable[tuple[int, str]]) -> str:
    """What is said of each seed, those of which the same is said together: 'X (seeds 0 and 2); Y (seed 1)'."""
    seeds: dict[str, list[str]] = {}
    for seed, text in said:
        seeds.setdefault(text, []).append(str(seed))
    return "; ".join(f"{text} ({'seed' if len(of) == 1 else 'seeds'} {join_names(of)})" for text, of in seeds.items())


def _describe_worst(tables: Tables, arm: str, seed: int) -> str:
    """'80.1% [78.0%, 81.2%] of the tokens go to one of the 8 slots of layer 1'."""
    row = worst_selector(tables, arm, seed)
    if row is None:
        return "not measured"
    bounds = format_percent_interval(float(row["max_share_low"]), float(row["max_share_high"]))
    # with k experts a token, a share of 1/k is every token
    chosen = round(float(row["num_chosen"]))
    what = "tokens" if chosen == 1 else f"choices ({chosen} a token)"
    where = f"layer {row['layer']}" if row["layer"] >= 0 else selector_place(row)
    return (
        f"{format_percent(float(row['max_share']))} {bounds} of the {what} go to one of the {row['num_slots']} slots"
        f" of {where}"
    )


def describe_collapse(tables: Tables, spec: ReportSpec) -> Finding:
    """Which arms collapsed: how many runs, when, and how much one expert has at the end."""
    table = tables["collapse"].set_index("ablation")
    points = []
    for arm, mine in _runs_with_selectors(tables, spec).items():
        if not _has_collapsed(mine):
            continue
        row = table.loc[arm]
        steps = [f"{step:.0f}" for step in sorted(mine["alarm_step"].dropna().unique())]
        when = f" ({'step' if len(steps) == 1 else 'steps'} {join_names(steps)})" if steps else ""
        ends = int((mine["state"] == "collapsed").sum())
        chance = format_percent_interval(row["low"], row["high"], 0)
        text = (
            f"our alarm fired in {int(row['collapsed'])} of {pluralise(int(row['runs']), 'run')}{when}, so P(collapse) is"
            f" in {chance}; at the end {ends} of {len(mine)} were collapsed:"
            f" {group_by_seed((int(seed), _describe_worst(tables, arm, int(seed))) for seed in mine['seed'])}."
        )
        points.append((arm, text))
    if not points:
        text = "No arm collapsed, neither by the alarm nor by the finished models’ intervals."
        return Finding("What collapsed", text)
    after = (
        "Collapsed at the end: the lower bound of the largest share exceeds three times the even share (of two slots"
        " 83%, of three 78%). Intervals:"
        f" {spec.confidence:.0%}, Wilson’s for P(collapse), a bootstrap of documents for shares."
    )
    whole = table["collapsed"] == table["runs"]
    every = join_names(arm for arm, _ in points if whole[arm])
    some = join_names(arm for arm, _ in points if not whole[arm])
    text = f"By our alarm, in every run: {every}. In some runs, or only by the end: {some}."
    return Finding("What collapsed", text, points, after)


def describe_stable_arms(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Which arms did not collapse, and what so few runs can say about it."""
    held = {arm: mine for arm, mine in _runs_with_selectors(tables, spec).items() if not _has_collapsed(mine)}
    if not held:
        return None
    runs = pd.concat(held.values())
    worst = runs.loc[runs["max_share"].idxmax()]
    table = tables["collapse"].set_index("ablation")["high"]
    reach = float(table[[arm for arm in held if arm in table.index]].max())
    names = join_names(held)
    text = (
        f"{names[0].upper()}{names[1:]}: none of their {pluralise(len(runs), 'run')}. The most uneven of them is"
        f" {plain_name(str(worst['ablation']))}, where {_describe_worst(tables, str(worst['ablation']), int(worst['seed']))} (seed"
        f" {worst['seed']}). With so few runs an arm, P(collapse) of each may still be as high as {format_percent(reach, 0)}."
    )
    return Finding("What did not", text)


def describe_controls(tables: Tables, spec: ReportSpec) -> Finding:
    """How much of the domain selectors that never learned know."""
    about = "What a selector has that never learned"
    routed = _runs_with_selectors(tables, spec)
    present = [arm for arm in spec.controls if arm in routed]
    if not present:
        text = "Without a control that never learns, what is learned cannot be told from what any selector has."
        return Finding(about, text)
    told = [f"{plain_name(arm)} {format_number(float(routed[arm]['information_bits'].mean()))} bits" for arm in present]
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & full["ablation"].isin(present)]
    level = 1 - spec.confidence
    significant = int((full["q_value"] <= level).sum())
    beyond = f"beyond the permutation null (q ≤ {level:.2f})"
    text = f"Mutual information of choice and domain: {join_names(told)}. "
    if significant:
        text += f"In {significant} of {pluralise(len(full), 'selector')} that is {beyond}, "
        text += "so a small p-value alone says nothing about learning."
    else:
        text += f"In none of {pluralise(len(full), 'selector')} is that {beyond}."
    return Finding(about, text)


def describe_learning(tables: Tables, spec: ReportSpec) -> Finding | None:
    """What the other selectors have beyond the controls, and where it cannot be told."""
    routed = {arm: mine for arm, mine in _runs_with_selectors(tables, spec).items() if arm not in spec.controls}
    if not routed or not any(control in set(tables["runs"]["ablation"]) for control in spec.controls):
        return None
    # a control's selectors are compared with those of the same place alone
    alone = [arm for arm, mine in routed.items() if mine["excess_information_bits"].isna().all()]
    routed = {arm: mine for arm, mine in routed.items() if arm not in alone}
    sure = [arm for arm, mine in routed.items() if (mine["excess_low_bits"] > 0).all()]
    text = (
        f"More than the controls’ mean, in every seed: {join_names(sure)}." if sure else "In no arm more in every seed."
    )
    unsure = [arm for arm in routed if arm not in sure]
    text += f" Not in every seed: {join_names(unsure)}." if unsure else ""
    text += f" No control of this study has selectors like those of {join_names(alone)}." if alone else ""
    points = [(arm, _describe_excess(mine)) for arm, mine in routed.items()]
    after = f"Intervals: {spec.confidence:.0%}, a paired bootstrap of documents, so of these models and no others."
    total = routed.get(spec.reference)
    if total is not None and float(total["information_bits"].mean()) > 0:
        share = 1 - float(total["excess_information_bits"].mean()) / float(total["information_bits"].mean())
        after = f"Of what {plain_name(spec.reference)} knows of the domain, the controls have {format_percent(share, 0)}. {after}"
    return Finding("What learning added", text, points, after)


def _describe_excess(mine: pd.DataFrame) -> str:
    bounds = group_by_seed(
        (int(row.seed), format_interval(row.excess_low_bits, row.excess_high_bits, sign=True))
        for row in mine.itertuples()
    )
    return (
        f"{format_number(float(mine['information_bits'].mean()))} bits,"
        f" {format_number(float(mine['excess_information_bits'].mean()), sign=True)} beyond the controls: {bounds}."
    )


def describe_losses(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Which arms end with another loss than the reference's, paired by seed."""
    table = tables["comparisons"]
    other = incomparable(spec.arms, spec.reference)
    rows = table[(table["statistic"] == "loss") & ~table["ablation"].isin(other)]
    if rows.empty:
        return None
    routed = _runs_with_selectors(tables, spec)
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "not told apart": []}
    points = []
    for row in rows.itertuples():
        side = "higher" if row.low > 0 else "lower" if row.high < 0 else "not told apart"
        sides[side].append(str(row.ablation))
        mark = ", collapsed" if row.ablation in routed and _has_collapsed(routed[row.ablation]) else ""
        change = f"{format_number(row.difference, sign=True)} {format_interval(row.low, row.high, sign=True)}"
        points.append((str(row.ablation), f"{change}, {side}{mark}."))
    told = "; ".join(f"{side}: {join_names(arms)}" for side, arms in sides.items() if arms)
    text = f"Test loss in nats per token minus that of {plain_name(spec.reference)}, paired by seed; {told}."
    after = (
        f"Intervals: {spec.confidence:.0%}, over {pluralise(len(spec.seeds), 'seed')}. One that holds zero does not show"
        " that there is no difference."
    )
    left = [arm for arm in other if arm in set(table["ablation"])]
    if left:
        after += f" Left out, since a bound is no likelihood, nor is a loss that looks ahead: {join_names(left)}."
    return Finding("What it did to the loss", text, points, after)


def describe_published(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Whether what was predicted of each arm that does as a system's authors released it came true."""
    arms = [arm.name for arm in spec.arms if arm.published]
    if not arms:
        return None
    came = {"supported": "it happened", "refuted": "it did not happen", "undecided": "these runs cannot tell"}
    points = []
    for row in tables["hypotheses"].itertuples():
        if row.arm in arms:
            change = f"{format_number(row.difference, sign=True)} {format_interval(row.low, row.high, sign=True)}"
            points.append((str(row.arm), f"{row.statement}: {came[row.verdict]} ({change})."))
    count = {verdict: sum(words in text for _, text in points) for verdict, words in came.items()}
    follow = "follows" if len(arms) == 1 else "follow"
    text = (
        f"{pluralise(len(points), 'prediction')} of {pluralise(len(arms), 'arm')} that {follow} released code:"
        f" {count['supported']} happened, {count['refuted']} did not, {count['undecided']} cannot be told."
    )
    return Finding("As published", text, points)


def describe_predictions(tables: Tables) -> Finding | None:
    """How the predictions fared."""
    verdicts = tables["hypotheses"]["verdict"].value_counts()
    total = int(verdicts.sum())
    if not total:
        return None
    told = [f"{int(verdicts.get(verdict, 0))} {verdict}" for verdict in ("supported", "refuted", "undecided")]
    text = f"Of {pluralise(total, 'prediction')} written down before the runs: {join_names(told)}."
    return Finding("The predictions", text)
