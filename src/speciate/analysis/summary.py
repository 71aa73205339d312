"""One run in one row: its loss, and its selectors in one number each.

The worst selector speaks for the run where the question is collapse (largest share, MaxVio, Gini; fewest effective
slots), all together where slots are counted (dead, revived), their mean where the question is how much is known.
"""

from typing import Any

import pandas as pd

from speciate.analysis.collapse import RULES

_OVER_SELECTORS = {
    "max_share": "max",
    "max_violation": "max",
    "effective_experts": "min",
    "gini": "max",
    "dead_experts": "sum",
    "revived_experts": "sum",
    "token_explained_bits": "mean",
    "conditional_information_bits": "mean",
    "commitment_nats": "mean",
    "drift_nats": "mean",
    "information_nats": "mean",
}


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
        row |= {column: full[column].agg(how, skipna=False) for column, how in _OVER_SELECTORS.items()}
        row["information_bits"] = (full["information_bits"] - full["null_mean_bits"]).mean()
        whole = verdicts[verdicts["selector"] == "any"].set_index("rule")["first_step"]
        row |= {f"{rule}_step": whole[rule] for rule in RULES}
    return pd.DataFrame([row])
