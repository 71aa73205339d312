"""Build the report's small tables: those behind each figure, and those that stand alone."""

import math
from collections.abc import Callable, Mapping

import pandas as pd

from speciate.config.contracts.statistics import BY_NAME, LOAD, RULES, STATISTICS, TYPE_SHARE, Statistic
from speciate.config.stage_specs import ReportSpec, incomparable
from speciate.reporting.effect_tables import agreement_tables, effect_tables
from speciate.reporting.finding import Tables, selector_place, short_path, verdicts_by_arm, worst_selector
from speciate.reporting.formats import (
    DASH,
    Table,
    format_count,
    format_interval,
    format_number,
    format_p_value,
    format_percent,
    format_percent_interval,
    is_missing,
    join_names,
    make_table,
    plain_name,
    pluralise,
)
from speciate.reporting.layer_tables import predictor_tables, stability_tables, swap_tables, telling_tables

COMPARED = ("loss", "bits_per_byte", "max_share", "excess_information_bits", "matched_nats")
"""The statistics with a table of comparisons in the report; all are in `comparisons.csv`."""


def _ordered_runs(tables: Tables, spec: ReportSpec, routed: bool = False) -> list[pd.Series]:
    """Return the runs in the study's order; with `routed`, only those with selectors."""
    order = {arm.name: index for index, arm in enumerate(spec.arms)}
    runs = tables["runs"]
    runs = runs[runs["num_selectors"] > 0] if routed else runs
    ranked = runs.assign(_order=runs["ablation"].map(order)).sort_values(["_order", "seed"], kind="stable")
    return [row for _, row in ranked.iterrows()]


def arms_table(tables: Tables, spec: ReportSpec) -> Table:
    """Return a table of the arms: what each is, how large it is, and how many of its runs exist."""
    runs = tables["runs"]
    rows = []
    for arm in spec.arms:
        arm_runs = runs[runs["ablation"] == arm.name]
        role = {spec.reference: "reference"}.get(arm.name, "control" if arm.name in spec.controls else "")
        marks = (("as published", arm.published), ("looks ahead", arm.leaks), ("loss is a bound", arm.bound))
        role = ", ".join([*filter(None, [role]), *(mark for mark, holds in marks if holds)])
        sizes = [float(arm_runs[name].mean()) for name in ("parameters_total", "parameters_active", "train_tokens")]
        done = f"{len(arm_runs)} of {len(spec.seeds)}"
        rows.append([plain_name(arm.name), arm.about, role, done, *(format_count(value) for value in sizes)])
    numbers = ["runs", "parameters", "active per token", "training tokens"]
    return make_table("The arms", ["arm", "what it is", "role"], numbers, rows)


def _subject(row: pd.Series) -> str:
    """Return what a prediction is about, in the report's words."""
    statistic, arm = statistic_name(str(row["statistic"])), plain_name(row["arm"])
    statistic = f"Fisher's z of {statistic}" if row["scale"] == "fisher_z" else statistic
    of_arms = arm if row["reference"] == "" else f"{arm} − {plain_name(row['reference'])}"
    if row["test"] == "proportion" and str(row["statistic"]).startswith("fired.") and ">" in row["counts_if"]:
        return f"share of runs in which this rule {statistic}: {of_arms}"
    if row["test"] == "proportion":
        return f"share of runs with {statistic} {row['counts_if'].replace('-', '−')}: {of_arms}"
    if row["test"] == "trend":
        step = " per tenfold increase" if row["per"] == "tenfold" else ""
        arms = ", ".join(plain_name(arm) for arm in str(row["over"]).replace(" - ", " − ").split(", "))
        return f"{statistic}: slope{step} over {arms}"
    return f"{statistic}: {of_arms}"


def _bound(row: pd.Series, number: float) -> str:
    """Return where a prediction says that its estimate lies; `number` is what a mean or share is compared with."""
    margin = float(row["margin"])
    around = "" if is_missing(row["value"]) else f"{format_number(number)} "
    return {
        "greater": f"> {format_number(number + margin)}",
        "less": f"< {format_number(number - margin)}",
        "equivalent": f"within {around}± {format_number(margin)}",
    }[row["direction"]]


