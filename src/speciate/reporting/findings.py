"""Sentences that answer the study's question from its tables: what collapsed, what was learned, and at what loss.

Each sentence gives its interval, and says so where the interval decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.formats import (
    format_interval,
    format_number,
    format_percent,
    format_percent_interval,
    join_names,
    plain_name,
    pluralise,
)

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


def findings(tables: Tables, spec: ReportSpec) -> list[Finding]:
    """Return the study's answer, part by part."""
    parts = [
        describe_collapse(tables, spec),
        describe_stable_arms(tables, spec),
        describe_controls(tables, spec),
        describe_learning(tables, spec),
        describe_use(tables, spec),
        describe_losses(tables, spec),
        describe_published(tables, spec),
        describe_predictions(tables),
    ]
    return [part for part in parts if part is not None]


def missing_runs(tables: Tables, spec: ReportSpec) -> list[tuple[str, int, str]]:
    """Return the runs of the study that the tables lack: arm, seed, and the reason, where it is known."""
    runs = tables["runs"]
    reason = tables["missing"].set_index(["ablation", "seed"])["reason"].fillna("")
    present = set(zip(runs["ablation"], runs["seed"], strict=True))
    runs_of_study = [(arm.name, seed) for arm in spec.arms for seed in spec.seeds]
    return [(*key, str(reason.get(key, ""))) for key in runs_of_study if key not in present]


def _runs_with_selectors(tables: Tables, spec: ReportSpec) -> dict[str, pd.DataFrame]:
    """Return the runs of every arm that has selectors."""
    runs = tables["runs"]
    routed = runs[runs["num_selectors"] > 0]
    by_arm = {arm.name: routed[routed["ablation"] == arm.name].sort_values("seed") for arm in spec.arms}
    return {arm: arm_runs for arm, arm_runs in by_arm.items() if len(arm_runs)}


def _has_collapsed(arm_runs: pd.DataFrame, spec: ReportSpec) -> bool:
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


def _describe_worst(tables: Tables, arm: str, seed: int) -> str:
    """Return, for instance, '80.1% [78.0%, 81.2%] of the tokens go to one of the 8 slots of layer 1 (limit 50%)'."""
    row = worst_selector(tables, arm, seed)
    if row is None:
        return "not measured"
    bounds = format_percent_interval(float(row["max_share_low"]), float(row["max_share_high"]))
    # with k experts per token, a share of 1/k means every token
    chosen = round(float(row["num_chosen"]))
    what = "tokens" if chosen == 1 else f"choices ({chosen} per token)"
    # a load may be within the limit of its largest share, and yet leave too few slots in use
    few = ""
    if row["effective_experts"] < row["effective_experts_limit"]:
        effective, fewest = format_number(float(row["effective_experts"]), 1), row["effective_experts_limit"]
        few = f", and {effective} are used in effect (limit {format_number(float(fewest), 1)})"
    where = f"layer {row['layer']}" if row["layer"] >= 0 else f"selector {selector_place(row)}"
    return (
        f"{format_percent(float(row['max_share']))} {bounds} of the {what} go to one of the {row['num_slots']} slots"
        f" of {where}, where the limit is {format_percent(float(row['max_share_limit']), 0)}{few}"
    )


def describe_collapse(tables: Tables, spec: ReportSpec) -> Finding:
    """Describe which arms collapsed: in how many runs, when, and how much one expert has at the end."""
    table = tables["collapse"].set_index("ablation")
    points = []
    for arm, arm_runs in _runs_with_selectors(tables, spec).items():
        if not _has_collapsed(arm_runs, spec):
            continue
        row = table.loc[arm]
        steps = [f"{step:.0f}" for step in sorted(arm_runs["alarm_step"].dropna().unique())]
        when = f" ({'step' if len(steps) == 1 else 'steps'} {join_names(steps)})" if steps else ""
        num_collapsed = int((arm_runs["state"] == "collapsed").sum())
        worst = ((int(seed), _describe_worst(tables, arm, int(seed))) for seed in arm_runs["seed"])
        chance = format_percent_interval(row["low"], row["high"], 0)
        text = (
            f"the run’s alarm fired in {int(row['collapsed'])} of {pluralise(int(row['runs']), 'run')}{when}, so"
            f" P(collapse) lies in {chance}; at the end {num_collapsed} of {len(arm_runs)} had collapsed:"
            f" {group_by_seed(worst)}."
        )
        points.append((arm, text))
    if not points:
        text = "No arm collapsed, neither by our alarm nor by the intervals of the finished models."
        return Finding("What collapsed", text)
    after = (
        "A run has collapsed at the end where, beyond the bounds, a selector’s largest share exceeds its limit"
        " (E^(−1/3) k^(−2/3), half of the tokens for one of eight experts) or its effective experts are fewer than half"
        f" of all, and it learned to be so. Intervals: {spec.confidence:.0%}; Wilson’s for P(collapse), a bootstrap"
        " over documents for shares."
    )
    in_every_run = table["collapsed"] == table["runs"]
    always = [arm for arm, _ in points if in_every_run[arm]]
    sometimes = [arm for arm, _ in points if not in_every_run[arm]]
    text = (
        f"Our alarm fired in every run of {join_names(always)}."
        if always
        else "In no arm did our alarm fire in every run."
    )
    text += f" Collapsed in some runs, or only at the end: {join_names(sometimes)}." if sometimes else ""
    return Finding("What collapsed", text, points, after)


