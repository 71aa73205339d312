"""Test the three answers against small tables whose truth is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tests.figures import planted

from speciate.config.stage_specs import Arm, ReportSpec
from speciate.reporting import answer, over_seeds

SEEDS = tuple(range(4))
# (information, excess, cost of random choice, unevenness, loss) at the first seed; each further seed adds `STEP`
ARMS = {
    "dense": (math.nan, math.nan, math.nan, math.nan, 2.40),
    "learned": (0.10, -0.06, 0.08, 0.5, 2.30),
    "fast": (0.02, -0.14, 0.01, 1.8, 2.38),
    "frozen": (0.16, math.nan, 0.03, 0.6, 2.36),
    "hash": (0.30, 0.14, 0.05, 0.4, 2.24),
}
STEP = {"information_bits": 0.004, "excess_information_bits": 0.002, "matched_nats": 0.003, "loss": 0.01}
STATES = {"learned": "idle", "fast": "collapsed", "frozen": "uneven", "hash": "specialised"}


def runs_table(states: dict[str, str] | None = None, seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Return table `runs`; the loss of an arm wobbles by a thousandth from seed to seed, differently in each arm."""
    rows = []
    for place, (arm, values) in enumerate(ARMS.items()):
        for seed in seeds:
            names = ("information_bits", "excess_information_bits", "matched_nats", "unevenness", "loss")
            row = {name: value + STEP.get(name, 0.0) * seed for name, value in zip(names, values, strict=True)}
            row["loss"] += 0.001 * ((place + 1) * seed * seed % 5)
            state = (states or STATES).get(arm, "")
            rows.append({"ablation": arm, "seed": seed, "num_selectors": int(arm != "dense"), "state": state, **row})
    return pd.DataFrame(rows)


def effects_table(seeds: tuple[int, ...] = SEEDS) -> pd.DataFrame:
    """Return table `effects` with one selector a run; only the learned arm's is used."""
    use = {"learned": "used", "fast": "idle", "frozen": "undecided", "hash": "used"}
    return pd.DataFrame([{"ablation": arm, "seed": seed, "use": value} for arm, value in use.items() for seed in seeds])


def hypotheses_table(*pairs: tuple[str, str]) -> pd.DataFrame:
    """Return table `hypotheses` with one about the loss of each pair (arm, reference)."""
    rows = [{"statistic": "loss", "test": "difference", "arm": arm, "reference": other} for arm, other in pairs]
    return pd.DataFrame(rows, columns=["statistic", "test", "arm", "reference"])


def spec(**changes) -> ReportSpec:
    arms = tuple(Arm(name=arm, about="a", fixed=arm in ("frozen", "hash")) for arm in ARMS)
    settings = {
        "study": "small",
        "question": "Q?",
        "arms": arms,
        "seeds": SEEDS,
        "domains": ("a", "b"),
        "reference": "learned",
        "controls": ("frozen",),
        "hypotheses": (),
        "figures": (),
        "confidence": 0.95,
        "armed_after": 0.1,
        "margin": 0.05,
        "permutations": 9,
        "resamples": 9,
        "config_digest": "0",
    }
    return ReportSpec(**{**settings, **changes})


def answered(runs: pd.DataFrame | None = None, settings: ReportSpec | None = None) -> list[answer.Answer]:
    tables = {
        "runs": runs_table() if runs is None else runs,
        "effects": effects_table(),
        "hypotheses": hypotheses_table(),
    }
    return answer.answers(tables, settings or spec())


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """Return Student's interval as scipy has it."""
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def test_specialisation_has_its_interval_its_control_and_its_cost() -> None:
    part = answered()[0]
    assert (part.question, part.verdict) == ("Does it specialise?", "No")
    # hash is no control of the study, but its router cannot learn either: its states are not counted
    assert part.text.startswith("None of the 8 runs with a selector that learns specialised.")
    assert "Without learning, by construction: hash in 4 of 4 runs" in part.text
    steps = np.arange(4)
    low, high = t_interval(0.10 + 0.004 * steps)
    assert f"The choices of learned tell 0.106 [{low:.3f}, {high:.3f}] bits of a text’s domain" in part.text
    low, high = t_interval(-0.06 + 0.002 * steps)
    assert f"0.057 [{-high:.3f}, {-low:.3f}] bits less than those of frozen, which never learned" in part.text
    low, high = t_interval(0.08 + 0.003 * steps)
    cost = f"{np.mean(0.08 + 0.003 * steps):.3f} [{low:.3f}, {high:.3f}] nats per token"
    assert f"Random choice of the same load costs {cost} in learned and 0.03" in part.text
    assert part.text.endswith("nats per token in frozen.")


