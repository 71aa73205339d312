"""What a selector's choice is worth: from the costs of interventions, the need of each slot, and the selector's use.

A domain's need of a slot is what masking it costs the domain, beyond the same for as many random tokens.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from speciate.analysis.effects.costs import ALL, MATCHED, SELECTIVITY
from speciate.analysis.excess import matching_controls

NAN = float("nan")
KEPT = ("kept_loaded", "kept_lifted", "kept_random")
"""Interventions that keep some slots alone."""
OF_RUN = ("matched_nats", "need_correlation", "selectivity_nats")
"""Columns of table `effects` whose mean over a run's selectors is in table `runs`."""


def use_of(low: float, high: float, margin: float, outside: bool = False) -> str:
    """Return what a selector's choice does for the loss: `used`, `idle` or `undecided`.

    used       the cost of load-matched random choice exceeds the margin, by its interval's lower bound
    idle       it stays within plus and minus the margin, by both bounds
    undecided  the interval reaches beyond the margin on some side, or there is none

    Args:
        low: lower bound of the cost.
        high: upper bound.
        margin: in nats per token.
        outside: whether the selector is outside the model's layers. An importance chooses what a model is asked, so a
            loss that falls shows as much that its choice matters as one that rises.
    """
    if low > margin or (outside and high < -margin):
        return "used"
    return "idle" if -margin <= low and high <= margin else "undecided"


def effects_table(
    interventions: pd.DataFrame, experts: pd.DataFrame, controls: tuple[str, ...], margin: float
) -> pd.DataFrame:
    """Return a row for each run and selector: its costs, need and use.

    Args:
        interventions: table `interventions` of the study.
        experts: table `experts` of the study.
        controls: arms whose selectors do not learn.
        margin: cost above which a choice matters, in nats per token.
    """
    whole = interventions[interventions["domain"] == ALL]
    lifts = experts[experts["probe"] == "full"]
    rows: list[dict[str, object]] = []
    for (ablation, seed, selector), part in whole.groupby(["ablation", "seed", "selector"], sort=False):
        costs = part[part["slot"] < 0].set_index("intervention")
        matched = costs.loc[MATCHED] if MATCHED in costs.index else pd.Series(dtype=float)
        low, high = (float(matched.get(f"cost_{bound}_nats", NAN)) for bound in ("low", "high"))
        layer = int(part["layer"].iloc[0])
        key = (ablation, seed, selector)
        of_selector = [table[_is_of(table, key)] for table in (interventions, lifts)]
        rows.append(
            {
                "ablation": ablation,
                "seed": seed,
                "selector": selector,
                "layer": layer,
                "matched_nats": matched.get("cost_nats", NAN),
                "matched_low_nats": low,
                "matched_high_nats": high,
                "in_domain_nats": costs["cost_nats"].get("load_matched_in_domain", NAN),
                "random_nats": costs["cost_nats"].get("random_slots", NAN),
                "top_nats": costs["cost_nats"].get("top_slot", NAN),
                **{f"{kind}_nats": _with_most_kept(part, kind) for kind in KEPT},
                **need(*of_selector),
                **{f"selectivity_{bound}_nats": _bound_of(costs, bound) for bound in ("low", "high")},
                "use": use_of(low, high, margin, outside=layer < 0),
            }
        )
    table = pd.DataFrame(rows)
    return table if table.empty else add_selectivity_excess(table, controls)


def _with_most_kept(part: pd.DataFrame, kind: str) -> float:
    """Return the cost of keeping slots as `kind` does, with the largest number of slots that was tried."""
    rows = part[part["intervention"] == kind]
    return float(rows.loc[rows["slot"].idxmax(), "cost_nats"]) if len(rows) else NAN


def _bound_of(costs: pd.DataFrame, bound: str) -> float:
    """Return a bound of the selectivity's interval; NaN where it was not made."""
    return float(costs[f"cost_{bound}_nats"].get(SELECTIVITY, NAN))


