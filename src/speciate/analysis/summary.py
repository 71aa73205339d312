"""One run in one row: its loss, and one number of each statistic of its selectors (config/contracts/statistics.py)."""

from typing import Any

import pandas as pd

from speciate.analysis.collapse import RULES
from speciate.config.contracts.statistics import STATISTICS


def run_row(
    facts: dict[str, Any], losses: pd.DataFrame, selectors: pd.DataFrame, verdicts: pd.DataFrame
) -> pd.DataFrame:
    """The run's row of table `runs`, without what other runs must tell (excess, state).

    Args:
        facts: parameters_total, parameters_active, num_steps, train_tokens; loss_error, NaN where the loss is exact;
            spikes of the training loss and skipped updates, how many.
        losses: the run's rows by domain; each domain weighs the same.
        selectors: its rows of table `selectors`; empty for a dense run, whose selector columns are then NaN.
        verdicts: its rows of table `verdicts`.
    """
    row: dict[str, Any] = {
        **facts,
        "loss": losses["nats"].mean(),
        "bits_per_byte": losses["bits_per_byte"].mean(),
        "num_selectors": 0,
    }
    if len(selectors):
        full = selectors[selectors["probe"] == "full"]
        row["num_selectors"] = len(full)
        # a NaN is a value that does not exist and must not be averaged away
        reduced = [statistic for statistic in STATISTICS if statistic.over_selectors]
        row |= {one.name: full[one.name].agg(one.over_selectors, skipna=False) for one in reduced}
        row["information_bits"] = (full["information_bits"] - full["null_mean_bits"]).mean()
        whole = verdicts[verdicts["selector"] == "any"].set_index("rule")["first_step"]
        row |= {f"{rule}_step": whole[rule] for rule in RULES}
    return pd.DataFrame([row])
