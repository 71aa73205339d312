"""Shared code of the figures of measurements: one line per arm, named at its right end."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from speciate.figures import choosing, style

MARK_EVERY = 12
"""Number of points from which on a line is drawn without markers."""


def measurement_rows(tables: style.Tables, *names: str) -> pd.DataFrame:
    """Return the rows of table `measurements` with one of these names."""
    rows = tables["measurements"]
    rows = rows[rows["name"].isin(names)]
    # a part outside the blocks (an estimator's own attention) counts only where no block measures the same
    of_blocks = set(rows.loc[rows["layer"] >= 0, "name"])
    return rows[(rows["layer"] >= 0) | ~rows["name"].isin(of_blocks)]


MAX_ARMS = 8
"""Largest number of arms in a panel; more lines could not be told apart."""


def arms_with_rows(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    """Return the arms that have rows, in the study's order."""
    present = set(rows["ablation"])
    return [arm for arm in subject.arms if arm in present]


def drawn_arms(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    """Choose the arms to draw: the reference and the controls, then those that end farthest from the mean."""
    final = rows[rows["step"] == rows["step"].max()].groupby("ablation")["value"].mean()
    far = (final - final.mean()).abs()
    weight = {str(arm): float(value) for arm, value in far.items()}
    return choosing.choose_arms(arms_with_rows(rows, subject), MAX_ARMS, weight, subject)


def note_left_out(rows: pd.DataFrame, subject: style.Subject) -> str:
    """Return a note for a caption on the arms that are not drawn, or nothing."""
    return choosing.note_left_out((arms_with_rows(rows, subject), drawn_arms(rows, subject)))


def draw_lines(axes: Axes, rows: pd.DataFrame, *, by: str, arms: Sequence[str], subject: style.Subject) -> None:
    """Draw a line per arm: the mean of `value` over seeds and modules at each `by`, in front of the seeds' range."""
    colours = style.colours(subject)
    ends: list[tuple[float, str, str]] = []
    right = float(rows[by].max())
    for arm in arms:
        values = rows[rows["ablation"] == arm].groupby(["seed", by])["value"].mean().unstack("seed").sort_index()
        if values.empty:
            continue
        x, mean = values.index.to_numpy(dtype=float), values.mean(axis=1)
        marker = style.MARKERS[list(subject.arms).index(arm) % len(style.MARKERS)]
        marked = marker if len(x) < MARK_EVERY else ""
        axes.fill_between(x, values.min(axis=1), values.max(axis=1), color=colours[arm], alpha=0.15, linewidth=0)
        axes.plot(x, mean, color=colours[arm], marker=marked, markersize=3)
        ends.append((float(mean.iloc[-1]), style.plain_name(arm), colours[arm]))
    axes.margins(x=0.02, y=0.1)
    style.label_ends(axes, right, ends)


def finished_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the finished models, on the whole probe set."""
    return rows[rows["probe"] == "full"]


def telemetry_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the checks during training."""
    return rows[rows["probe"] == "telemetry"]
