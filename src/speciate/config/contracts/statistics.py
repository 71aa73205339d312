"""Table of a run's statistics: those that hypotheses may name, that arms are compared in, and that the report shows.

A new statistic is a row here and, if it describes a selector's load, a function in `analysis/load.py` under the same
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
    group: Literal["loss", "load", "domain", "null", "use"]
    """Its subject: the loss; how even the load is; what a choice tells about the text's domain; the distance from the
    null; what overriding the choice costs."""
    over_selectors: Literal["max", "min", "sum", "mean"] | None = None
    """How the values of the run's selectors become one: the worst selector for collapse, the sum for counts of slots,
    the mean for information. None: it is not a reduction over selectors."""
    companions: tuple[str, ...] = ()
    """Columns that go with it, in table `selectors` only."""
    decimals: int = 3
    """Digits after the point in the report; a share is shown in percent."""


STATISTICS = (
    Statistic("loss", "test loss", "nats", "loss"),
    Statistic("bits_per_byte", "bits per byte", "bits", "loss"),
    Statistic(
        "max_share",
        "largest share",
        "share",
        "load",
        "max",
        companions=("max_share_low", "max_share_high", "max_share_limit"),
    ),
    Statistic("unevenness", "unevenness", "", "load", "max", decimals=2),
    Statistic("max_violation", "MaxVio", "", "load", "max", companions=("noise_floor",), decimals=2),
    Statistic(
        "effective_experts",
        "effective experts",
        "slots",
        "load",
        "min",
        companions=("effective_experts_high", "effective_experts_limit"),
        decimals=2,
    ),
    Statistic("gini", "Gini", "", "load", "max", companions=("cv_squared",), decimals=2),
    Statistic("dead_experts", "dead experts", "slots", "load", "sum", decimals=0),
    Statistic("revived_experts", "revived experts", "slots", "load", "sum", decimals=0),
    Statistic("information_bits", "I(E;D)", "bits", "domain"),
    Statistic("excess_information_bits", "excess of I(E;D)", "bits", "domain"),
    Statistic("token_explained_bits", "explained by the token", "bits", "domain", "mean"),
    Statistic("conditional_information_bits", "I(E;D|token)", "bits", "domain", "mean"),
    Statistic("commitment_nats", "commitment", "nats", "null", "mean"),
    Statistic("drift_nats", "drift", "nats", "null", "mean"),
    Statistic("information_nats", "information", "nats", "null", "mean"),
    Statistic("matched_nats", "cost of load-matched random choice", "nats", "use"),
    Statistic("need_correlation", "lift against need", "", "use", decimals=2),
    Statistic("selectivity_nats", "selectivity", "nats", "use"),
)
NAMES = tuple(statistic.name for statistic in STATISTICS)
OF_DOMAIN = tuple(statistic.name for statistic in STATISTICS if statistic.group == "loss")
"""The statistics that each domain has too: a hypothesis names one as `<statistic>.<domain>`."""
OF_LAYER = ("information_bits", *(statistic.name for statistic in STATISTICS if statistic.over_selectors))
"""The statistics that each selector has too: a hypothesis names those of a layer as `<statistic>.layer<n>`."""
TOKEN_TYPES = ("other", "keyword", "name", "number", "string", "operator", "comment")
"""Lexical types of a token of Python (data/tokens/lexical.py), in the order of their codes."""
TYPE_SHARE = "type_share"
"""Largest share of a lexical type's tokens that one slot gets: `type_share.<type>`, of the selector where it is
largest, or `type_share.<type>.layer<n>`."""
LOAD = tuple(statistic for statistic in STATISTICS if statistic.group == "load")
BY_NAME = {statistic.name: statistic for statistic in STATISTICS}

RULES = {
    "rule_60_percent": "moe-emergence: > 60% in some layer at 3 checks in a row",
    "rule_3_over_e": "Kolmogorov-MoE: > 3/E, Gini or entropy",
    "alarm": "our alarm",
}
"""Collapse rule of `analysis/collapse.py` -> what the report calls it. Table `runs` has the column `<rule>_step`."""
