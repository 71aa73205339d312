"""Draw a training log: each measure over the steps, a line for each layer, and the limit of collapse if it is known.

The finding is the chart's title.
"""

import math
import pathlib
import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from speciate.figures import style, svg
from speciate.training_logs.log_names import METRICS
from speciate.training_logs.training_log import TrainingLog
from speciate.training_logs.verdict import headline, judge, limits

LABELS = {
    "max_vio": "MaxVio",
    "effective_share": "effective experts / E",
    "cv": "coefficient of variation",
    "dead_share": "share of dead experts",
    "unevenness": "unevenness (1: limit of collapse)",
}
WRAP = {True: 52, False: 110}
"""Characters of a line of the title, on a narrow page or a wide one."""


def draw(log: TrainingLog, target: pathlib.Path, *, width: float = style.WIDTH) -> None:
    """Write the chart as a file of the target's format."""
    with style.figure_style(width):
        svg.save(figure(log), target)


def figure(log: TrainingLog) -> Figure:
    """Return the chart, drawn in the style that is set (`style.figure_style`)."""
    drawn_metrics = [metric for metric in METRICS if metric in set(log.table["metric"])]
    if not drawn_metrics:
        return style.message_figure("No name of this log can be converted to a measure of load.")
    columns = style.columns_of(min(len(drawn_metrics), 2))
    num_rows = math.ceil(len(drawn_metrics) / columns)
    verdicts = judge(log)
    title = textwrap.wrap(headline(log, verdicts), WRAP[style.is_narrow()])
    collapsed = [verdict for verdict in verdicts if verdict.state == "collapsed"]
    worst = max(collapsed, key=lambda verdict: (verdict.layer >= 0, verdict.severity)).layer if collapsed else -1
    chart = style.new_figure(0.3 + 0.16 * len(title) + 1.9 * num_rows)
    grid = chart.subplots(num_rows, columns, squeeze=False, sharex=True)
    limit = limits(log.experts, log.chosen)
    for place, axes in enumerate(grid.flat):
        if place >= len(drawn_metrics):
            style.hide_axes(axes)
            axes.set_yticks([])
            continue
        metric = drawn_metrics[place]
        _draw_metric(axes, log.table[log.table["metric"] == metric], limit.get(metric, math.nan), worst)
    chart.suptitle("\n".join(title), fontsize=8, x=0.01, ha="left", fontweight="bold")
    chart.supxlabel("step", fontsize=7.5)
    return chart


def _draw_metric(axes: Axes, rows: pd.DataFrame, limit: float, worst: int) -> None:
    """Draw one measure of all layers; the worst layer and the summaries over layers are named at their ends."""
    metric = str(rows["metric"].iloc[0])
    if worst < 0:
        last = rows[rows["layer"] >= 0].sort_values("step").drop_duplicates("layer", keep="last")
        if last["value"].nunique() > 1:
            place = last["value"].idxmin() if metric == "effective_share" else last["value"].idxmax()
            worst = int(last.loc[place, "layer"])
    ends: list[tuple[float, str, str]] = []
    for (layer, over, _), series in rows.sort_values("step").groupby(["layer", "over", "key"], sort=False):
        named = layer == worst or layer < 0
        colour = style.ACCENT if layer == worst >= 0 else style.INK if layer < 0 else style.COLOURS[0]
        dash = "--" if over == "mean" else "-"
        axes.plot(
            series["step"].to_numpy(),
            series["value"].to_numpy(),
            color=colour,
            linestyle=dash,
            linewidth=1.4 if named else 0.6,
            alpha=1.0 if named else 0.55,
            marker="o" if len(series) == 1 else None,
            markersize=2.5,
        )
        if named:
            sign = {"=": "", "<=": "≤ ", ">=": "≥ "}[series["relation"].iloc[-1]]
            ends.append((float(series["value"].iloc[-1]), f"{sign}{over or f'layer {layer}'}", colour))
    if not math.isnan(limit):
        axes.axhline(limit, color=style.QUIET, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.annotate(
            "limit of collapse",
            (0.01, limit),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=6,
            color=style.QUIET,
        )
    axes.set_ylim(bottom=0, top=1.02 if metric in ("effective_share", "dead_share") else None)
    axes.set_title(LABELS[metric], loc="left")
    axes.set_xlim(left=float(rows["step"].min()), right=float(rows["step"].max()) or None)
    style.label_ends(axes, float(rows["step"].max()), ends)
