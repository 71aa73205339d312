"""Say what a training log alone can say of each layer: whether its load is beyond the limits of collapse, since when.

The limits of MaxVio and of the effective experts depend on E and k (`load.max_share_limit`, `effective_slots_limit`),
which logs do not hold. Without them only one thing can be said: fewer than half of the experts are never within the
limits. A log holds no tokens either, so it says nothing of noise, of specialisation, or of what the load costs.
"""

import math
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from speciate.analysis import load
from speciate.training_logs.training_log import TrainingLog

State = Literal["collapsed", "within", "unknown"]
ANY_EFFECTIVE_LIMIT = 0.5
"""`load.effective_slots_limit` over E is at least this, whatever E and k."""
ROUNDING = 1e-6


@dataclass(frozen=True)
class LogVerdict:
    """The verdict on one layer, or on the summaries over layers."""

    phase: str
    layer: int
    """-1: the summaries over layers."""
    state: State
    """`collapsed`: beyond a limit at the last step; `within`: within both limits as far as logged; `unknown`."""
    step: int
    """The last step."""
    since: int | None
    """First step of the unbroken run of steps beyond a limit until the last one."""
    severity: float
    """How far the last value is beyond its limit, as a share of it; below 1: within. NaN where there is no limit."""
    sentence: str


def limits(experts: int | None, chosen: int | None) -> dict[str, float]:
    """Return the limit of each measure that has one; NaN where E or k is missing."""
    if experts is None or chosen is None:
        return {"max_vio": math.nan, "effective_share": ANY_EFFECTIVE_LIMIT}
    return {
        "max_vio": experts * load.max_share_limit(experts, chosen) - 1,
        "effective_share": load.effective_slots_limit(experts, chosen) / experts,
    }


def judge(log: TrainingLog) -> list[LogVerdict]:
    """Return the verdict on each layer of each phase, and on the summaries."""
    groups = log.table.groupby(["phase", "layer"], sort=True)
    return [_judge_layer(str(phase), int(layer), rows, log) for (phase, layer), rows in groups]


def headline(log: TrainingLog, verdicts: list[LogVerdict]) -> str:
    """Return the verdict on the whole log in a sentence: the worst layer's."""
    collapsed = [verdict for verdict in verdicts if verdict.state == "collapsed"]
    layers = [verdict for verdict in collapsed if verdict.layer >= 0]
    if collapsed:
        worst = max(layers or collapsed, key=lambda verdict: verdict.severity)
        others = f" ({len(layers)} layers are beyond their limits)" if len(layers) > 1 else ""
        return f"{worst.sentence}{others}"
    if verdicts and all(verdict.state == "within" for verdict in verdicts):
        return "No layer’s load is beyond the limits of collapse at the last step"
    open_ = [verdict for verdict in verdicts if verdict.state == "unknown"]
    return open_[0].sentence if open_ else "The log has no measure that a limit of collapse is known of"


def _judge_layer(phase: str, layer: int, rows: pd.DataFrame, log: TrainingLog) -> LogVerdict:
    step, where = int(rows["step"].max()), f"Layer {layer}" if layer >= 0 else "Over all layers"
    found = [
        (severity, *rest)
        for metric, limit in limits(log.experts, log.chosen).items()
        if not math.isnan(limit)
        for severity, *rest in _beyond(rows[rows["metric"] == metric], metric, limit)
    ]
    certain = [one for one in found if one[0] > 1 + ROUNDING]
    if certain:
        severity, metric, limit, last, since = max(certain)
        sizes = "" if log.experts is None or log.chosen is None else f" of {log.experts} experts, {log.chosen} chosen"
        measure = {"max_vio": "MaxVio", "effective_share": "the effective share of the experts"}[metric]
        than = "above" if metric == "max_vio" else "below"
        at = f"{where}: {measure}{last} at step {step} is {than} the limit of {limit:.3g}{sizes}"
        return LogVerdict(phase, layer, "collapsed", step, since, severity, f"{at}, since step {since}")
    if log.experts is None or log.chosen is None:
        missing = " and ".join(
            name for name, given in (("--experts", log.experts), ("--chosen", log.chosen)) if given is None
        )
        return LogVerdict(phase, layer, "unknown", step, None, math.nan, f"{_describe(where, rows, step)}; {missing} would tell")
    if _says_within(rows, log):
        severity = max((one[0] for one in found), default=math.nan)
        text = f"{where}: its load is within the limits of collapse at step {step}, as far as it is logged"
        return LogVerdict(phase, layer, "within", step, None, severity, text)
    text = f"{where}: what is logged only bounds the load, and cannot tell a collapse from health at step {step}"
    return LogVerdict(phase, layer, "unknown", step, None, math.nan, text)


def _beyond(rows: pd.DataFrame, metric: str, limit: float) -> list[tuple[float, str, float, str, int]]:
    """Return (severity, measure, limit, last value, since) of each series that can prove a value beyond the limit.

    The worst layer is at least as uneven as the mean or the median of the layers.
    """
    provable = {"max_vio": ("=", ">="), "effective_share": ("=", "<=")}[metric]
    over = {"max_vio": ("", "max", "mean", "median"), "effective_share": ("", "min", "mean", "median")}[metric]
    found = []
    usable = rows[rows["relation"].isin(provable) & rows["over"].isin(over)]
    for (name, _), series in usable.groupby(["over", "key"], sort=False):
        series = series.sort_values("step")
        severity = series["value"] / limit if metric == "max_vio" else limit / series["value"].clip(lower=1e-9)
        beyond = (severity > 1 + ROUNDING).tolist()
        first = next((place for place in range(len(beyond) - 1, -1, -1) if not beyond[place]), -1) + 1
        since = int(series["step"].iloc[min(first, len(beyond) - 1)])
        words = f" ({name} of layers)" if name else ""
        last = f"{words} {_bound(series['relation'].iloc[-1])}{series['value'].iloc[-1]:.3g}"
        found.append((float(severity.iloc[-1]), metric, limit, last, since))
    return found


def _bound(relation: str) -> str:
    return {"=": "of ", "<=": "of at most ", ">=": "of at least "}[relation]


def _says_within(rows: pd.DataFrame, log: TrainingLog) -> bool:
    """Return whether some series shows that no layer is beyond the limit of its measure at the last step."""
    for metric, limit in limits(log.experts, log.chosen).items():
        worst, relation = ("max", ("=", "<=")) if metric == "max_vio" else ("min", ("=", ">="))
        enough = rows["metric"].eq(metric) & rows["over"].isin(["", worst]) & rows["relation"].isin(relation)
        for _, series in rows[enough].groupby("key", sort=False):
            last = series.sort_values("step")["value"].iloc[-1]
            if (last <= limit + ROUNDING) if metric == "max_vio" else (last >= limit - ROUNDING):
                return True
    return False


def _describe(where: str, rows: pd.DataFrame, step: int) -> str:
    """Return the last values, and that the limit is unknown."""
    last = rows.sort_values("step").drop_duplicates(["metric", "over"], keep="last")
    names = {"max_vio": "MaxVio", "effective_share": "effective share", "cv": "CV", "dead_share": "dead share"}
    values = ", ".join(
        f"{row.over + ' ' if row.over else ''}{names[row.metric]} {_bound(row.relation)}{row.value:.3g}"
        for row in last.itertuples()
    )
    return f"{where}: {values} at step {step}. Whether that is a collapse depends on the numbers of experts and of choices"