def _is_of(table: pd.DataFrame, key: tuple[object, ...]) -> pd.Series:
    ablation, seed, selector = key
    return (table["ablation"] == ablation) & (table["seed"] == seed) & (table["selector"] == selector)


def need(interventions: pd.DataFrame, lifts: pd.DataFrame) -> dict[str, float]:
    """Return how a selector's lifts agree with its domains' need of the slots.

    K[e, d] is the cost in domain d of masking slot e, minus that of its load-matched control where there is one. The
    correlation is Spearman's, of lift and K over all slots and domains. Selectivity is the mean over slots of K[e, own]
    minus the mean of K[e, d] over the other domains, where e's own domain is that of its largest lift.

    Args:
        interventions: the selector's rows of table `interventions`.
        lifts: its rows of table `experts`, of the finished model on the whole probe set.
    """
    by_domain = interventions[(interventions["slot"] >= 0) & (interventions["domain"] != ALL)]
    wide = by_domain.pivot(index=["slot", "domain"], columns="intervention", values="cost_nats")
    if "masked_slot" not in wide:
        return {"need_correlation": NAN, "selectivity_nats": NAN}
    control = wide.get("masked_control", 0.0)
    pairs = pd.DataFrame(
        {"need": wide["masked_slot"] - control, "lift": lifts.set_index(["slot", "domain"])["lift"]}
    ).dropna()
    need_ED, lift_ED = (pairs[name].unstack() for name in ("need", "lift"))
    own_E = lift_ED.idxmax(axis=1) if len(lift_ED) else pd.Series(dtype=str)
    selectivity = [
        need_ED.at[slot, own] - need_ED.loc[slot].drop(own).mean()
        for slot, own in own_E.items()
        if len(need_ED.columns) > 1
    ]
    return {
        "need_correlation": spearman(pairs["lift"], pairs["need"]),
        "selectivity_nats": float(np.mean(selectivity)) if selectivity else NAN,
    }


def spearman(x: pd.Series, y: pd.Series) -> float:
    """Return Spearman's rank correlation, ties with their mean rank; NaN where one of the two is constant."""
    ranks = [values.rank().to_numpy(dtype=np.float64) for values in (x, y)]
    if len(x) < 2 or any(np.ptp(rank) == 0 for rank in ranks):
        return NAN
    return float(np.corrcoef(*ranks)[0, 1])


def add_selectivity_excess(effects: pd.DataFrame, controls: tuple[str, ...]) -> pd.DataFrame:
    """Add `selectivity_excess_nats`: selectivity minus the controls' mean at the same seed and selector.

    It is NaN where a control that has the selector at any seed lacks it at this one, and for a study without controls.
    """
    value = effects.set_index(["ablation", "seed", "selector"])["selectivity_nats"]
    excess = []
    for ablation, seed, selector in value.index:
        known = [
            value.get((control, seed, selector), NAN) for control in matching_controls(effects, controls, {selector})
        ]
        excess.append(value[ablation, seed, selector] - (float(np.mean(known)) if known else NAN))
    return effects.assign(selectivity_excess_nats=excess)


def means_of_runs(effects: pd.DataFrame) -> pd.DataFrame:
    """Return the means over each run's selectors of the columns `OF_RUN`."""
    if effects.empty:
        empty = pd.DataFrame({name: [] for name in ("ablation", "seed", *OF_RUN)})
        return empty.astype({"ablation": "str", "seed": "int64", **dict.fromkeys(OF_RUN, "float64")})
    return effects.groupby(["ablation", "seed"], sort=False)[list(OF_RUN)].mean().reset_index()


def uses_by_run(effects: pd.DataFrame) -> Mapping[tuple[str, int], dict[str, str]]:
    """Return the use of each run's selectors, by their path."""
    uses: dict[tuple[str, int], dict[str, str]] = {}
    for row in effects.itertuples():
        uses.setdefault((str(row.ablation), int(row.seed)), {})[str(row.selector)] = str(row.use)
    return uses
