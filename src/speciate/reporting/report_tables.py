"""The small tables behind each figure of the report, and those that stand alone."""

from collections.abc import Callable, Mapping

import pandas as pd

from speciate.config.contracts.statistics import LOAD, Statistic
from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.findings import Tables, selector_place, short_path, worst_selector
from speciate.reporting.formats import (
    DASH,
    Table,
    format_number,
    format_interval,
    is_missing,
    format_p_value,
    format_percent,
    format_percent_interval,
    plain_name,
    make_table,
    format_count,
)

COMPARED = {
    "loss": "Test loss, nats",
    "bits_per_byte": "Bits per byte",
    "max_share": "Largest share",
    "excess_information_bits": "Excess I(E;D), bits",
}


def _ordered_runs(tables: Tables, spec: ReportSpec, routed: bool = False) -> list[pd.Series]:
    """The runs in the study's order; with `routed`, only those with selectors."""
    order = {arm.name: index for index, arm in enumerate(spec.arms)}
    runs = tables["runs"]
    runs = runs[runs["num_selectors"] > 0] if routed else runs
    ranked = runs.assign(_order=runs["ablation"].map(order)).sort_values(["_order", "seed"], kind="stable")
    return [row for _, row in ranked.iterrows()]


def arms_table(tables: Tables, spec: ReportSpec) -> Table:
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
        rows.append([plain_name(arm.name), arm.about, role, done, *(format_count(value) for value in sizes)])
    numbers = ["runs", "parameters", "active a token", "training tokens"]
    return make_table("The arms", ["arm", "what it is", "role"], numbers, rows)


def hypothesis_rows(tables: Tables, spec: ReportSpec) -> list[dict[str, str]]:
    """Each prediction with its verdict: statement, prediction, measured, verdict."""
    found = []
    rows = {str(row["name"]): row for _, row in tables["hypotheses"].iterrows()}
    for name in spec.hypotheses:
        if name not in rows:
            blank = dict.fromkeys(("statement", "prediction", "measured"), "")
            found.append({**blank, "name": plain_name(name), "verdict": "missing"})
            continue
        row = rows[name]
        what = f"{plain_name(row['statistic'])}: {plain_name(row['arm'])} − {plain_name(row['reference'])}"
        margin = float(row["margin"])
        bound = {
            "greater": f"> {format_number(margin)}",
            "less": f"< {format_number(-margin)}",
            "equivalent": f"within ± {format_number(margin)}",
        }[row["direction"]]
        confidence = float(row.get("confidence", spec.confidence))
        measured = (
            f"{format_number(float(row['difference']), sign=True)} {format_interval(row['low'], row['high'], sign=True)},"
            f" {confidence:.0%}, {row['num_seeds']} seeds"
        )
        found.append(
            {
                "name": plain_name(name),
                "statement": str(row["statement"]),
                "prediction": f"{what} {bound}",
                "measured": measured,
                "verdict": str(row["verdict"]),
            }
        )
    return found


def load_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Load of the finished models, and the three collapse rules side by side."""
    rows, verdicts = [], []
    for run in _ordered_runs(tables, spec, routed=True):
        worst = worst_selector(tables, run["ablation"], run["seed"])
        bounds = (
            DASH
            if worst is None
            else format_percent_interval(float(worst["max_share_low"]), float(worst["max_share_high"]))
        )
        layer = DASH if worst is None else selector_place(worst)
        who = [plain_name(run["ablation"]), str(run["seed"])]
        largest, *others = [_format_statistic(run[statistic.name], statistic) for statistic in LOAD]
        numbers = [largest, bounds, layer, *others]
        rows.append([*who, *numbers])
        state = DASH if is_missing(run["state"]) else str(run["state"])
        steps = [_format_step(run[f"{rule}_step"]) for rule in ("rule_60_percent", "rule_3_over_e", "alarm")]
        verdicts.append([who[0], state, who[1], *steps])
    labels = [statistic.label for statistic in LOAD]
    numbers = ["seed", labels[0], "interval", "layer", *labels[1:]]
    note = "A row a run: the worst selector of the finished model on the whole probe set; dead and revived are sums."
    rules = ["seed", "moe-emergence: > 60%, thrice", "Kolmogorov-MoE: > 3/E, Gini, entropy", "our alarm"]
    first = "The training step at which each rule first fired in any layer; a dash: never."
    return [
        make_table("Load at the end", ["arm"], numbers, rows, note),
        make_table("Collapse: three rules", ["arm", "state at the end"], rules, verdicts, first),
        _collapse_table(tables),
        _layer_table(tables, spec, "Largest share by layer", "max_share", format_percent),
    ]


def _format_statistic(value: float, statistic: Statistic) -> str:
    """Return a statistic's value as the report prints it."""
    if statistic.unit == "share":
        return format_percent(value)
    return format_number(value, statistic.decimals) if statistic.decimals else format_count(value)


