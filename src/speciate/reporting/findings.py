"""Sentences that answer the study's question from its tables: what collapsed, what was learned, and at what loss.

Each sentence gives its interval, and says so where the interval decides nothing.
"""

import pandas as pd

from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.collapse_findings import describe_collapse, describe_stable_arms
from speciate.reporting.finding import (
    Finding,
    Tables,
    group_by_seed,
    has_collapsed,
    runs_with_selectors,
    selector_place,
    short_path,
    verdicts_by_arm,
)
from speciate.reporting.formats import (
    format_interval,
    format_number,
    format_percent,
    join_names,
    plain_name,
    pluralise,
)


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


def describe_controls(tables: Tables, spec: ReportSpec) -> Finding:
    """Describe how much selectors that never learned know about the domain."""
    about = "What unlearned selectors know"
    routed = runs_with_selectors(tables, spec)
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
    routed = {arm: runs for arm, runs in runs_with_selectors(tables, spec).items() if arm not in spec.controls}
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
    routed = runs_with_selectors(tables, spec)
    predicted = verdicts_by_arm(tables)
    sides: dict[str, list[str]] = {"lower": [], "higher": [], "not told apart": []}
    points = []
    for row in rows.itertuples():
        side = "higher" if row.low > 0 else "lower" if row.high < 0 else "not told apart"
        sides[side].append(str(row.ablation))
        mark = ", collapsed" if row.ablation in routed and has_collapsed(routed[row.ablation], spec) else ""
        change = f"{format_number(row.difference, sign=True)} {format_interval(row.low, row.high, sign=True)}"
        verdict = predicted.get(("loss", str(row.ablation), spec.reference), "")
        points.append((str(row.ablation), f"{change}, {side}{mark}{f'; prediction {verdict}' if verdict else ''}."))
    summary = "; ".join(f"{side}: {join_names(arms)}" for side, arms in sides.items() if arms)
    text = (
        f"Test loss in nats per token minus that of {plain_name(spec.reference)}, paired by seed."
        f" {summary[0].upper()}{summary[1:]}."
    )
    after = (
        f"Intervals: {spec.confidence:.0%}, over {pluralise(len(spec.seeds), 'seed')}. Not told apart: the interval"
        " contains zero, which does not show that there is no difference. A prediction has a margin, so its verdict may"
        " be another than that of the sign."
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