def hypothesis_rows(tables: Tables, spec: ReportSpec) -> list[dict[str, str]]:
    """Return each prediction with its verdict: name, statement, prediction, measured, verdict."""
    cells = []
    rows = {str(row["name"]): row for _, row in tables["hypotheses"].iterrows()}
    for name in spec.hypotheses:
        if name not in rows:
            blank = dict.fromkeys(("statement", "prediction", "measured"), "")
            cells.append({**blank, "name": plain_name(name), "verdict": "missing"})
            continue
        row = rows[name]
        # a mean or a share of runs is told as it is, and not as what it has more than the number it is compared with
        number = 0.0 if is_missing(row["value"]) else float(row["value"])
        sign = is_missing(row["value"])
        if row["scale"] == "fisher_z":
            number = math.atanh(number)
        estimate, low, high = (float(row[column]) + number for column in ("difference", "low", "high"))
        confidence = float(row.get("confidence", spec.confidence))
        interval = format_interval(low, high, sign=sign)
        bounds = "(no interval)" if interval == DASH else f"{interval}, {confidence:.0%}"
        seeds = pluralise(int(row["num_seeds"]), "seed")
        cells.append(
            {
                "name": plain_name(name),
                "statement": str(row["statement"]),
                "prediction": f"{_subject(row)} {_bound(row, number)}",
                "measured": f"{format_number(estimate, sign=sign)} {bounds}, {seeds}",
                "verdict": str(row["verdict"]),
            }
        )
    return cells


def statistic_name(name: str) -> str:
    """Return what the report calls a statistic, with its unit; a measurement has only its name."""
    if name.startswith("fired."):
        return f"fired ({RULES[name.removeprefix('fired.')]})"
    whole, *part = name.split(".")
    layer = f" in layer {part.pop().removeprefix('layer')}" if part and part[-1].startswith("layer") else ""
    if whole == TYPE_SHARE:
        return f"largest share of {part[0]} tokens that one slot gets{layer}"
    if whole not in BY_NAME:
        return plain_name(name)
    statistic = BY_NAME[whole]
    label = f"{statistic.label}{f' on {plain_name(part[0])}' if part else ''}{layer}"
    has_unit = statistic.unit in ("nats", "bits") and statistic.unit not in statistic.label
    return f"{label}, {statistic.unit}" if has_unit else label


def load_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return tables of the finished models' load and of the three collapse rules side by side."""
    rows, verdicts = [], []
    for run in _ordered_runs(tables, spec, routed=True):
        worst = worst_selector(tables, run["ablation"], run["seed"])
        bounds = (
            DASH
            if worst is None
            else format_percent_interval(float(worst["max_share_low"]), float(worst["max_share_high"]))
        )
        layer = DASH if worst is None else selector_place(worst)
        arm, seed = plain_name(run["ablation"]), str(run["seed"])
        largest, limit = (
            DASH if worst is None else format_percent(float(worst[name])) for name in ("max_share", "max_share_limit")
        )
        others = [_format_statistic(run[statistic.name], statistic) for statistic in LOAD[1:]]
        rows.append([arm, seed, largest, bounds, limit, layer, *others])
        state = DASH if is_missing(run["state"]) else str(run["state"])
        verdicts.append([arm, state, seed, *(_format_step(run[f"{rule}_step"]) for rule in RULES)])
    labels = [statistic.label for statistic in LOAD]
    numbers = ["seed", labels[0], "interval", "limit", "layer", *labels[1:]]
    note = (
        "One row per run, of the finished model on the whole probe set. The largest share is that of the selector"
        " nearest to its limits; unevenness is how near, and above 1 it is beyond them. The other numbers are the worst"
        " of any selector; dead and revived experts are summed over selectors."
    )
    return [
        make_table("Load at the end", ["arm"], numbers, rows, note=note),
        make_table(
            "Collapse: three rules",
            ["arm", "state at the end"],
            ["seed", *RULES.values()],
            verdicts,
            note=_note_on_rules(tables),
        ),
        _collapse_table(tables),
        _layer_table(tables, spec, title="Largest share by layer", column="max_share", show=format_percent),
    ]


