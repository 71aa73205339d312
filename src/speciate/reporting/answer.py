"""The study's answer in sentences, made from its tables: what collapsed, what was learned, what it did to the loss.

Each sentence carries its interval, and says so where the interval decides nothing.
"""

from collections.abc import Mapping

import pandas as pd

from speciate.plan import ReportSpec
from speciate.reporting.cells import counted, fixed, interval, listed, percent, percents, spoken

Tables = Mapping[str, pd.DataFrame]


def sentences(tables: Tables, spec: ReportSpec) -> list[tuple[str, str]]:
    """The answer as (what it is about, sentences)."""
    found = [
        ("Collapse", collapse(tables, spec)),
        ("No collapse", no_collapse(tables, spec)),
        ("Without learning", controls(tables, spec)),
        ("Learned", learned(tables, spec)),
        ("Loss", loss(tables, spec)),
        ("Predictions", predictions(tables)),
    ]
    return [(about, text) for about, text in found if text]


def missing_runs(tables: Tables, spec: ReportSpec) -> list[tuple[str, int]]:
    """The runs that the study has and the tables do not."""
    runs = tables["runs"]
    there = set(zip(runs["ablation"], runs["seed"], strict=True))
    return [(arm.name, seed) for arm in spec.arms for seed in spec.seeds if (arm.name, seed) not in there]


def _routed(tables: Tables, spec: ReportSpec) -> dict[str, pd.DataFrame]:
    """The runs of every arm that has selectors."""
    runs = tables["runs"]
    routed = runs[runs["num_selectors"] > 0]
    arms = {arm.name: routed[routed["ablation"] == arm.name].sort_values("seed") for arm in spec.arms}
    return {arm: mine for arm, mine in arms.items() if len(mine)}


def _fallen(mine: pd.DataFrame) -> bool:
    """Whether any run of an arm collapsed, by the alarm or by the finished model's interval."""
    return bool((mine["state"] == "collapsed").any() or mine["alarm_step"].notna().any())


def worst_selector(tables: Tables, arm: str, seed: int) -> pd.Series | None:
    """The finished model's selector with the largest share, with that share's interval."""
    full = tables["selectors"]
    mine = full[(full["probe"] == "full") & (full["ablation"] == arm) & (full["seed"] == seed)]
    return None if mine["max_share"].isna().all() else mine.loc[mine["max_share"].idxmax()]


def _worst(tables: Tables, arm: str, seed: int) -> str:
    """'80.1 % [78.0 %, 81.2 %] of the tokens to one of 8 experts of layer 1 (seed 0)'."""
    row = worst_selector(tables, arm, seed)
    if row is None:
        return f"seed {seed}: not measured"
    bounds = percents(float(row["max_share_low"]), float(row["max_share_high"]))
    return (
        f"{percent(float(row['max_share']))} {bounds} of the tokens to one of {row['num_slots']} experts of layer"
        f" {row['layer']} in seed {seed}"
    )


def collapse(tables: Tables, spec: ReportSpec) -> str:
    """Which arms collapsed: how many runs, when, and how much one expert has at the end."""
    table = tables["collapse"].set_index("ablation")
    parts = []
    for arm, mine in _routed(tables, spec).items():
        if not _fallen(mine):
            continue
        row = table.loc[arm]
        steps = [f"{step:.0f}" for step in mine["alarm_step"].dropna()]
        when = f", first at step {' and '.join(steps)}" if steps else ""
        ends = int((mine["state"] == "collapsed").sum())
        text = (
            f"{spoken(arm)}: our alarm fired in {int(row['collapsed'])} of {counted(int(row['runs']), 'run')}{when}"
            f" (P(collapse): {spec.confidence:.0%} interval {percents(row['low'], row['high'], 0)}); collapsed at the"
            f" end in {ends} of {len(mine)}: {'; '.join(_worst(tables, arm, int(seed)) for seed in mine['seed'])}."
        )
        parts.append(text)
    limit = "Collapsed at the end means that the lower bound of the largest share exceeds three times the even share."
    return " ".join([*parts, limit]) if parts else "No arm collapsed, by the alarm or by the finished models' intervals."


def no_collapse(tables: Tables, spec: ReportSpec) -> str:
    """Which arms did not collapse, and what so few runs can say about it."""
    held = {arm: mine for arm, mine in _routed(tables, spec).items() if not _fallen(mine)}
    if not held:
        return ""
    runs = pd.concat(held.values())
    worst = runs.loc[runs["max_share"].idxmax()]
    table = tables["collapse"].set_index("ablation")["high"]
    reach = float(table[[arm for arm in held if arm in table.index]].max())
    return (
        f"{listed(held)} collapsed in none of their {counted(len(runs), 'run')}. The most uneven of them is"
        f" {spoken(str(worst['ablation']))}: {_worst(tables, str(worst['ablation']), int(worst['seed']))}. With so few"
        f" runs an arm, P(collapse) may still be as high as {percent(reach, 0)}."
    )