def _format_step(value: float) -> str:
    return DASH if is_missing(float(value)) else f"{value:.0f}"


def _collapse_table(tables: Tables) -> Table:
    rows = [
        [
            plain_name(row["ablation"]),
            format_count(row["runs"]),
            format_count(row["collapsed"]),
            format_percent(row["share"], 0),
        ]
        + [format_percent_interval(row["low"], row["high"], 0)]
        for _, row in tables["collapse"].iterrows()
    ]
    title = "Collapse: share of the runs in which our alarm fired"
    return make_table(title, ["arm"], ["runs", "collapsed", "share", "Wilson interval"], rows)


def _layer_table(tables: Tables, spec: ReportSpec, title: str, column: str, show: Callable[[float], str]) -> Table:
    """A row an arm, a column a layer: means over seeds, finished models, whole probe set."""
    selectors = tables["selectors"]
    full = selectors[selectors["probe"] == "full"]
    values = full[column] - full["null_mean_bits"] if column == "information_bits" else full[column]
    wide = full.assign(value=values).pivot_table(index="ablation", columns=["layer", "selector"], values="value")
    places = list(wide.columns)
    alone = len({layer for layer, _ in places}) == len(places)
    labels = [
        f"layer {layer}" if layer >= 0 and (alone or selector == f"blocks.{layer}") else short_path(str(selector))
        for layer, selector in places
    ]
    rows = [
        [plain_name(arm.name), *(show(float(value)) for value in wide.loc[arm.name])]
        for arm in spec.arms
        if arm.name in wide.index
    ]
    return make_table(title, ["arm"], labels, rows, "Means over seeds; finished models, whole probe set.")


def information_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """I(E;D), its excess over the controls, and what of it the token's identity explains."""
    rows = []
    for run in _ordered_runs(tables, spec, routed=True):
        bounds = format_interval(run["excess_low_bits"], run["excess_high_bits"], sign=True)
        numbers = [
            format_number(run["information_bits"]),
            format_number(run["excess_information_bits"], sign=True),
            bounds,
        ]
        numbers += [format_number(run["token_explained_bits"]), format_number(run["conditional_information_bits"])]
        rows.append([plain_name(run["ablation"]), str(run["seed"]), *numbers])
    numbers = ["seed", "I(E;D), bits", "excess over controls", "interval", "explained by the token", "beyond the token"]
    note = "A row a run: means over selectors, finished model, whole probe set; the null's mean is subtracted."
    layers = _layer_table(tables, spec, "I(E;D) by layer, bits", "information_bits", format_number)
    return [make_table("Information about the domain", ["arm"], numbers, rows, note), layers]


def commitment_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Commitment, its two parts, and the run's state."""
    rows = []
    for run in _ordered_runs(tables, spec, routed=True):
        parts = [run["commitment_nats"], run["drift_nats"], run["information_nats"]]
        state = DASH if is_missing(run["state"]) else str(run["state"])
        rows.append([plain_name(run["ablation"]), state, str(run["seed"]), *(format_number(part) for part in parts)])
    numbers = ["seed", "commitment", "drift", "information"]
    note = "A row a run, nats: means over selectors, finished model, whole probe set."
    return [make_table("Commitment = drift + information", ["arm", "state at the end"], numbers, rows, note)]


def token_type_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """For each lexical type, how much of it goes to the one expert that gets most."""
    types = tables["types"]
    if types.empty:
        return []
    top = types.groupby(["ablation", "seed", "selector", "type"])["share"].max().groupby(["ablation", "type"]).mean()
    tokens = types.groupby("type")["tokens"].max()
    present = [arm.name for arm in spec.arms if arm.name in top.index.get_level_values(0)]
    rows = [
        [
            str(name),
            format_count(float(count)),
            *(format_percent(float(top.get((arm, name), float("nan"))), 0) for arm in present),
        ]
        for name, count in tokens.items()
    ]
    note = "Share of a type's tokens that its favourite expert gets: means over layers and seeds."
    numbers = ["tokens in the probe", *(plain_name(arm) for arm in present)]
    return [make_table("The favourite expert of each type", ["type"], numbers, rows, note)]


