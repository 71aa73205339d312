"""Build the report's tables of interventions: what each selector's choice is worth, and who needs its slots."""

import math

import pandas as pd

from speciate.analysis.statistics import paired_t
from speciate.config.stage_specs import ReportSpec
from speciate.reporting.finding import Tables, short_path
from speciate.reporting.formats import (
    Table,
    format_interval,
    format_number,
    make_table,
    plain_name,
)

ALL = "all"
"""The domain of table `interventions` that stands for the mean over domains."""


def effect_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return tables of what it costs to override each selector, and of what its slots are needed for."""
    return [table for table in (_cost_table(tables, spec), _need_table(tables, spec)) if table.rows]


def agreement_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of how alike the runs divide the same tokens; nothing where no pair of runs does."""
    pairs = tables["agreement"]
    rows = []
    for arm in spec.arms:
        of_arm = pairs[pairs["ablation"] == arm.name].sort_values(["layer", "selector"], kind="stable")
        for selector, of_selector in of_arm.groupby("selector", sort=False):
            same = of_selector["other_ablation"] == arm.name
            seeds, reference = (format_number(float(of_selector.loc[kind, "ami"].mean())) for kind in (same, ~same))
            rows.append([plain_name(arm.name), short_path(str(selector)), seeds, reference])
    note = (
        "Adjusted mutual information of how two runs divide the probe set’s tokens among slots: 0 by chance, 1 where"
        " they are the same, whatever the slots are called. Means over pairs of seeds, and over the seeds with the"
        " reference, whose runs begin with the same weights."
    )
    numbers = ["between seeds", f"with {plain_name(spec.reference)}"]
    title = "Do runs divide the tokens alike?"
    return [make_table(title, ["arm", "selector"], numbers, rows, note=note)] if rows else []


def _by_selector(tables: Tables, spec: ReportSpec) -> list[tuple[str, str, pd.DataFrame]]:
    """Return (arm, selector, its rows of table `effects`), in the order of the study and of depth."""
    effects = tables["effects"]
    parts = []
    for arm in spec.arms:
        of_arm = effects[effects["ablation"] == arm.name].sort_values(["layer", "selector"], kind="stable")
        parts += [(arm.name, str(path), rows) for path, rows in of_arm.groupby("selector", sort=False)]
    return parts


def _cost_table(tables: Tables, spec: ReportSpec) -> Table:
    rows = []
    for arm, selector, of_selector in _by_selector(tables, spec):
        names = ("in_domain", "random", "top", "kept_loaded", "kept_lifted", "kept_random")
        costs = [format_number(float(of_selector[f"{name}_nats"].mean())) for name in names]
        latest = _mean_cost(tables, arm, selector, "latest_keys")
        bounds = format_interval(
            float(of_selector["matched_low_nats"].min()), float(of_selector["matched_high_nats"].max())
        )
        uses = [str(int((of_selector["use"] == use).sum())) for use in ("used", "idle")]
        matched = format_number(float(of_selector["matched_nats"].mean()))
        rows.append([plain_name(arm), short_path(selector), matched, bounds, *costs, format_number(latest), *uses])
    numbers = ["load-matched", "intervals", "within domains", "uniform", "top expert"]
    numbers += ["half kept: loaded", "lifted", "random", "latest keys", "used", "idle"]
    note = (
        "What the loss rises by, in nats per token, where a selector’s choice is replaced: means over seeds. Intervals:"
        f" from the lowest lower bound to the highest upper bound of the seeds’ {spec.confidence:.0%} document"
        f" bootstraps. Used and idle: in how many runs the cost is above the margin of {spec.margin:g} nats, or within"
        " it, by the whole interval. Of an importance the nats are those of the masked tokens, which become others."
    )
    return make_table("What replacing the choice costs", ["arm", "selector"], numbers, rows, note=note)


def _mean_cost(tables: Tables, arm: str, selector: str, intervention: str) -> float:
    rows = tables["interventions"]
    of_arm = (rows["ablation"] == arm) & (rows["selector"] == selector)
    of_kind = (rows["intervention"] == intervention) & (rows["domain"] == ALL)
    return float(rows.loc[of_arm & of_kind, "cost_nats"].mean())


def _need_table(tables: Tables, spec: ReportSpec) -> Table:
    rows = []
    names = ("need_correlation", "selectivity_nats")
    for arm, selector, of_selector in _by_selector(tables, spec):
        if of_selector["need_correlation"].notna().any():
            correlation, selectivity = (format_number(float(of_selector[name].mean()), sign=True) for name in names)
            excess = paired_t(of_selector["selectivity_excess_nats"].to_numpy(dtype=float), spec.confidence)
            bounds = float(of_selector["selectivity_low_nats"].min()), float(of_selector["selectivity_high_nats"].max())
            shown = format_interval(*bounds, sign=True)
            beyond = format_number(excess.estimate, sign=True)
            if not math.isnan(excess.low):
                beyond += f" {format_interval(excess.low, excess.high, sign=True)}"
            rows.append([plain_name(arm), short_path(selector), correlation, selectivity, shown, beyond])
    note = (
        "Means over seeds. Need: what a domain’s loss rises by when one slot is masked and its tokens go to their next"
        " best, minus the same for as many random tokens. Intervals: from the lowest lower bound to the highest upper"
        f" bound of the seeds’ {spec.confidence:.0%} document bootstraps. Over the controls: paired by seed, with"
        " Student’s interval over seeds."
    )
    numbers = ["lift against need (Spearman)", "selectivity, nats", "intervals", "over the controls"]
    return make_table("Does a domain need the slots that it prefers?", ["arm", "selector"], numbers, rows, note=note)
