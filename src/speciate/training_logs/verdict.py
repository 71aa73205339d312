"""Say what a training log alone can say of each layer: whether its load is beyond the limits of collapse, since when.

The limits of MaxVio and of the effective experts depend on E and k (`load.max_share_limit`, `effective_slots_limit`),
which most logs do not hold. Without them one thing can be said: a load of fewer effective experts than half of E is
beyond the limits, whatever E and k. `speciate.watch` logs the unevenness, which is relative to both limits. A log holds
no tokens either, so it says nothing of noise, of specialisation, or of what the load costs.
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
DECISIVE = ("max_vio", "unevenness")
"""Measures whose limit a healthy layer keeps and a collapsed one exceeds."""
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
    found = {"max_vio": math.nan, "effective_share": ANY_EFFECTIVE_LIMIT, "unevenness": 1.0}
    if experts is not None and chosen is not None:
        found["max_vio"] = experts * load.max_share_limit(experts, chosen) - 1
        found["effective_share"] = load.effective_slots_limit(experts, chosen) / experts
    return found


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
    where = f"Layer {layer}" if layer >= 0 else "Over all layers"
    known = {metric: limit for metric, limit in limits(log.experts, log.chosen).items() if not math.isnan(limit)}
    proofs = [proof for metric, limit in known.items() for proof in _proofs(rows[rows["metric"] == metric], limit)]
    worst = max(proofs, key=lambda proof: proof.severity, default=None)
    step = int(rows["step"].max())
    if worst is not None and worst.severity > 1 + ROUNDING:
        text = f"{where}: {worst.sentence(log)}"
        return LogVerdict(phase, layer, "collapsed", worst.step, worst.since, worst.severity, text)
    severity = math.nan if worst is None else worst.severity
    # a load of many effective experts can have one that takes too much, so only the largest share shows health
    if any(_says_within(rows[rows["metric"] == metric], known[metric]) for metric in DECISIVE if metric in known):
        text = f"{where}: its load is within the limits of collapse at step {step}, as far as it is logged"
        return LogVerdict(phase, layer, "within", step, None, severity, text)
    sizes = (("--experts", log.experts), ("--chosen", log.chosen))
    missing = " and ".join(name for name, given in sizes if given is None)
    text = f"{_describe(where, rows, step)}. " + (
        f"Whether that is a collapse depends on the numbers of experts and of choices: give {missing}"
        if missing
        else "That shows neither collapse nor health: MaxVio of each layer, or its maximum over layers, would"
    )
    return LogVerdict(phase, layer, "unknown", step, None, severity, text)


@dataclass(frozen=True)
class _Proof:
    """What one series proves at its last step."""

    metric: str
    over: str
    relation: str
    value: float
    limit: float
    severity: float
    step: int
    since: int

    def sentence(self, log: TrainingLog) -> str:
        """Return what it proves, where it is beyond its limit."""
        measure = f"{NAMES[self.metric]}{f' ({self.over} of layers)' if self.over else ''}"
        side = "below" if self.metric == "effective_share" else "above"
        sized = self.metric != "unevenness" and log.experts is not None and log.chosen is not None
        sizes = f" (of {log.experts} experts, {log.chosen} chosen)" if sized else ""
        value = f"{measure} {_bound(self.relation)}{self.value:.3g} at step {self.step}"
        return f"{value} is {side} the limit of {self.limit:.3g}{sizes}, since step {self.since}"


NAMES = {
    "max_vio": "MaxVio",
    "effective_share": "the effective share of the experts",
    "cv": "CV",
    "dead_share": "the dead share",
    "unevenness": "the unevenness",
}


def _proofs(rows: pd.DataFrame, limit: float) -> list[_Proof]:
    """Return what each series of one measure proves: how far some layer is beyond the limit, at least.

    The worst layer is at least as uneven as the mean or the median of the layers.
    """
    proofs = []
    for (metric, over, _), series in rows.groupby(["metric", "over", "key"], sort=False):
        lower = metric == "effective_share"
        if over not in ("", "mean", "median", "min" if lower else "max"):
            continue
        series = series[series["relation"].isin(("=", "<=" if lower else ">="))].sort_values("step")
        if series.empty:
            continue
        severity = limit / series["value"].clip(lower=1e-9) if lower else series["value"] / limit
        within = (severity <= 1 + ROUNDING).to_numpy().nonzero()[0]
        first = min(int(within[-1]) + 1 if len(within) else 0, len(series) - 1)
        last = series.iloc[-1]
        proofs.append(
            _Proof(
                *(str(metric), str(over), last["relation"], float(last["value"]), limit),
                *(float(severity.iloc[-1]), int(last["step"]), int(series["step"].iloc[first])),
            )
        )
    return proofs


def _bound(relation: str) -> str:
    return {"=": "of ", "<=": "of at most ", ">=": "of at least "}[relation]


def _says_within(rows: pd.DataFrame, limit: float) -> bool:
    """Return whether a series of one DECISIVE measure shows that no layer is beyond the limit at its last step."""
    usable = rows[rows["over"].isin(("", "max")) & rows["relation"].isin(("=", "<="))]
    last = usable.sort_values("step").drop_duplicates("key", keep="last")
    return bool((last["value"] <= limit + ROUNDING).any())


def _describe(where: str, rows: pd.DataFrame, step: int) -> str:
    """Return the last values."""
    last = rows.sort_values("step").drop_duplicates(["metric", "over"], keep="last")
    values = ", ".join(
        f"{row.over + ' ' if row.over else ''}{NAMES[row.metric]} {_bound(row.relation)}{row.value:.3g}"
        for row in last.itertuples()
    )
    return f"{where}: {values} at step {step}"
