"""What modules noted beside their choices (selection/metrics.py), as a table and as statistics of a run."""

from typing import Any

import pandas as pd

from speciate.analysis.observation import layer_of

STATISTIC = "measured."
"""What a hypothesis writes before a measurement's name."""


def measurements_table(logged: list[dict[str, Any]], noted: list[list[Any]], num_steps: int) -> pd.DataFrame:
    """A row a step, module and measurement: while training on the probe's prefix, at the end on the whole of it.

    Args:
        logged: the lines of metrics.jsonl.
        noted: [path, name, at, mean] of the finished model.
        num_steps: its step.
    """
    seen = [(line["step"], "telemetry", *row) for line in logged for row in line.get("measured", [])]
    seen += [(num_steps, "full", *row) for row in noted]
    rows = pd.DataFrame(seen, columns=["step", "probe", "path", "name", "at", "value"])
    return rows.assign(layer=[layer_of(path) for path in rows["path"]], at=rows["at"].astype("float64"))


def statistics_of(measurements: pd.DataFrame) -> pd.DataFrame:
    """A row a run, a column `measured.<name>` a measurement without a coordinate: its mean over the run's modules.

    A part beside the blocks (an estimator's own attention) has a say only in what no block measures.
    """
    final = measurements[(measurements["probe"] == "full") & measurements["at"].isna()]
    beside = final["path"].str.startswith("parts.")
    of_blocks = set(final.loc[~beside, "name"])
    final = final[~(beside & final["name"].isin(of_blocks))]
    wide = final.pivot_table(index=["ablation", "seed"], columns="name", values="value", aggfunc="mean")
    return wide.add_prefix(STATISTIC).reset_index()