def _note_on_rules(tables: Tables) -> str:
    """Return what the steps of the rules mean, and how soon the alarm could have fired at all."""
    note = (
        "The training step at which each rule first fired on the run as a whole; a dash means never. moe-emergence’s"
        " rule has one counter over all layers, as released. The run’s alarm has one guarantee over all its layers; a"
        " layer’s own alarm is in table verdicts."
    )
    rows = tables["verdicts"]
    needed = rows[(rows["rule"] == "alarm") & (rows["selector"] == "any")].groupby("ablation")["checks_to_fire"]
    never = [str(arm) for arm, checks in needed if checks.isna().all()]
    most = needed.max().dropna()
    if len(most):
        note += f" A total collapse raises it within {pluralise(int(most.max()), 'check')} of the training."
    if never:
        note += f" No alarm is possible in {join_names(never)}: the telemetry probe has too few documents."
    return note


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
    title = "Collapse: the runs whose alarm fired"
    return make_table(title, ["arm"], ["runs", "with alarm", "share", "Wilson interval"], rows)


def _layer_table(tables: Tables, spec: ReportSpec, *, title: str, column: str, show: Callable[[float], str]) -> Table:
    """Return a table of `column` with a row per arm and a column per layer: means over seeds of the finished models."""
    selectors = tables["selectors"]
    full = selectors[selectors["probe"] == "full"]
    values = full[column] - full["null_mean_bits"] if column == "information_bits" else full[column]
    wide = full.assign(value=values).pivot_table(index="ablation", columns=["layer", "selector"], values="value")
    places = list(wide.columns)
    one_per_layer = len({layer for layer, _ in places}) == len(places)
    labels = [
        f"layer {layer}"
        if layer >= 0 and (one_per_layer or selector == f"blocks.{layer}")
        else short_path(str(selector))
        for layer, selector in places
    ]
    rows = [
        [plain_name(arm.name), *(show(float(value)) for value in wide.loc[arm.name])]
        for arm in spec.arms
        if arm.name in wide.index
    ]
    return make_table(
        title, ["arm"], labels, rows, note="Means over seeds of the finished models, on the whole probe set."
    )


def information_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return tables of I(E;D), its excess over the controls, and the part that the token's identity explains."""
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
    note = (
        "One row per run: means over the selectors of the finished model on the whole probe set, minus the null’s mean."
        " The two parts need not add up, and either may exceed I(E;D): what the token explains is predicted from other"
        " documents, for all tokens; what goes beyond it is measured on the tokens that every domain has, where a"
        " choice can tell more of the domain than it tells over all tokens."
    )
    layers = _layer_table(tables, spec, title="I(E;D) by layer, bits", column="information_bits", show=format_number)
    information = make_table("Information about the domain", ["arm"], numbers, rows, note=note)
    return [
        information,
        layers,
        *telling_tables(tables, spec),
        *predictor_tables(tables, spec),
        *agreement_tables(tables, spec),
    ]


def commitment_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of commitment, its two parts, and the run's state."""
    rows = []
    statistics = [statistic for statistic in STATISTICS if statistic.group == "null"]
    for run in _ordered_runs(tables, spec, routed=True):
        parts = [format_number(run[statistic.name]) for statistic in statistics]
        state = DASH if is_missing(run["state"]) else str(run["state"])
        rows.append([plain_name(run["ablation"]), state, str(run["seed"]), *parts])
    numbers = ["seed", *(statistic.label for statistic in statistics)]
    note = "One row per run, in nats: means over the selectors of the finished model on the whole probe set."
    return [make_table("Commitment = drift + information", ["arm", "state at the end"], numbers, rows, note=note)]


