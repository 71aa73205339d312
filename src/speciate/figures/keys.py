"""Figure: how many keys does a query keep, and more of them where it is unsure? Histogram, and mean by entropy."""

from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from speciate.config.contracts.figures import FigureOptions
from speciate.figures import lines, style

QUESTION = "How many keys does a query keep, and does it keep more where it is unsure?"
TABLES = {"measurements": ("ablation", "seed", "step", "probe", "layer", "name", "at", "value")}


LIMITS = "A mean number of keys does not show which keys are kept, nor whether others would have served as well."


class Options(FigureOptions):
    """No options."""

    needs: ClassVar[tuple[str, ...]] = ("mixer.gsa",)
    """Components of which a study must use at least one for this figure to be drawn."""


def finding(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return how many keys a query keeps, in the arm that keeps most and in the one that keeps fewest."""
    kept = lines.finished_rows(lines.measurement_rows(tables, "k_mean")).groupby("ablation")["value"].mean()
    if kept.empty or lines.measurement_rows(tables, "k_share").empty:
        return ""
    most, least = str(kept.idxmax()), str(kept.idxmin())
    text = f"A query of {style.plain_name(least)} keeps {kept.min():.1f} keys"
    return text if most == least else f"{text}, one of {style.plain_name(most)} {kept.max():.1f}"


def figure(tables: style.Tables, subject: style.Subject, options: Any) -> Figure:
    """Draw the share of queries by the number of keys that they keep, and the mean number by normalised entropy."""
    share, entropy = (lines.finished_rows(lines.measurement_rows(tables, name)) for name in ("k_share", "k_by_entropy"))
    if share.empty:
        return style.message_figure("No arm of this study chooses how many keys to keep.")
    # an entropy that is the same everywhere shows nothing
    panels = 2 if entropy["at"].nunique() > 1 else 1
    drawn = style.new_figure(2.4 * panels if style.is_narrow() else 2.6, style.WIDTH if panels == 2 else 3.7)
    left, *rest = drawn.subplots(*((panels, 1) if style.is_narrow() else (1, panels)), squeeze=False).flatten()
    arms = lines.drawn_arms(share, subject)
    lines.draw_lines(left, share.assign(at=np.log2(share["at"])), by="at", arms=arms, subject=subject)
    ticks = sorted(share["at"].unique())
    powers = [tick for tick in ticks if float(np.log2(tick)).is_integer()]  # more labels would touch one another
    left.set_xticks(np.log2(powers), [f"{tick:g}" for tick in powers])
    left.set(xlabel="keys kept, up to", ylabel="share of queries")
    left.set_title("How many", loc="left", weight="bold")
    for right in rest:
        lines.draw_lines(right, entropy, by="at", arms=lines.drawn_arms(entropy, subject), subject=subject)
        right.set(xlabel="entropy of dense attention over its maximum", ylabel="mean number of keys")
        right.set_title("Where it is unsure", loc="left", weight="bold")
    return drawn


def caption(tables: style.Tables, subject: style.Subject, options: Any) -> str:
    """Return what the figure shows and what it does not."""
    kept = lines.finished_rows(lines.measurement_rows(tables, "k_mean")).groupby("ablation")["value"].mean()
    if kept.empty:
        return "No arm of this study chooses how many keys to keep."
    means = "; ".join(f"{style.plain_name(str(arm))} {mean:.1f}" for arm, mean in kept.items())
    return (
        "Finished models on the whole probe set: means over seeds and layers; the bands are the range of the seeds."
        " Early queries of a block see fewer keys than they may keep, and count with the keys that they see. Mean"
        f" number of keys: {means}. An adaptive arm whose line on the right is flat does not spend more keys where it"
        f" is unsure.{lines.note_left_out(lines.measurement_rows(tables, 'k_share'), subject)}"
    )
