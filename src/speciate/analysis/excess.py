"""Excess information of a run over the controls of its study, its intervals, and the state of the run.

Specialisation counts as learned only where it exceeds that of the study's controls, whose selectors never learn, at the
same seed, selector and probe. If a control is missing at that seed, there is no excess (NaN), and table `missing` names
the run; the mean over the remaining controls would be another quantity. A control says nothing about selectors that it
does not have: a frozen router of experts is no control for a Mixture-of-Depths.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from speciate.analysis import collapse, information, statistics
from speciate.selection.tally import Array

NAN = float("nan")
OF_RUN = (
    *("excess_information_bits", "excess_low_bits", "excess_high_bits"),
    *("least_excess_bits", "least_excess_low_bits"),
)
"""Columns of table `runs` about the excess, which a run without selectors or without controls does not have."""
_KEY = ["seed", "selector", "step", "probe"]


def matching_controls(selectors: pd.DataFrame, controls: tuple[str, ...], paths: set[str]) -> tuple[str, ...]:
    """Return the controls for the selectors `paths`: those that have them all, or that have no run at all."""
    known = {control: set(selectors.loc[selectors["ablation"] == control, "selector"]) for control in controls}
    return tuple(control for control in controls if not known[control] or paths <= known[control])


def add_excess(selectors: pd.DataFrame, controls: tuple[str, ...], num_domains: int) -> pd.DataFrame:
    """Add excess_information_bits, normalised_information and q_value to table `selectors`.

    excess = (I - null mean) minus the controls' mean of the same. The normalised information divides that by the excess
    of an oracle of the domain, log2 D at most. The q-values are Benjamini-Hochberg's over the full-probe rows of all
    runs.
    """
    table = selectors.copy()
    unbiased = table["information_bits"] - table["null_mean_bits"]
    of_controls = table.assign(unbiased=unbiased)[table["ablation"].isin(controls)].groupby(_KEY)["unbiased"]
    needed = {path: len(matching_controls(table, controls, {path})) for path in table["selector"].unique()}
    count = of_controls.count()
    due = np.array([needed[path] for path in count.index.get_level_values("selector")], dtype=np.int64)
    level = of_controls.mean().where(count == due) if controls else pd.Series(dtype=float)
    places = pd.MultiIndex.from_frame(table[_KEY])
    control = level.reindex(places).to_numpy(dtype=np.float64) if len(level) else np.full(len(table), np.nan)
    full = (table["probe"] == "full").to_numpy()
    table["excess_information_bits"] = unbiased - control
    sizes = zip(table["num_slots"], table["num_chosen"], strict=True)
    oracle = np.array([information.oracle_bits(num_domains, int(slots), float(chosen)) for slots, chosen in sizes])
    normalised = [
        information.oracle_normalised(*values) for values in zip(unbiased.to_list(), control, oracle, strict=True)
    ]
    table["normalised_information"] = np.where(full, np.array(normalised, dtype=np.float64), np.nan)
    q_value = np.full(len(table), np.nan)
    q_value[full] = statistics.benjamini_hochberg(table.loc[full, "p_value"].to_numpy(dtype=np.float64))
    table["q_value"] = q_value
    return table


def add_load_states(selectors: pd.DataFrame, controls: tuple[str, ...]) -> pd.DataFrame:
    """Add load_state to the full-probe rows of table `selectors`: even, collapsed or uneven (`collapse.load_state`)."""
    table = selectors.assign(load_state="")
    checks = table[table["probe"] == "telemetry"].sort_values("step", kind="stable")
    of_selector = checks.groupby(["ablation", "seed", "selector"])
    first, last = of_selector.first(), of_selector.last()
    for index, row in table[table["probe"] == "full"].iterrows():
        key = (row["ablation"], row["seed"], row["selector"])
        limits = {
            "max_share_limit": float(row["max_share_limit"]),
            "effective_limit": float(row["effective_experts_limit"]),
        }
        begun, drift = first.loc[key], (float(first.loc[key, "drift_nats"]), float(last.loc[key, "drift_nats"]))
        bounds = (float(row["max_share_low"]), float(row["effective_experts_high"]))
        started = (float(begun["max_share"]), float(begun["effective_experts"]))
        table.loc[index, "load_state"] = collapse.load_state(
            collapse.is_beyond_limits(*bounds, **limits),
            learns=row["ablation"] not in controls,
            began_beyond=collapse.is_beyond_limits(*started, **limits),
            drift_ratio=drift[1] / drift[0] if drift[0] > 0 else NAN,
        )
    return table


def excess_of_run(
    ablation: str,
    seed: int,
    *,
    selectors: pd.DataFrame,
    draws: pd.DataFrame,
    controls: tuple[str, ...],
    confidence: float,
) -> dict[str, float]:
    """Return the run's mean excess information over the controls' mean and over the strongest control, with intervals.

    The intervals are paired document bootstraps: draw b resamples the same documents in every run, so whatever the
    texts have in common cancels. The least excess is the smallest over the controls, and so is its lower bound (an
    intersection-union test: to exceed every control at level a/2 needs no correction).

    Returns:
        excess_information_bits, excess_low_bits, excess_high_bits, least_excess_bits, least_excess_low_bits; empty
        where a control is missing, or where none has these selectors. A control has no least excess, because it is the
        yardstick.
    """

    def mean_over_selectors(name: str) -> tuple[float, Array | None]:
        of_run = (selectors["ablation"] == name) & (selectors["seed"] == seed) & (selectors["probe"] == "full")
        rows = selectors[of_run]
        drawn = draws[(draws["ablation"] == name) & (draws["seed"] == seed)]
        rows, drawn = rows[rows["selector"].isin(paths)], drawn[drawn["name"].isin(paths)]
        if list(rows["selector"]) != paths or not paths:
            return NAN, None
        unbiased = float((rows["information_bits"] - rows["null_mean_bits"]).mean(skipna=False))
        return unbiased, drawn.groupby("draw")["value"].mean().to_numpy(dtype=np.float64)

    this_run = (selectors["ablation"] == ablation) & (selectors["seed"] == seed) & (selectors["probe"] == "full")
    paths = list(selectors[this_run]["selector"])
    controls = matching_controls(selectors, controls, set(paths))
    run, run_B = mean_over_selectors(ablation)
    pairs = [mean_over_selectors(control) for control in controls]
    known = [(value, drawn_B) for value, drawn_B in pairs if drawn_B is not None]
    if run_B is None or not controls or len(known) < len(controls):
        return {}
    mean, mean_B = run - float(np.mean([value for value, _ in known])), run_B - np.mean([b for _, b in known], axis=0)
    low, high = statistics.centred_interval(mean, mean_B, confidence)
    columns = {"excess_information_bits": mean, "excess_low_bits": low, "excess_high_bits": high}
    if ablation not in controls:
        lows = [statistics.centred_interval(run - value, run_B - drawn_B, confidence)[0] for value, drawn_B in known]
        columns |= {"least_excess_bits": min(run - value for value, _ in known), "least_excess_low_bits": min(lows)}
    return columns


def use_of_run(full: pd.DataFrame, uses: Mapping[str, str], level: float) -> str:
    """Return the use of a run's selectors: of those that tell the domain (q <= level), or of all where none does.

    `used` where some selector is, `idle` where all are, otherwise `undecided`.

    Args:
        full: rows of the finished model's selectors.
        uses: use of each selector, by its path; a selector that is missing is undecided.
        level: largest q-value that counts as significant.
    """
    telling = full.loc[full["q_value"] <= level, "selector"]
    found = {uses.get(path, "undecided") for path in (telling if len(telling) else full["selector"])}
    return "used" if "used" in found else "idle" if found == {"idle"} else "undecided"


def add_states(
    runs: pd.DataFrame,
    selectors: pd.DataFrame,
    draws: pd.DataFrame,
    *,
    uses: Mapping[tuple[str, int], Mapping[str, str]],
    controls: tuple[str, ...],
    confidence: float,
) -> pd.DataFrame:
    """Add the excess columns and the state to table `runs`; `selectors` must have q-values and load states already.

    `uses` has what each selector's choice does for the loss, by (ablation, seed) and path.
    """
    filled: list[dict[str, object]] = []
    information_draws = draws[draws["statistic"] == "information_bits"]
    for run in runs.to_dict("records"):
        ablation, seed = str(run["ablation"]), int(run["seed"])
        of_run = (selectors["ablation"] == ablation) & (selectors["seed"] == seed)
        full = selectors[of_run & (selectors["probe"] == "full")]
        row: dict[str, object] = {**dict.fromkeys(OF_RUN, NAN), "state": "", **{str(k): v for k, v in run.items()}}
        if len(full):
            excess = excess_of_run(
                ablation,
                seed,
                selectors=selectors,
                draws=information_draws,
                controls=controls,
                confidence=confidence,
            )
            row |= excess
            least = -np.inf if ablation in controls else excess.get("least_excess_low_bits", NAN)
            row["state"] = collapse.run_state(
                full["load_state"].to_list(),
                least_q_value=float(full["q_value"].min()),
                least_excess_low=least,
                level=1 - confidence,
                use=use_of_run(full, uses.get((ablation, seed), {}), 1 - confidence),
            )
        filled.append(row)
    return pd.DataFrame(filled)