def test_collapse_names_the_arm_the_others_and_the_controls() -> None:
    part = answered()[1]
    low = stats.binomtest(4, 4).proportion_ci(0.95, method="exact").low
    assert part.verdict == "In fast"
    assert f"Collapsed: fast in 4 of 4 runs [{low:.0%}, 100%]" in part.text
    assert "never: learned, 0 of 4 runs [0%, 60%]." in part.text
    assert "Without learning, as uneven: frozen in 4 of 4 runs" in part.text
    runs = runs_table().pivot(index="seed", columns="ablation", values="loss")
    low, high = t_interval((runs["fast"] - runs["learned"]).to_numpy())
    assert f"Fast ends 0.080 [{low:.3f}, {high:.3f}] nats per token above learned" in part.text
    assert "loses 0.015 [" in part.text


def test_collapse_that_did_not_happen_says_how_likely_it_may_still_be() -> None:
    part = answered(runs_table({**STATES, "fast": "idle", "frozen": "indifferent"}))[1]
    assert part.verdict == "No"
    assert "P(collapse) may still be 60%" in part.text
    assert "No run of the controls (frozen) is as uneven." in part.text


def test_matter_compares_the_loss_with_controls_and_with_arms_without_a_selector() -> None:
    part = answered()[2]
    assert part.verdict == "Yes"
    runs = runs_table().pivot(index="seed", columns="ablation", values="loss")
    for arm, kind in (("frozen", "control"), ("hash", "cannot learn"), ("dense", "no selector")):
        change = (runs["learned"] - runs[arm]).to_numpy()
        numbers = f"{change.mean():+.3f} [{t_interval(change)[0]:+.3f}, {t_interval(change)[1]:+.3f}]"
        assert f"{arm} ({kind}): {numbers.replace('-', '−')}" in part.text
    assert "in 4 of 8 learned selectors, and 0 of 4 in the controls." in part.text


@pytest.mark.parametrize(
    ("frozen", "dense", "verdict"),
    [(2.36, 2.40, "Yes"), (2.20, 2.40, "Yes, against dense"), (2.20, 2.20, "No"), (2.3005, 2.3005, "Undecided")],
)
def test_the_verdict_on_the_loss_follows_from_both_comparisons(frozen: float, dense: float, verdict: str) -> None:
    runs = runs_table()
    noise = np.array([0.0, 0.004, -0.004, 0.0])
    for arm, loss in (("frozen", frozen), ("dense", dense)):
        runs.loc[runs["ablation"] == arm, "loss"] = loss + 0.01 * np.arange(4) + noise
    assert answered(runs)[2].verdict == verdict


def test_some_specialised_runs_are_counted_with_their_interval() -> None:
    runs = runs_table({**STATES, "learned": "specialised"})
    part = answered(runs)[0]
    assert part.verdict == "In 4 of 8 runs"
    assert part.text.startswith("Specialised: learned in 4 of 4 runs [40%, 100%].")


def test_a_study_without_controls_says_that_it_cannot_tell() -> None:
    parts = answered(settings=spec(controls=()))
    assert "no control that never learned" in parts[0].text
    assert "no control that never learned" in parts[1].text or "Without learning" in parts[1].text


def test_one_seed_has_no_interval() -> None:
    runs = runs_table(seeds=(0,))
    parts = answer.answers(
        {"runs": runs, "effects": effects_table((0,)), "hypotheses": hypotheses_table()}, spec(seeds=(0,))
    )
    assert "0.100 bits (one seed, so no interval)" in parts[0].text
    assert parts[2].verdict == "Undecided"
    assert all("nan" not in part.text for part in parts)


def test_losses_of_another_kind_are_not_compared() -> None:
    arms = tuple(arm.model_copy(update={"bound": arm.name == "dense"}) for arm in spec().arms)
    assert "dense" not in answered(settings=spec(arms=arms))[2].text


def test_a_study_without_learned_selectors_has_one_answer() -> None:
    runs = runs_table()
    (only,) = answered(runs[runs["ablation"].isin(["dense", "frozen"])])
    assert only.verdict == "This study cannot say"


def test_differences_are_those_of_the_table_of_comparisons() -> None:
    tables = planted.tables(seeds=(0, 1, 2))
    for row in tables["comparisons"][tables["comparisons"]["statistic"] == "loss"].itertuples():
        found = over_seeds.paired_difference(tables["runs"], "loss", (row.ablation, row.reference), 0.95)
        assert found.estimate == pytest.approx(row.difference)


def test_a_change_is_told_without_its_sign() -> None:
    change = over_seeds.paired_difference(runs_table(), "loss", ("learned", "dense"), 0.95)
    text = over_seeds.format_change(change, "nats", ("below", "above"))
    assert change.estimate < 0 and text.startswith("0.1") and text.endswith("nats below")
    low, high = (float(part) for part in text[text.index("[") + 1 : text.index("]")].split(", "))
    assert 0 < low < high


def test_the_price_of_collapse_is_that_of_the_studys_own_comparison() -> None:
    # the reference differs from the collapsed arm in its rate too; the study compares it with 'hash'
    tables = {"runs": runs_table(), "effects": effects_table(), "hypotheses": hypotheses_table(("fast", "hash"))}
    text = answer.answers(tables, spec())[1].text
    assert "nats per token above hash" in text and "above learned" not in text