def token_type_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of the share of each lexical type that goes to the expert that gets most of it."""
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
    note = "The share of a type’s tokens that its favourite expert gets: means over layers and seeds."
    numbers = ["tokens in the probe set", *(plain_name(arm) for arm in present)]
    return [make_table("The favourite expert of each type", ["type"], numbers, rows, note=note)]


def loss_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return tables of every arm's test loss by domain, of the bounds' standard errors, and of uneven training."""
    frame = tables["losses"]
    loss_of_domains = []
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
        note = "Means over seeds. The mean gives every domain the same weight; auxiliary losses are never included."
        loss_of_domains.append(
            make_table(title, ["arm"], [*(plain_name(name) for name in spec.domains), "mean"], rows, note=note)
        )
    return [*loss_of_domains, *_bound_error_tables(tables, spec), *_uneven_training_tables(tables, spec)]


def _bound_error_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of the standard errors of estimated losses; nothing where no loss is estimated."""
    worst = tables["runs"].groupby("ablation")["loss_error"].max().dropna()
    rows = [
        [plain_name(arm.name), format_number(float(worst[arm.name]))] for arm in spec.arms if arm.name in worst.index
    ]
    note = (
        "A bound is estimated by drawing masks. This is its standard error over the draws, in the run where that is"
        " largest."
    )
    return (
        [make_table("Standard errors of the bounds, nats per token", ["arm"], ["standard error"], rows, note=note)]
        if rows
        else []
    )


def _uneven_training_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table of arms whose training loss jumped or whose updates were skipped; nothing where none did."""
    sums = tables["runs"].groupby("ablation")[["spikes", "skipped"]].sum()
    sums = sums[sums.any(axis=1)]
    rows = [
        [plain_name(arm.name), *(format_count(float(value)) for value in sums.loc[arm.name])]
        for arm in spec.arms
        if arm.name in sums.index
    ]
    note = (
        "Sums over seeds. A spike is a training loss more than six standard deviations above the fifty losses before"
        " it. An update is skipped if a gradient is not finite."
    )
    numbers = ["spikes of the loss", "skipped updates"]
    return [make_table("Training that was not smooth", ["arm"], numbers, rows, note=note)] if rows else []


def comparison_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return, for each statistic of `COMPARED`, a table of the arms minus the reference, paired by seed."""
    frame = tables["comparisons"]
    predicted = verdicts_by_arm(tables)
    other = incomparable(spec.arms, spec.reference)
    compared = []
    for statistic in COMPARED:
        of_loss = BY_NAME[statistic].group == "loss"
        name = statistic_name(statistic)
        title = f"{name[0].upper()}{name[1:]}: arm minus {plain_name(spec.reference)}"
        rows = [
            [plain_name(row["ablation"]), predicted.get((statistic, str(row["ablation"]), spec.reference), DASH)]
            + [format_count(row["num_seeds"]), format_number(row["difference"], sign=True)]
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
            compared.append(make_table(title, ["arm", "prediction"], numbers, rows))
    return compared


def measurement_tables(tables: Tables, spec: ReportSpec) -> list[Table]:
    """Return a table for each metric that modules recorded besides choices: a row per arm, a column per module."""
    rows = tables["measurements"]
    final = rows[(rows["probe"] == "full") & rows["at"].isna()]
    measured = []
    for name, of_name in final.groupby("name"):
        wide = of_name.pivot_table(index="ablation", columns=["layer", "path"], values="value")
        places = list(wide.columns)
        means = [
            [plain_name(arm.name), *(format_number(float(value)) for value in wide.loc[arm.name])]
            for arm in spec.arms
            if arm.name in wide.index
        ]
        names = [short_path(str(path)) for _, path in places]
        measured.append(make_table(plain_name(str(name)), ["arm"], names, means, note="Means over seeds."))
    return measured


TABLES_OF_FIGURE: Mapping[str, Callable[[Tables, ReportSpec], list[Table]]] = {
    "load": load_tables,
    "information": information_tables,
    "commitment": commitment_tables,
    "token_types": token_type_tables,
    "loss_load": loss_tables,
    "use": lambda tables, spec: [*effect_tables(tables, spec), *swap_tables(tables, spec)],
    "curves": stability_tables,
}
"""Figure -> the function that builds the tables below it. A figure without an entry has only its caption."""
