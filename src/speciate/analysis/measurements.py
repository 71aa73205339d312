"""Metrics that modules recorded besides their choices (selection/metrics.py), as a table and as run statistics."""

from typing import Any

import pandas as pd

from speciate.analysis.observation import layer_of

MEASURED_PREFIX = "measured."
"""Prefix by which a hypothesis names a measurement as its statistic."""


def measurements_table(logged: list[dict[str, Any]], noted: list[list[Any]], num_steps: int) -> pd.DataFrame:
    """Return a row for each step, module and measurement.

    While training, the probe is the prefix of the probe set; for the finished model it is the whole set.

    Args:
        logged: the lines of metrics.jsonl.
        noted: [path, name, at, mean] of the finished model.
        num_steps: the finished model's step.
    """
    values = [(line["step"], "telemetry", *row) for line in logged for row in line.get("measured", [])]
    values += [(num_steps, "full", *row) for row in noted]
    rows = pd.DataFrame(values, columns=["step", "probe", "path", "name", "at", "value"])
    return rows.assign(layer=[layer_of(path) for path in rows["path"]], at=rows["at"].astype("float64"))


def measured_statistics(measurements: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each run with a column `measured.<name>` for each measurement that has no coordinate.

    The value is the mean over the run's modules. A part outside the blocks (an estimator's own attention) counts only
    in measurements that no block makes.
    """
    final = measurements[(measurements["probe"] == "full") & measurements["at"].isna()]
    outside = final["path"].str.startswith("parts.")
    of_blocks = set(final.loc[~outside, "name"])
    final = final[~(outside & final["name"].isin(of_blocks))]
    wide = final.pivot_table(index=["ablation", "seed"], columns="name", values="value", aggfunc="mean")
    return wide.add_prefix(MEASURED_PREFIX).reset_index()
