"""Bring a training log to a Judgement, so that the doctor's page and `verdict.json` show it like a record's."""

import math

import pandas as pd

from speciate.analysis.routing.judgement import TABLES, Judgement, Verdict
from speciate.selection.routing_record import Note
from speciate.training_logs import verdict
from speciate.training_logs.training_log import TrainingLog

STATES = {"collapsed": "collapsed", "within": "unlabelled", "unknown": "undecided"}
"""State of a log's layer -> that of a Judgement. A log has no labels."""
SUMMARY = "The worst layer"
"""Stands for a layer where a log has summaries over layers alone: what they show holds for the worst of them."""
FROM_TABLE = ("max_vio", "cv")
UNSAID = (
    Note("labels", "Which expert serves which texts: a log has loads alone. Record the routing, and judge the record."),
    Note("documents", "How certain a load is: a log does not say on how many documents or tokens it was counted."),
    Note("cost", "Whether the model needs its experts: a log has no loss with an expert masked. Knock-outs do that."),
)


def judgement_of(log: TrainingLog) -> Judgement:
    """Return what a log alone can say, and what it cannot."""
    judged = verdict.judge(log)
    found = [one for one in judged if one.layer >= 0] or judged
    verdicts = tuple(
        Verdict(f"layer {one.layer}" if one.layer >= 0 else SUMMARY, one.layer, one.phase, STATES[one.state], text)
        for one, text in ((one, one.sentence.rstrip(".") + ".") for one in found)
    )
    notes = [
        *log.notes,
        *(Note("unconverted", f"not converted: {name}: {reason}") for name, reason in log.unconverted.items()),
    ]
    if log.unknown:
        notes.append(
            Note("unknown_names", f"Names that may be of routing and are not known: {', '.join(log.unknown)}.")
        )
    return Judgement(
        source=log.source,
        against="",
        headline=verdict.headline(log, found).rstrip(".") + ".",
        verdicts=verdicts,
        tables={"layers": _layers(log, verdicts)},
        unsaid=UNSAID,
        notes=tuple(notes),
        facts={
            # a log may have no name that can be converted, and then it has no values at all
            "num_steps": int(log.table["step"].max()) if len(log.table) else 0,
            "num_layers": len({one.layer for one in found if one.layer >= 0}),
        },
    )


def _layers(log: TrainingLog, verdicts: tuple[Verdict, ...]) -> pd.DataFrame:
    """Return table `layers` with the last values of the log; what a log does not hold is NaN."""
    rows = []
    for one in verdicts:
        of_layer = log.table[(log.table["layer"] == one.layer) & (log.table["phase"] == one.phase)]
        exact = of_layer[of_layer["relation"] == "="].sort_values("step", kind="stable")
        last = exact.groupby("metric")["value"].last()
        row: dict[str, object] = dict.fromkeys(TABLES["layers"], math.nan)
        row |= {"path": one.path, "layer": one.layer, "phase": one.phase, "state": one.state, "sentence": one.sentence}
        row |= {name: float(last.get(name, math.nan)) for name in FROM_TABLE}
        if log.experts is not None:
            row |= {"num_slots": log.experts, "effective_experts": log.experts * last.get("effective_share", math.nan)}
        if log.chosen is not None:
            row["num_chosen"] = log.chosen
        rows.append(row)
    return pd.DataFrame(rows, columns=list(TABLES["layers"]))
