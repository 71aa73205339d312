"""Build the report's tables of single layers: when choices settle, what predicts them, what they tell, and swaps."""

from collections.abc import Iterator

import pandas as pd

from speciate.config.stage_specs import ReportSpec
from speciate.reporting.finding import Tables, short_path
from speciate.reporting.formats import Table, format_interval, format_number, format_percent, make_table, plain_name

SHARES = (0.1, 0.25, 0.5, 0.75)
"""Shares of the training after which saturation is shown."""


def by_selector(frame: pd.DataFrame, spec: ReportSpec) -> Iterator[tuple[list[str], pd.DataFrame]]:
    """Yield ([arm, selector] as the page names them, its rows), in the order of the study and of depth."""
    for arm in spec.arms:
        of_arm = frame[frame["ablation"] == arm.name].sort_values(["layer", "selector"], kind="stable")
        for path, rows in of_arm.groupby("selector", sort=False):
            yield [plain_name(arm.name), short_path(str(path))], rows


def stability_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of saturation at parts of the training, and of churn in its last quarter."""
    rows = []
    for names, of_selector in by_selector(tables["stability"], spec):
        progress = of_selector["step"] / of_selector["step"].max()
        shown = []
        for share in SHARES:
            # the last check of each seed that is not later
            until = of_selector[progress <= share].sort_values("step").groupby("seed").tail(1)
            shown.append(format_number(float(until["saturation_kappa"].mean())))
        late = of_selector[progress > SHARES[-1]]
        churn = format_percent(float(late["churn"].mean())), format_number(float(late["churn_ratio"].mean()))
        rows.append([*names, *shown, *churn])
    numbers = [f"saturation after {share:.0%}" for share in SHARES]
    numbers += [f"churn after {SHARES[-1]:.0%}", "of chance"]
    note = (
        "Saturation: agreement of a selector’s choices with its final ones, on the same tokens, corrected for the"
        " agreement that loads alone would give (Cohen’s kappa): 0 by chance, 1 where all are final. Churn: share of"
        " choices that change from one check to the next, and the same over what would change by chance. Means over"
        " seeds; a dash where all tokens have the same slot, so that there is nothing to agree about."
    )
    return [make_table("When do choices settle?", ["arm", "selector"], numbers, rows, note=note)] if rows else []


def predictor_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of how much of each selector's choice its token, the one before, and the position explain."""
    rows, kinds = [], ("token", "previous_token", "position")
    for names, of_selector in by_selector(tables["predictors"], spec):
        mean = of_selector.groupby("predictor")[["share", "null_high"]].mean()
        bound = format_percent(float(mean["null_high"].max()))
        rows.append([*names, *(format_percent(float(mean["share"].get(kind, float("nan")))) for kind in kinds), bound])
    numbers = [*(plain_name(kind) for kind in kinds), "by chance at most"]
    note = (
        "Share of the entropy of a selector’s choices that follows from the token, from the token before it in the same"
        " document, and from the position in the block, corrected for chance: 0% where choices are unrelated, 100%"
        " where they follow. Means over seeds, on the whole probe set. By chance at most: upper bound of the band of"
        f" shuffled choices ({spec.confidence:.0%}), the largest of the three."
    )
    return [make_table("What predicts a choice?", ["arm", "selector"], numbers, rows, note=note)] if rows else []


def telling_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of how well a short text's domain is told from its tokens, its selections, and both."""
    frame = tables["telling"]
    rows, length = [], int(frame.loc[frame["length"] > 0, "length"].min()) if len(frame) else 0
    for names, of_selector in by_selector(frame[frame["length"] == length], spec):
        shares = [
            format_percent(float(of_selector[f"{name}_accuracy"].mean())) for name in ("token", "selection", "both")
        ]
        gain = format_number(100 * float(of_selector["gain"].mean()), 1, sign=True)
        bounds = 100 * float(of_selector["gain_low"].min()), 100 * float(of_selector["gain_high"].max())
        rows.append([*names, *shares, gain, format_interval(*bounds, 1, sign=True)])
    note = (
        f"Share of pieces of {length} tokens whose domain a naive Bayes classifier names, learned from the other"
        " documents: from the tokens, from the selections alone, and from both, where a selection counts for what it"
        " says beyond its token. Means over seeds. Intervals: from the seeds’ lowest bound to their highest"
        f" ({spec.confidence:.0%})."
    )
    numbers = ["tokens", "selections", "both", "both − tokens, points", "intervals"]
    return [make_table("Is the domain told?", ["arm", "selector"], numbers, rows, note=note)] if rows else []


def swap_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of what other selectors cost in the place of a run's own; nothing in a study without swaps."""
    if "swaps" not in tables:
        return []
    whole = tables["swaps"][tables["swaps"]["domain"] == "all"]
    rows = []
    for (arm, path), of_selector in by_selector(whole, spec):
        of_others = of_selector.groupby(["donor", "relabelled", "other_ablation", "other_step"], sort=False)
        for (donor, relabelled, other, step), of_other in of_others:
            own = {"step": f"its own at step {step}", "seed": "another seed", "arm": plain_name(str(other))}[str(donor)]
            shown = format_number(float(of_other["cost_nats"].mean()), sign=True)
            bounds = format_interval(
                float(of_other["cost_low_nats"].min()), float(of_other["cost_high_nats"].max()), sign=True
            )
            rows.append([arm, path, own + (", slots matched" if relabelled else ""), shown, bounds])
    note = (
        "What the loss rises by, in nats per token, where another model’s selector stands in the place of a run’s own:"
        " means over seeds. Intervals: from the lowest lower bound to the highest upper bound of the seeds’"
        f" {spec.confidence:.0%} document bootstraps. Runs of a seed begin with the same weights; of another seed,"
        " slots are also matched to those that they agree with most, on the same text."
    )
    words = ["arm", "selector", "selector of"]
    return [make_table("Are selectors interchangeable?", words, ["cost", "intervals"], rows, note=note)] if rows else []