def loss_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
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
            [
                plain_name(arm.name),
                *(format_number(float(wide.loc[arm.name].get(name, float("nan")))) for name in spec.domains),
            ]
            + [format_number(float(mean[arm.name]))]
            for arm in spec.arms
            if arm.name in wide.index
        ]
        note = "Means over seeds; the mean gives every domain equal weight; auxiliary losses are never inside."
        found.append(make_table(title, ["arm"], [*(plain_name(name) for name in spec.domains), "mean"], rows, note))
    return [*found, *_bound_error_tables(tables, spec), *_uneven_training_tables(tables, spec)]


def _bound_error_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """How sure the losses are that are estimated; nothing where none is."""
    worst = tables["runs"].groupby("ablation")["loss_error"].max().dropna()
    rows = [
        [plain_name(arm.name), format_number(float(worst[arm.name]))] for arm in spec.arms if arm.name in worst.index
    ]
    note = "A bound is estimated by drawing masks: its standard error over the draws, of the run where it is largest."
    return (
        [make_table("How sure the bounds are, nats per token", ["arm"], ["standard error"], rows, note)] if rows else []
    )


def _uneven_training_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Arms whose training loss jumped, or whose updates were skipped; nothing where there is none."""
    sums = tables["runs"].groupby("ablation")[["spikes", "skipped"]].sum()
    sums = sums[sums.any(axis=1)]
    rows = [
        [plain_name(arm.name), *(format_count(float(value)) for value in sums.loc[arm.name])]
        for arm in spec.arms
        if arm.name in sums.index
    ]
    note = (
        "Sums over seeds. A spike is a training loss more than six standard deviations above the fifty before it; an"
        " update is skipped where a gradient is not finite."
    )
    numbers = ["spikes of the loss", "skipped updates"]
    return [make_table("Training that was not smooth", ["arm"], numbers, rows, note)] if rows else []


def comparison_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Arms against the reference, paired by seed; a table a statistic."""
    frame = tables["comparisons"]
    other = incomparable(spec.arms, spec.reference)
    found = []
    for statistic, title in COMPARED.items():
        of_loss = statistic in ("loss", "bits_per_byte")
        rows = [
            [plain_name(row["ablation"]), format_count(row["num_seeds"]), format_number(row["difference"], sign=True)]
            + [
                format_interval(row["low"], row["high"], sign=True),
                format_p_value(row["p_value"]),
                format_p_value(row["p_holm"]),
            ]
            + [format_number(row["minimum_detectable"])]
            for _, row in frame[frame["statistic"] == statistic].iterrows()
            if not (of_loss and row["ablation"] in other)
        ]
        if rows:
            numbers = ["seeds", "difference", "interval", "p", "p (Holm)", "minimum detectable"]
            found.append(make_table(f"{title}: arm minus {plain_name(spec.reference)}", ["arm"], numbers, rows))
    return found


def measurement_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """What modules noted beside their choices: a table a measurement, a row an arm that has it, a column a module."""
    rows = tables["measurements"]
    final = rows[(rows["probe"] == "full") & rows["at"].isna()]
    found = []
    for name, of_name in final.groupby("name"):
        wide = of_name.pivot_table(index="ablation", columns=["layer", "path"], values="value")
        places = list(wide.columns)
        told = [
            [plain_name(arm.name), *(format_number(float(value)) for value in wide.loc[arm.name])]
            for arm in spec.arms
            if arm.name in wide.index
        ]
        names = [short_path(str(path)) for _, path in places]
        found.append(make_table(plain_name(str(name)), ["arm"], names, told, "Means over seeds."))
    return found


TABLES_OF_FIGURE: Mapping[str, Callable[[Tables, ReportSpec], list[Table]]] = {
    "load": load_tables,
    "information": information_tables,
    "commitment": commitment_tables,
    "token_types": token_type_tables,
    "loss_load": loss_tables,
}
"""Figure -> the tables behind it. A figure without an entry stands with its caption alone."""
