"""The small tables behind each figure of the report, and those that stand alone."""

from collections.abc import Callable, Mapping

import pandas as pd

from speciate.config.contracts.statistics import LOAD, Statistic
from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.answer import Tables, place, short, worst_selector
from speciate.reporting.cells import (
    NOTHING,
    Table,
    fixed,
    interval,
    is_missing,
    p_value,
    percent,
    percents,
    spoken,
    table,
    whole,
)

COMPARED = {
    "loss": "Test loss, nats",
    "bits_per_byte": "Bits per byte",
    "max_share": "Largest share",
    "excess_information_bits": "Excess I(E;D), bits",
}


def _runs(tables: Tables, spec: ReportSpec, routed: bool = False) -> list[pd.Series]:
    """The runs in the study's order; with `routed`, only those with selectors."""
    order = {arm.name: index for index, arm in enumerate(spec.arms)}
    runs = tables["runs"]
    runs = runs[runs["num_selectors"] > 0] if routed else runs
    ranked = runs.assign(_order=runs["ablation"].map(order)).sort_values(["_order", "seed"], kind="stable")
    return [row for _, row in ranked.iterrows()]


def arms(tables: Tables, spec: ReportSpec) -> Table:
    """What each arm is, how big, and whether all its runs are there."""
    runs = tables["runs"]
    rows = []
    for arm in spec.arms:
        mine = runs[runs["ablation"] == arm.name]
        role = {spec.reference: "reference"}.get(arm.name, "control" if arm.name in spec.controls else "")
        marks = (("as published", arm.published), ("looks ahead", arm.leaks), ("loss is a bound", arm.bound))
        role = ", ".join([*filter(None, [role]), *(mark for mark, holds in marks if holds)])
        sizes = [float(mine[name].mean()) for name in ("parameters_total", "parameters_active", "train_tokens")]
        done = f"{len(mine)} of {len(spec.seeds)}"
        rows.append([spoken(arm.name), arm.about, role, done, *(whole(value) for value in sizes)])
    numbers = ["runs", "parameters", "active a token", "training tokens"]
    return table("The arms", ["arm", "what it is", "role"], numbers, rows)


def hypotheses(tables: Tables, spec: ReportSpec) -> list[dict[str, str]]:
    """Each prediction with its verdict: statement, prediction, measured, verdict."""
    found = []
    rows = {str(row["name"]): row for _, row in tables["hypotheses"].iterrows()}
    for name in spec.hypotheses:
        if name not in rows:
            blank = dict.fromkeys(("statement", "prediction", "measured"), "")
            found.append({**blank, "name": spoken(name), "verdict": "missing"})
            continue
        row = rows[name]
        what = f"{spoken(row['statistic'])}: {spoken(row['arm'])} − {spoken(row['reference'])}"
        margin = float(row["margin"])
        bound = {
            "greater": f"> {fixed(margin)}",
            "less": f"< {fixed(-margin)}",
            "equivalent": f"within ± {fixed(margin)}",
        }[row["direction"]]
        confidence = float(row.get("confidence", spec.confidence))
        measured = (
            f"{fixed(float(row['difference']), sign=True)} {interval(row['low'], row['high'], sign=True)},"
            f" {confidence:.0%}, {row['num_seeds']} seeds"
        )
        found.append(
            {
                "name": spoken(name),
                "statement": str(row["statement"]),
                "prediction": f"{what} {bound}",
                "measured": measured,
                "verdict": str(row["verdict"]),
            }
        )
    return found


