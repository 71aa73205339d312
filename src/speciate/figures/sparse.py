"""Figure: do queries keep the keys that matter, and how much attention goes to the first token?

Over training and over depth. Recall is the share of the attention of dense heads that lies on the kept keys. The
first-token share is the attention on a document's first token, the sink of Xiao et al. (2023).
"""

from typing import Any, ClassVar

from matplotlib.figure import Figure

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import lines, style

QUESTION = "Do queries keep the keys that matter, and how much attention goes to the first token?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}
LIMITS = (
    "A high recall means that the indexer agrees with the attention that was trained with it, not that another"
    " attention would have been worse."
)
LABELS = {"recall": "recall of dense attention", "first_token_share": "attention on the first token"}


class Options(FigureOptions):
    """No options."""

    needs: ClassVar[tuple[str, ...]] = ("mixer.gsa",)
    """Components of which a study must use at least one for this figure to be drawn."""


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return the best and the worst recall, or the attention on the first token where no recall was recorded."""
    for name, label in LABELS.items():
        means = lines.finished_rows(lines.measurement_rows(tables, name)).groupby("ablation")["value"].mean()
        if means.empty:
            continue
        most, least = str(means.idxmax()), str(means.idxmin())
        text = f"{style.sentence(label)} is {means.max():.2f} in {style.plain_name(most)}"
        return text if most == least else f"{text}, and {means.min():.2f} in {style.plain_name(least)}"
    return ""


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw a row per measurement: its course over training, and its profile over the layers of the finished models."""
    names = [name for name in LABELS if len(lines.measurement_rows(tables, name))]
    if not names:
        return style.message_figure("No arm of this study records which keys its queries keep.")
    drawn = style.new_figure((4.4 if style.is_narrow() else 2.3) * len(names) + 0.2)
    shape = (2 * len(names), 1) if style.is_narrow() else (len(names), 2)
    grid = drawn.subplots(*shape, squeeze=False).reshape(len(names), 2)
    for (left, right), name in zip(grid, names, strict=True):
        rows = lines.measurement_rows(tables, name)
        arms = lines.drawn_arms(rows, subject)
        lines.draw_lines(left, lines.telemetry_rows(rows), by="step", arms=arms, subject=subject)
        lines.draw_lines(right, lines.finished_rows(rows), by="layer", arms=arms, subject=subject)
        left.set_title(f"{LABELS[name]}, mean over layers", loc="left", weight="bold")
        right.set_title("by layer, at the end", loc="left", weight="bold")
        right.set_xticks(sorted(lines.finished_rows(rows)["layer"].unique()))
        left.set_ylabel(LABELS[name])
        right.set_ylabel(LABELS[name])
        left.set_xlabel("optimizer step")
        right.set_xlabel("layer")
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    ranges = []
    for name in LABELS:
        means = lines.finished_rows(lines.measurement_rows(tables, name)).groupby("ablation")["value"].mean()
        if len(means):
            least, most = str(means.idxmin()), str(means.idxmax())
            ranges.append(
                f"{LABELS[name]}: from {means.min():.2f} ({style.plain_name(least)}) to {means.max():.2f}"
                f" ({style.plain_name(most)})"
            )
    if not ranges:
        return "No arm of this study records which keys its queries keep."
    return (
        "The lines are means over seeds and layers; the bands are the range of the seeds. Recall is computed for"
        " queries that see more keys than they keep: how much of the attention that the same heads would spread over"
        " all visible keys lies on the kept ones. An arm without an indexer keeps all keys and has no recall. Finished"
        f" models: {'; '.join(ranges)}.{lines.note_left_out(lines.measurement_rows(tables, *LABELS), subject)}"
    )
