"""What figures of measurements share: a line an arm over some axis, named at its right end."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from speciate.figures import style

MARK_EVERY = 12
"""Points of a line from which on they are drawn without markers."""


def measurement_rows(tables: style.Tables, *names: str) -> pd.DataFrame:
    """The rows of table `measurements` called so."""
    rows = tables["measurements"]
    rows = rows[rows["name"].isin(names)]
    # a part beside the blocks (an estimator's own attention) only where no block measures the same
    of_blocks = set(rows.loc[rows["layer"] >= 0, "name"])
    return rows[(rows["layer"] >= 0) | ~rows["name"].isin(of_blocks)]


MAX_ARMS = 8
"""Arms of a panel; more lines cannot be told apart."""


def arms_with_rows(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    """The arms that have any, in the study's order."""
    present = set(rows["ablation"])
    return [arm for arm in subject.arms if arm in present]


def drawn_arms(rows: pd.DataFrame, subject: style.Subject) -> list[str]:
    """Those that are drawn: the reference and the controls, then the ones that end farthest from the others' mean."""
    final = rows[rows["step"] == rows["step"].max()].groupby("ablation")["value"].mean()
    far = (final - final.mean()).abs()
    weight = {str(arm): float(value) for arm, value in far.items()}
    return style.choose_arms(arms_with_rows(rows, subject), MAX_ARMS, weight, subject)


def note_left_out(rows: pd.DataFrame, subject: style.Subject) -> str:
    """For a caption: the arms that are not drawn, or nothing."""
    return style.note_left_out((arms_with_rows(rows, subject), drawn_arms(rows, subject)))


def draw_lines(axes: Axes, rows: pd.DataFrame, by: str, arms: Sequence[str], subject: style.Subject) -> None:
    """A line an arm: the mean of `value` at each of `by`, over seeds and modules, with the seeds' range behind it."""
    colours = style.colours(subject)
    ends: list[tuple[float, str, str]] = []
    right = float(rows[by].max())
    for arm in arms:
        mine = rows[rows["ablation"] == arm].groupby(["seed", by])["value"].mean().unstack("seed").sort_index()
        if mine.empty:
            continue
        x, mean = mine.index.to_numpy(dtype=float), mine.mean(axis=1)
        marker = style.MARKERS[list(subject.arms).index(arm) % len(style.MARKERS)]
        marked = marker if len(x) < MARK_EVERY else ""
        axes.fill_between(x, mine.min(axis=1), mine.max(axis=1), color=colours[arm], alpha=0.15, linewidth=0)
        axes.plot(x, mean, color=colours[arm], marker=marked, markersize=3)
        ends.append((float(mean.iloc[-1]), style.plain_name(arm), colours[arm]))
    axes.margins(x=0.02, y=0.1)
    style.label_ends(axes, right, ends)


def finished_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of the finished models, on the whole probe set."""
    return rows[rows["probe"] == "full"]


def telemetry_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Those seen at each check."""
    return rows[rows["probe"] == "telemetry"]
