"""Sentences on the load: which arms collapsed, and which did not."""

import pandas as pd

from speciate.config.stage_specs import ReportSpec
from speciate.reporting.finding import (
    Finding,
    Tables,
    group_by_seed,
    has_collapsed,
    runs_with_selectors,
    selector_place,
    worst_selector,
)
from speciate.reporting.formats import (
    format_number,
    format_percent,
    format_percent_interval,
    join_names,
    plain_name,
    pluralise,
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
    for arm, arm_runs in runs_with_selectors(tables, spec).items():
        if not has_collapsed(arm_runs, spec):
            continue
        row = table.loc[arm]
        steps = [f"{step:.0f}" for step in sorted(arm_runs["alarm_step"].dropna().unique())]
        when = f" ({'step' if len(steps) == 1 else 'steps'} {join_names(steps)})" if steps else ""
        num_collapsed = int((arm_runs["state"] == "collapsed").sum())
        worst = ((int(seed), _describe_worst(tables, arm, int(seed))) for seed in arm_runs["seed"])
        chance = format_percent_interval(row["low"], row["high"], 0)
        text = (
            f"the run’s alarm fired in {int(row['collapsed'])} of {pluralise(int(row['runs']), 'run')}{when}, so"
            f" P(alarm) lies in {chance}; at the end {num_collapsed} of {len(arm_runs)} had collapsed:"
            f" {group_by_seed(worst)}."
        )
        points.append((arm, text))
    if not points:
        text = "No arm collapsed, neither by our alarm nor by the intervals of the finished models."
        return Finding("What collapsed", text)
    after = (
        "A run has collapsed at the end where, beyond the bounds, a selector’s largest share exceeds its limit"
        " (E^(−1/3) k^(−2/3), half of the tokens for one of eight experts) or its effective experts are fewer than half"
        f" of all, and it learned to be so. Intervals: {spec.confidence:.0%}; Wilson’s for P(alarm), a bootstrap"
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
    routed = runs_with_selectors(tables, spec)
    stable = {arm: arm_runs for arm, arm_runs in routed.items() if not has_collapsed(arm_runs, spec)}
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
        f" per arm, P(alarm) of each may still be as high as {format_percent(highest, 0)}.{_describe_uneven(runs)}"
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
