"""The table of a run's statistics: what hypotheses may be about, arms are compared in, and the report shows.

A new one is a row here and, where it is a number of a selector's load, a function in `analysis/load.py` under the same
name. Schema, summary, comparison, tables and report all read this table.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Statistic:
    """One number of a run."""

    name: str
    """Its column in table `runs` and, where selectors have it, in table `selectors`."""
    label: str
    """What the report calls it."""
    unit: Literal["nats", "bits", "share", "slots", ""]
    group: Literal["loss", "load", "domain", "null"]
    """What it is about: the loss; how even the load is; what a choice tells of the text's domain; the distance from the
    null."""
    over_selectors: Literal["max", "min", "sum", "mean"] | None = None
    """How the run's selectors become its one number: the worst speaks for the run where the question is collapse, all
    together where slots are counted, the mean where the question is how much is known. None: it is none of theirs."""
    beside: tuple[str, ...] = ()
    """Columns that stand beside it in table `selectors` alone."""
    decimals: int = 3
    """Digits after the point in the report; a share is shown in percent."""


STATISTICS = (
    Statistic("loss", "loss", "nats", "loss"),
    Statistic("bits_per_byte", "bits per byte", "bits", "loss"),
    Statistic("max_share", "largest share", "share", "load", "max", beside=("max_share_low", "max_share_high")),
    Statistic("max_violation", "MaxVio", "", "load", "max", beside=("noise_floor",), decimals=2),
    Statistic("effective_experts", "effective experts", "slots", "load", "min", decimals=2),
    Statistic("gini", "Gini", "", "load", "max", beside=("cv_squared",), decimals=2),
    Statistic("dead_experts", "dead", "slots", "load", "sum", decimals=0),
    Statistic("revived_experts", "revived", "slots", "load", "sum", decimals=0),
    Statistic("information_bits", "I(E;D)", "bits", "domain"),
    Statistic("excess_information_bits", "excess of I(E;D)", "bits", "domain"),
    Statistic("token_explained_bits", "explained by the token", "bits", "domain", "mean"),
    Statistic("conditional_information_bits", "I(E;D|token)", "bits", "domain", "mean"),
    Statistic("commitment_nats", "commitment", "nats", "null", "mean"),
    Statistic("drift_nats", "drift", "nats", "null", "mean"),
    Statistic("information_nats", "information", "nats", "null", "mean"),
)
NAMES = tuple(statistic.name for statistic in STATISTICS)
LOAD = tuple(statistic for statistic in STATISTICS if statistic.group == "load")