def controls(tables: Tables, spec: ReportSpec) -> str:
    """How much of the domain routers that never learned know."""
    routed = _routed(tables, spec)
    present = [arm for arm in spec.controls if arm in routed]
    if not present:
        return "The study has no router that does not learn, so what is learned cannot be told from what any router has."
    told = [f"{spoken(arm)} {fixed(float(routed[arm]['information_bits'].mean()))} bits" for arm in present]
    full = tables["selectors"]
    full = full[(full["probe"] == "full") & full["ablation"].isin(present)]
    significant = int((full["q_value"] <= 1 - spec.confidence).sum())
    return (
        f"Routers that never learn already tell the domain from chance: {listed(told)} of I(E;D), in"
        f" {significant} of {counted(len(full), 'selector')} beyond the permutation null (q ≤"
        f" {1 - spec.confidence:.2f}). A small p-value alone therefore says nothing about learning."
    )


def learned(tables: Tables, spec: ReportSpec) -> str:
    """What the other routers have beyond the controls, and where it cannot be told."""
    routed = {arm: mine for arm, mine in _routed(tables, spec).items() if arm not in spec.controls}
    if not routed or not any(control in set(tables["runs"]["ablation"]) for control in spec.controls):
        return ""
    sure = [arm for arm, mine in routed.items() if (mine["excess_low_bits"] > 0).all()]
    unsure = [arm for arm in routed if arm not in sure]
    parts = []
    if sure:
        told = [_excess(arm, routed[arm]) for arm in sure]
        parts.append(f"Beyond the controls' mean, by the document bootstrap of every seed: {'; '.join(told)}.")
    if unsure:
        told = [_excess(arm, routed[arm]) for arm in unsure]
        parts.append(f"Not told apart from the controls in every seed: {'; '.join(told)}.")
    total = routed.get(spec.reference)
    if total is not None and float(total["information_bits"].mean()) > 0:
        share = 1 - float(total["excess_information_bits"].mean()) / float(total["information_bits"].mean())
        parts.append(f"Of what {spoken(spec.reference)} knows of the domain, the controls have {percent(share, 0)}.")
    return " ".join(parts)


def _excess(arm: str, mine: pd.DataFrame) -> str:
    bounds = ", ".join(interval(row.excess_low_bits, row.excess_high_bits, sign=True) for row in mine.itertuples())
    return f"{spoken(arm)} {fixed(float(mine['excess_information_bits'].mean()), sign=True)} bits (by seed: {bounds})"


def loss(tables: Tables, spec: ReportSpec) -> str:
    """Which arms end with another loss than the reference's, paired by seed."""
    table = tables["comparisons"]
    rows = table[table["statistic"] == "loss"]
    if rows.empty:
        return ""
    routed = _routed(tables, spec)
    groups: dict[str, list[str]] = {"lower": [], "higher": [], "undecided": []}
    for row in rows.itertuples():
        side = "higher" if row.low > 0 else "lower" if row.high < 0 else "undecided"
        mark = " (collapsed)" if row.ablation in routed and _fallen(routed[row.ablation]) else ""
        change = f"{fixed(row.difference, sign=True)} {interval(row.low, row.high, sign=True)}"
        groups[side].append(f"{spoken(row.ablation)}{mark} {change}")
    opening = {
        "lower": "Lower",
        "higher": "Higher",
        "undecided": "Not told apart (the interval holds zero, which is not the same as no difference)",
    }
    parts = [f"{opening[side]}: {'; '.join(told)}." for side, told in groups.items() if told]
    seeds = counted(len(spec.seeds), "seed")
    return (
        f"Test loss in nats per token minus that of {spoken(spec.reference)}, paired by seed, with {spec.confidence:.0%}"
        f" intervals over {seeds}. {' '.join(parts)}"
    )


def predictions(tables: Tables) -> str:
    """How the predictions fared."""
    verdicts = tables["hypotheses"]["verdict"].value_counts()
    total = int(verdicts.sum())
    if not total:
        return ""
    told = [f"{int(verdicts.get(verdict, 0))} {verdict}" for verdict in ("supported", "refuted", "undecided")]
    return f"Of {counted(total, 'prediction')} written down before the runs: {listed(told)}."