def load(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Load of the finished models, and the three collapse rules side by side."""
    rows, verdicts = [], []
    for run in _runs(tables, spec, routed=True):
        worst = worst_selector(tables, run["ablation"], run["seed"])
        bounds = NOTHING if worst is None else percents(float(worst["max_share_low"]), float(worst["max_share_high"]))
        layer = NOTHING if worst is None else place(worst)
        who = [spoken(run["ablation"]), str(run["seed"])]
        largest, *others = [_number(run[statistic.name], statistic) for statistic in LOAD]
        numbers = [largest, bounds, layer, *others]
        rows.append([*who, *numbers])
        state = NOTHING if is_missing(run["state"]) else str(run["state"])
        steps = [_step(run[f"{rule}_step"]) for rule in ("rule_60_percent", "rule_3_over_e", "alarm")]
        verdicts.append([who[0], state, who[1], *steps])
    labels = [statistic.label for statistic in LOAD]
    numbers = ["seed", labels[0], "interval", "layer", *labels[1:]]
    note = "A row a run: the worst selector of the finished model on the whole probe set; dead and revived are sums."
    rules = ["seed", "moe-emergence: > 60%, thrice", "Kolmogorov-MoE: > 3/E, Gini, entropy", "our alarm"]
    first = "The training step at which each rule first fired in any layer; a dash: never."
    return [
        table("Load at the end", ["arm"], numbers, rows, note),
        table("Collapse: three rules", ["arm", "state at the end"], rules, verdicts, first),
        _collapse(tables),
        _by_layer(tables, spec, "Largest share by layer", "max_share", percent),
    ]


def _number(value: float, statistic: Statistic) -> str:
    """Return a statistic's value as the report prints it."""
    if statistic.unit == "share":
        return percent(value)
    return fixed(value, statistic.decimals) if statistic.decimals else whole(value)


def _step(value: float) -> str:
    return NOTHING if is_missing(float(value)) else f"{value:.0f}"


def _collapse(tables: Tables) -> Table:
    rows = [
        [spoken(row["ablation"]), whole(row["runs"]), whole(row["collapsed"]), percent(row["share"], 0)]
        + [percents(row["low"], row["high"], 0)]
        for _, row in tables["collapse"].iterrows()
    ]
    title = "Collapse: share of the runs in which our alarm fired"
    return table(title, ["arm"], ["runs", "collapsed", "share", "Wilson interval"], rows)


def _by_layer(tables: Tables, spec: ReportSpec, title: str, column: str, show: Callable[[float], str]) -> Table:
    """A row an arm, a column a layer: means over seeds, finished models, whole probe set."""
    selectors = tables["selectors"]
    full = selectors[selectors["probe"] == "full"]
    values = full[column] - full["null_mean_bits"] if column == "information_bits" else full[column]
    wide = full.assign(value=values).pivot_table(index="ablation", columns=["layer", "selector"], values="value")
    places = list(wide.columns)
    alone = len({layer for layer, _ in places}) == len(places)
    labels = [
        f"layer {layer}" if layer >= 0 and (alone or selector == f"blocks.{layer}") else short(str(selector))
        for layer, selector in places
    ]
    rows = [
        [spoken(arm.name), *(show(float(value)) for value in wide.loc[arm.name])]
        for arm in spec.arms
        if arm.name in wide.index
    ]
    return table(title, ["arm"], labels, rows, "Means over seeds; finished models, whole probe set.")


def information(tables: Tables, spec: ReportSpec) -> list[Table]:
    """I(E;D), its excess over the controls, and what of it the token's identity explains."""
    rows = []
    for run in _runs(tables, spec, routed=True):
        bounds = interval(run["excess_low_bits"], run["excess_high_bits"], sign=True)
        numbers = [fixed(run["information_bits"]), fixed(run["excess_information_bits"], sign=True), bounds]
        numbers += [fixed(run["token_explained_bits"]), fixed(run["conditional_information_bits"])]
        rows.append([spoken(run["ablation"]), str(run["seed"]), *numbers])
    numbers = ["seed", "I(E;D), bits", "excess over controls", "interval", "explained by the token", "beyond the token"]
    note = "A row a run: means over selectors, finished model, whole probe set; the null's mean is subtracted."
    layers = _by_layer(tables, spec, "I(E;D) by layer, bits", "information_bits", fixed)
    return [table("Information about the domain", ["arm"], numbers, rows, note), layers]


def commitment(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Commitment, its two parts, and the run's state."""
    rows = []
    for run in _runs(tables, spec, routed=True):
        parts = [run["commitment_nats"], run["drift_nats"], run["information_nats"]]
        state = NOTHING if is_missing(run["state"]) else str(run["state"])
        rows.append([spoken(run["ablation"]), state, str(run["seed"]), *(fixed(part) for part in parts)])
    numbers = ["seed", "commitment", "drift", "information"]
    note = "A row a run, nats: means over selectors, finished model, whole probe set."
    return [table("Commitment = drift + information", ["arm", "state at the end"], numbers, rows, note)]


def token_types(tables: Tables, spec: ReportSpec) -> list[Table]:
    """For each lexical type, how much of it goes to the one expert that gets most."""
    types = tables["types"]
    if types.empty:
        return []
    top = types.groupby(["ablation", "seed", "selector", "type"])["share"].max().groupby(["ablation", "type"]).mean()
    tokens = types.groupby("type")["tokens"].max()
    present = [arm.name for arm in spec.arms if arm.name in top.index.get_level_values(0)]
    rows = [
        [str(name), whole(float(count)), *(percent(float(top.get((arm, name), float("nan"))), 0) for arm in present)]
        for name, count in tokens.items()
    ]
    note = "Share of a type's tokens that its favourite expert gets: means over layers and seeds."
    numbers = ["tokens in the probe", *(spoken(arm) for arm in present)]
    return [table("The favourite expert of each type", ["type"], numbers, rows, note)]


def losses(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Test loss of every arm and domain, in nats per token and bits per byte; how sure bounds are; what went wrong."""
    frame = tables["losses"]
    found = []
    for column, title, run_column in (
        ("nats", "Test loss, nats per token", "loss"),
        ("bits_per_byte", "Test loss, bits per byte", "bits_per_byte"),
    ):
        wide = frame.pivot_table(index="ablation", columns="domain", values=column)
        mean = tables["runs"].groupby("ablation")[run_column].mean()
        rows = [
            [spoken(arm.name), *(fixed(float(wide.loc[arm.name].get(name, float("nan")))) for name in spec.domains)]
            + [fixed(float(mean[arm.name]))]
            for arm in spec.arms
            if arm.name in wide.index
        ]
        note = "Means over seeds; the mean gives every domain equal weight; auxiliary losses are never inside."
        found.append(table(title, ["arm"], [*(spoken(name) for name in spec.domains), "mean"], rows, note))
    return [*found, *_errors_of_bounds(tables, spec), *_odd_training(tables, spec)]


def _errors_of_bounds(tables: Tables, spec: ReportSpec) -> list[Table]:
    """How sure the losses are that are estimated; nothing where none is."""
    worst = tables["runs"].groupby("ablation")["loss_error"].max().dropna()
    rows = [[spoken(arm.name), fixed(float(worst[arm.name]))] for arm in spec.arms if arm.name in worst.index]
    note = "A bound is estimated by drawing masks: its standard error over the draws, of the run where it is largest."
    return [table("How sure the bounds are, nats per token", ["arm"], ["standard error"], rows, note)] if rows else []


def _odd_training(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Arms whose training loss jumped, or whose updates were skipped; nothing where there is none."""
    sums = tables["runs"].groupby("ablation")[["spikes", "skipped"]].sum()
    sums = sums[sums.any(axis=1)]
    rows = [
        [spoken(arm.name), *(whole(float(value)) for value in sums.loc[arm.name])]
        for arm in spec.arms
        if arm.name in sums.index
    ]
    note = (
        "Sums over seeds. A spike is a training loss more than six standard deviations above the fifty before it; an"
        " update is skipped where a gradient is not finite."
    )
    numbers = ["spikes of the loss", "skipped updates"]
    return [table("Training that was not smooth", ["arm"], numbers, rows, note)] if rows else []


def comparisons(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Arms against the reference, paired by seed; a table a statistic."""
    frame = tables["comparisons"]
    other = incomparable(spec.arms, spec.reference)
    found = []
    for statistic, title in COMPARED.items():
        of_loss = statistic in ("loss", "bits_per_byte")
        rows = [
            [spoken(row["ablation"]), whole(row["num_seeds"]), fixed(row["difference"], sign=True)]
            + [interval(row["low"], row["high"], sign=True), p_value(row["p_value"]), p_value(row["p_holm"])]
            + [fixed(row["minimum_detectable"])]
            for _, row in frame[frame["statistic"] == statistic].iterrows()
            if not (of_loss and row["ablation"] in other)
        ]
        if rows:
            numbers = ["seeds", "difference", "interval", "p", "p (Holm)", "minimum detectable"]
            found.append(table(f"{title}: arm minus {spoken(spec.reference)}", ["arm"], numbers, rows))
    return found


def measured(tables: Tables, spec: ReportSpec) -> list[Table]:
    """What modules noted beside their choices: a table a measurement, a row an arm that has it, a column a module."""
    rows = tables["measurements"]
    final = rows[(rows["probe"] == "full") & rows["at"].isna()]
    found = []
    for name, of_name in final.groupby("name"):
        wide = of_name.pivot_table(index="ablation", columns=["layer", "path"], values="value")
        places = list(wide.columns)
        told = [
            [spoken(arm.name), *(fixed(float(value)) for value in wide.loc[arm.name])]
            for arm in spec.arms
            if arm.name in wide.index
        ]
        names = [short(str(path)) for _, path in places]
        found.append(table(spoken(str(name)), ["arm"], names, told, "Means over seeds."))
    return found


BEHIND: Mapping[str, Callable[[Tables, ReportSpec], list[Table]]] = {
    "load": load,
    "information": information,
    "commitment": commitment,
    "token_types": token_types,
    "loss_load": losses,
}
"""Figure -> the tables behind it. A figure without an entry stands with its caption alone."""