def describe_stable_arms(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Describe which arms did not collapse, and how little so few runs can say about it."""
    routed = _runs_with_selectors(tables, spec)
    stable = {arm: arm_runs for arm, arm_runs in routed.items() if not _has_collapsed(arm_runs, spec)}
    if not stable:
        return None
    runs = pd.concat(stable.values())
    worst = runs.loc[runs["unevenness"].idxmax()]
    arm, seed = str(worst["ablation"]), int(worst["seed"])
    table = tables["collapse"].set_index("ablation")["high"]
    learned = [name for name in stable if name not in spec.controls] or list(stable)
    highest = float(table[[name for name in learned if name in table.index]].max())
    names = join_names(stable)
    text = (
        f"{names[0].upper()}{names[1:]}: none of their {pluralise(len(runs), 'run')} collapsed. The most uneven"
        f" is a run of {plain_name(arm)}, where {_describe_worst(tables, arm, seed)} (seed {seed}). With so few runs"
        f" per arm, P(collapse) of each may still be as high as {format_percent(highest, 0)}.{_describe_uneven(runs)}"
    )
    return Finding("What did not collapse", text)


def _describe_uneven(runs: pd.DataFrame) -> str:
    """Return a sentence on runs that are, or were, beyond the limits without having learned to be."""
    arms = list(dict.fromkeys(runs.loc[(runs["state"] == "uneven") | runs["alarm_step"].notna(), "ablation"]))
    return (
        f" As uneven as a collapsed run, at the end or at the alarm, but not by learning: {join_names(arms)}."
        " A control never learns, and a selector may be uneven before the first step."
        if arms
        else ""
    )


def describe_controls(tables: Tables, spec: ReportSpec) -> Finding:
    """Describe how much selectors that never learned know about the domain."""
    about = "What unlearned selectors know"
    routed = _runs_with_selectors(tables, spec)
    present = [arm for arm in spec.controls if arm in routed]
    if not present:
        text = (
            "The study has no control that never learns, so what was learned cannot be told from what any selector has."
        )
        return Finding(about, text)
    values = [
        f"{plain_name(arm)} {format_number(float(routed[arm]['information_bits'].mean()))} bits" for arm in present
    ]
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & full["ablation"].isin(present)]
    level = 1 - spec.confidence
    significant = int((full["q_value"] <= level).sum())
    null = f"what chance gives (q ≤ {level:.2f})"
    text = f"Mutual information between choice and domain: {join_names(values)}. "
    if significant:
        text += f"In {significant} of {pluralise(len(full), 'selector')} it exceeds {null}, "
        text += "so a small p-value alone says nothing about learning."
    else:
        text += f"In none of {pluralise(len(full), 'selector')} does it exceed {null}."
    return Finding(about, text)


def describe_learning(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Describe what the other selectors know beyond the controls, and where that cannot be told."""
    routed = {arm: runs for arm, runs in _runs_with_selectors(tables, spec).items() if arm not in spec.controls}
    if not routed or not any(control in set(tables["runs"]["ablation"]) for control in spec.controls):
        return None
    # a control's selectors are compared only with selectors at the same place
    without_control = [arm for arm, runs in routed.items() if runs["excess_information_bits"].isna().all()]
    routed = {arm: runs for arm, runs in routed.items() if arm not in without_control}
    sure = [arm for arm, runs in routed.items() if (runs["excess_low_bits"] > 0).all()]
    unsure = [arm for arm in routed if arm not in sure]
    text = f"Above the controls’ mean in every seed: {join_names(sure)}."
    text += f" Not in every seed: {join_names(unsure)}." if unsure else ""
    if without_control:
        text += f" No control of this study has selectors like those of {join_names(without_control)}."
    points = [(arm, _describe_excess(runs)) for arm, runs in routed.items()]
    after = (
        f"Intervals: {spec.confidence:.0%}, from a paired bootstrap over documents; they hold for these models and no"
        " others."
    )
    reference = routed.get(spec.reference)
    if reference is not None and float(reference["information_bits"].mean()) > 0:
        share = 1 - float(reference["excess_information_bits"].mean()) / float(reference["information_bits"].mean())
        name = plain_name(spec.reference)
        after = f"Of what {name} knows about the domain, the controls know {format_percent(share, 0)}. {after}"
    return Finding("What learning added", text, points, after)


def _describe_excess(runs: pd.DataFrame) -> str:
    bounds = group_by_seed(
        (int(row.seed), format_interval(row.excess_low_bits, row.excess_high_bits, sign=True))
        for row in runs.itertuples()
    )
    return (
        f"{format_number(float(runs['information_bits'].mean()))} bits,"
        f" {format_number(float(runs['excess_information_bits'].mean()), sign=True)} over the controls: {bounds}."
    )


def describe_use(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Describe for which arms the loss depends on what their selectors choose."""
    effects = tables["effects"]
    if effects.empty:
        return None
    count = effects["use"].value_counts()
    used, idle = (int(count.get(use, 0)) for use in ("used", "idle"))
    text = (
        f"Random choice of the same load costs more than {format_number(spec.margin)} nats per token in {used} of"
        f" {pluralise(len(effects), 'selector')}, and makes no difference of that size in {idle}: these choose, and it"
        " does not matter."
    )
    points = []
    for arm in spec.arms:
        of_arm = effects[effects["ablation"] == arm.name]
        alone = of_arm.groupby(["seed", "layer"])["selector"].nunique().max() == 1
        costs = [
            f"{selector_place(rows.iloc[0]) if alone else short_path(str(path))}:"
            f" {format_number(float(rows['matched_nats'].mean()))}"
            for (_, path), rows in of_arm.groupby(["layer", "selector"], sort=True)
        ]
        if costs:
            points.append((arm.name, f"nats by layer, means over seeds: {'; '.join(costs)}."))
    after = (
        "A cost is what this model loses, which was trained with its selector. What another would lose, arms without"
        " that selector tell."
    )
    return Finding("What the choices are worth", text, points, after)


def describe_losses(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Describe which arms end with a loss that differs from the reference's, paired by seed."""
    table = tables["comparisons"]
    other = incomparable(spec.arms, spec.reference)
    rows = table[(table["statistic"] == "loss") & ~table["ablation"].isin(other)]
    if rows.empty:
        return None
    routed = _runs_with_selectors(tables, spec)
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "undecided": []}
    points = []
    for row in rows.itertuples():
        side = "higher" if row.low > 0 else "lower" if row.high < 0 else "undecided"
        sides[side].append(str(row.ablation))
        mark = ", collapsed" if row.ablation in routed and _has_collapsed(routed[row.ablation], spec) else ""
        change = f"{format_number(row.difference, sign=True)} {format_interval(row.low, row.high, sign=True)}"
        points.append((str(row.ablation), f"{change}, {side}{mark}."))
    summary = "; ".join(f"{side}: {join_names(arms)}" for side, arms in sides.items() if arms)
    text = (
        f"Test loss in nats per token minus that of {plain_name(spec.reference)}, paired by seed."
        f" {summary[0].upper()}{summary[1:]}."
    )
    after = (
        f"Intervals: {spec.confidence:.0%}, over {pluralise(len(spec.seeds), 'seed')}. Undecided: the interval contains"
        " zero, which does not show that there is no difference."
    )
    omitted = [arm for arm in other if arm in set(table["ablation"])]
    if omitted:
        after += (
            " Left out, because a bound is not a likelihood, and neither is a loss that looks ahead:"
            f" {join_names(omitted)}."
        )
    return Finding("What it did to the loss", text, points, after)


def describe_published(tables: Tables, spec: ReportSpec) -> Finding | None:
    """Describe which predictions came true about the arms that follow a system's released code."""
    arms = [arm.name for arm in spec.arms if arm.published]
    if not arms:
        return None
    outcomes = {"supported": "it happened", "refuted": "it did not happen", "undecided": "these runs cannot tell"}
    points = []
    for row in tables["hypotheses"].itertuples():
        if row.arm in arms:
            change = f"{format_number(row.difference, sign=True)} {format_interval(row.low, row.high, sign=True)}"
            points.append((str(row.arm), f"{row.statement}: {outcomes[row.verdict]} ({change})."))
    count = {verdict: sum(words in text for _, text in points) for verdict, words in outcomes.items()}
    follow = "follows" if len(arms) == 1 else "follow"
    text = (
        f"{pluralise(len(points), 'prediction')} about {pluralise(len(arms), 'arm')} that {follow} released code:"
        f" {count['supported']} happened, {count['refuted']} did not, {count['undecided']} cannot be decided."
    )
    return Finding("As published", text, points)


def describe_predictions(tables: Tables) -> Finding | None:
    """Describe how the predictions fared."""
    verdicts = tables["hypotheses"]["verdict"].value_counts()
    total = int(verdicts.sum())
    if not total:
        return None
    counts = [f"{int(verdicts.get(verdict, 0))} {verdict}" for verdict in ("supported", "refuted", "undecided")]
    text = f"Of {pluralise(total, 'prediction')} written down before the runs: {join_names(counts)}."
    return Finding("The predictions", text)
