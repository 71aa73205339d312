"""What a run knows beyond the controls of its study, how sure that is, and what state that leaves the run in.

Specialisation is learned only as far as it exceeds what the study's controls have, selectors that never learn: same
seed, same selector, same probe. Without every control at that seed there is no excess (NaN), and the missing run is
named in table `missing`; the mean of those that happen to be there would be another quantity. A control says nothing
of selectors that it does not have: a frozen router of experts is no control of a Mixture-of-Depths.
"""

import numpy as np
import pandas as pd

from speciate.analysis import collapse, information, statistics
from speciate.selection.tally import Array

NAN = float("nan")
_PLACE = ["seed", "selector", "step", "probe"]


def concerned(selectors: pd.DataFrame, controls: tuple[str, ...], paths: set[str]) -> tuple[str, ...]:
    """The controls of these selectors: those that have them all at any seed, or of which no run is there at all."""
    own = {control: set(selectors.loc[selectors["ablation"] == control, "selector"]) for control in controls}
    return tuple(control for control in controls if not own[control] or paths <= own[control])


def with_excess(selectors: pd.DataFrame, controls: tuple[str, ...], num_domains: int) -> pd.DataFrame:
    """Fills excess_information_bits, normalised_information and q_value of table `selectors`.

    excess = (I - null mean) - mean over the controls of the same. normalised: that over what an oracle of the domain
    would have above the controls, log2 D at most. q: Benjamini-Hochberg over the full-probe rows of all runs.
    """
    table = selectors.copy()
    unbiased = table["information_bits"] - table["null_mean_bits"]
    of_controls = table.assign(unbiased=unbiased)[table["ablation"].isin(controls)].groupby(_PLACE)["unbiased"]
    needed = {path: len(concerned(table, controls, {path})) for path in table["selector"].unique()}
    count = of_controls.count()
    due = np.array([needed[path] for path in count.index.get_level_values("selector")], dtype=np.int64)
    level = of_controls.mean().where(count == due) if controls else pd.Series(dtype=float)
    places = pd.MultiIndex.from_frame(table[_PLACE])
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


def excess_of_run(
    ablation: str,
    seed: int,
    selectors: pd.DataFrame,
    draws: pd.DataFrame,
    controls: tuple[str, ...],
    confidence: float,
) -> dict[str, float]:
    """The run's mean excess information over the mean of the controls, and over the strongest of them, with intervals.

    Paired document bootstrap: draw b resamples the same documents in every run, so what the texts have in common
    cancels. The least excess is the smallest over the controls, and so is its lower bound (an intersection-union test:
    exceeding every control at level a/2 needs no correction).

    Returns:
        excess_information_bits, excess_low_bits, excess_high_bits, least_excess_bits, least_excess_low_bits; NaN where
        a control is missing, or none has these selectors. A control's own row has no least excess: it is a measure,
        and is not measured.
    """

    def mean_over_selectors(name: str) -> tuple[float, Array | None]:
        mine = (selectors["ablation"] == name) & (selectors["seed"] == seed) & (selectors["probe"] == "full")
        rows = selectors[mine]
        drawn = draws[(draws["ablation"] == name) & (draws["seed"] == seed)]
        rows, drawn = rows[rows["selector"].isin(paths)], drawn[drawn["name"].isin(paths)]
        if list(rows["selector"]) != paths or not paths:
            return NAN, None
        unbiased = float((rows["information_bits"] - rows["null_mean_bits"]).mean())
        return unbiased, drawn.groupby("draw")["value"].mean().to_numpy(dtype=np.float64)

    this_run = (selectors["ablation"] == ablation) & (selectors["seed"] == seed) & (selectors["probe"] == "full")
    paths = list(selectors[this_run]["selector"])
    controls = concerned(selectors, controls, set(paths))
    own, own_B = mean_over_selectors(ablation)
    pairs = [mean_over_selectors(control) for control in controls]
    known = [(value, drawn_B) for value, drawn_B in pairs if drawn_B is not None]
    if own_B is None or not controls or len(known) < len(controls):
        return {}
    mean, mean_B = own - float(np.mean([value for value, _ in known])), own_B - np.mean([b for _, b in known], axis=0)
    low, high = statistics.centred(mean, mean_B, confidence)
    found = {"excess_information_bits": mean, "excess_low_bits": low, "excess_high_bits": high}
    if ablation not in controls:
        lows = [statistics.centred(own - value, own_B - drawn_B, confidence)[0] for value, drawn_B in known]
        found |= {"least_excess_bits": min(own - value for value, _ in known), "least_excess_low_bits": min(lows)}
    return found


def with_states(
    runs: pd.DataFrame, selectors: pd.DataFrame, draws: pd.DataFrame, controls: tuple[str, ...], confidence: float
) -> pd.DataFrame:
    """Fills the excess columns and the state of table `runs`; `selectors` has its q-values already."""
    filled: list[dict[str, object]] = []
    information_draws = draws[draws["statistic"] == "information_bits"]
    for run in runs.to_dict("records"):
        ablation, seed = str(run["ablation"]), int(run["seed"])
        mine = selectors[(selectors["ablation"] == ablation) & (selectors["seed"] == seed)]
        full = mine[mine["probe"] == "full"]
        row: dict[str, object] = {str(key): value for key, value in run.items()}
        if len(full):
            excess = excess_of_run(ablation, seed, selectors, information_draws, controls, confidence)
            row |= excess
            bounds = zip(full["max_share_low"], full["num_slots"], strict=True)
            least = -np.inf if ablation in controls else excess.get("least_excess_low_bits", NAN)
            row["state"] = collapse.state(
                collapsed=any(collapse.has_collapsed(float(low), int(slots)) for low, slots in bounds),
                least_q_value=float(full["q_value"].min()),
                least_excess_low=least,
                level=1 - confidence,
            )
        filled.append(row)
    return pd.DataFrame(filled)
