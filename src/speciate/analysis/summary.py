"""One run as one row: its loss, and one number for each statistic of its selectors (config/contracts/statistics.py)."""

from typing import Any

import pandas as pd

from speciate.config.contracts.statistics import RULES, STATISTICS

NAN = float("nan")
OF_INTERVENTIONS = tuple(statistic.name for statistic in STATISTICS if statistic.group == "use")
"""Columns that the table of interventions fills."""


def run_row(
    facts: dict[str, Any], losses: pd.DataFrame, selectors: pd.DataFrame, verdicts: pd.DataFrame
) -> pd.DataFrame:
    """Return the run's row of table `runs`, without the columns that need other runs (excess, state).

    Args:
        facts: parameters_total, parameters_active, num_steps and train_tokens; loss_error, NaN where the loss is exact;
            the numbers of spikes of the training loss and of skipped updates.
        losses: the run's rows by domain; each domain has the same weight.
        selectors: the run's rows of table `selectors`; empty for a dense run, whose selector columns are then NaN.
        verdicts: the run's rows of table `verdicts`.
    """
    row: dict[str, Any] = {
        **facts,
        "loss": losses["nats"].mean(),
        "bits_per_byte": losses["bits_per_byte"].mean(),
        "num_selectors": 0,
        # what a dense run does not have
        **{statistic.name: NAN for statistic in STATISTICS if statistic.over_selectors},
        **dict.fromkeys(("information_bits", *OF_INTERVENTIONS), NAN),
        **{f"{rule}_step": NAN for rule in RULES},
    }
    if len(selectors):
        full = selectors[selectors["probe"] == "full"]
        row["num_selectors"] = len(full)
        # a NaN is a value that does not exist, so it must not be averaged away
        row |= {
            statistic.name: full[statistic.name].agg(statistic.over_selectors, skipna=False)
            for statistic in STATISTICS
            if statistic.over_selectors
        }
        row["information_bits"] = (full["information_bits"] - full["null_mean_bits"]).mean(skipna=False)
        first_step = verdicts[verdicts["selector"] == "any"].set_index("rule")["first_step"]
        row |= {f"{rule}_step": first_step[rule] for rule in RULES}
    return pd.DataFrame([row])
