"""Test costs, need and use against numbers computed by hand, and intervals against the draws that they come from."""

import math
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from speciate.analysis.effects import costs, effects
from speciate.analysis.effects.costs import Draws, Nats
from speciate.analysis.observation import Groups, group_documents
from speciate.stages import compare

DOMAINS = ("code", "prose")


def groups(per_domain: int = 20) -> Groups:
    """Return documents of two domains, two documents a group, and a last document that no block holds."""
    documents = pd.DataFrame({"domain": np.repeat(DOMAINS, 2 * per_domain)})
    documents["group"] = [f"group{row // 2}" for row in range(len(documents))]
    return group_documents(documents, DOMAINS)


def test_a_cost_is_a_difference_of_means_and_all_is_the_mean_over_domains() -> None:
    some = groups(2)
    clean = Nats(np.array([4.0, 2, 6, 0, 10, 10, 5, 0]), np.array([2.0, 1, 3, 0, 2, 2, 1, 0]))
    changed = Nats(np.array([6.0, 3, 9, 0, 11, 11, 5.5, 0]), clean.tokens_G)
    rows = costs.cost_rows(clean, changed, some, Draws(99, 0.95, 0)).set_index("domain")
    assert rows["cost_nats"].to_dict() == pytest.approx({"code": 1.0, "prose": 0.5, "all": 0.75})
    assert rows["clean_nats"].to_dict() == pytest.approx({"code": 2.0, "prose": 5.0, "all": 3.5})
    assert rows["tokens"].tolist() == [6, 5, 11]
    assert rows["documents"].tolist() == [3, 3, 6]
    # every document of a domain has the same cost a token, so no resample can differ
    assert rows["cost_low_nats"].to_dict() == pytest.approx({"code": 1.0, "prose": 0.5, "all": 0.75})


def test_other_tokens_may_count_under_an_intervention() -> None:
    some = groups(2)
    clean = Nats(np.full(8, 6.0), np.full(8, 3.0))
    changed = Nats(np.full(8, 4.0), np.full(8, 1.0))
    rows = costs.cost_rows(clean, changed, some, Draws(19, 0.95, 0))
    assert rows["cost_nats"].tolist() == pytest.approx([2.0, 2.0, 2.0])
    none = costs.cost_rows(clean, Nats(np.zeros(8), np.zeros(8)), some, Draws(19, 0.95, 0))
    assert none["cost_nats"].isna().all()


def test_intervals_are_as_wide_as_the_spread_of_groups_and_hold_the_truth() -> None:
    draw = np.random.default_rng(3)
    some, held = groups(30), 0
    for _ in range(200):
        tokens = np.full(120, 50.0)
        of_group = np.repeat(draw.normal(0.1, 0.2, 60), 2)  # documents of a group share their cost
        rows = costs.cost_rows(
            Nats(4 * tokens, tokens), Nats((4 + of_group) * tokens, tokens), some, Draws(199, 0.95, 0)
        )
        whole = rows.set_index("domain").loc["all"]
        held += whole["cost_low_nats"] <= 0.1 <= whole["cost_high_nats"]
        width = whole["cost_high_nats"] - whole["cost_low_nats"]
    assert width == pytest.approx(2 * 1.96 * 0.2 / math.sqrt(60), rel=0.35)
    assert stats.binomtest(int(held), 200, 0.95).pvalue > 0.001


def test_a_domain_with_one_group_has_no_interval() -> None:
    documents = pd.DataFrame({"domain": ["code", "code", "prose"], "group": ["a", "b", "c"]})
    some = group_documents(documents, DOMAINS)
    rows = costs.cost_rows(Nats(np.ones(3), np.ones(3)), Nats(np.full(3, 2.0), np.ones(3)), some, Draws(19, 0.95, 0))
    assert rows["cost_nats"].tolist() == [1.0, 1.0, 1.0]
    assert rows["cost_low_nats"].isna().tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("low", "high", "outside", "use"),
    [
        (0.06, 0.2, False, "used"),
        (0.05, 0.2, False, "undecided"),
        (-0.05, 0.05, False, "idle"),
        (0.0, 0.0, False, "idle"),
        (-0.06, 0.01, False, "undecided"),
        (-0.3, -0.06, False, "undecided"),  # random choice is better: no use, and yet not without effect
        (-0.3, -0.06, True, "used"),  # an importance chooses what is asked
        (math.nan, math.nan, False, "undecided"),
    ],
)
def test_use_is_by_the_whole_interval(low: float, high: float, outside: bool, use: str) -> None:
    assert effects.use_of(low, high, 0.05, outside) == use


def test_spearman_is_scipys() -> None:
    draw = np.random.default_rng(0)
    x, y = pd.Series(draw.integers(0, 5, 40)), pd.Series(draw.integers(0, 5, 40))
    assert effects.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert math.isnan(effects.spearman(x, pd.Series(np.ones(40))))


def test_need_is_beyond_the_control_and_selectivity_is_that_of_the_own_domain() -> None:
    need = {(0, "code"): 0.5, (0, "prose"): 0.1, (1, "code"): 0.2, (1, "prose"): 0.8}
    rows = [
        {"slot": slot, "domain": domain, "intervention": kind, "cost_nats": cost + 0.05 * (kind == "masked_slot")}
        for (slot, domain), value in need.items()
        for kind, cost in (("masked_slot", value), ("masked_control", 0.05))
    ]
    rows.append({"slot": -1, "domain": "code", "intervention": "load_matched", "cost_nats": 9.0})
    lifts = pd.DataFrame(
        [{"slot": slot, "domain": domain, "lift": value + 1} for (slot, domain), value in need.items()]
    )
    found = effects.need(pd.DataFrame(rows), lifts)
    assert found["need_correlation"] == pytest.approx(1.0)
    assert found["selectivity_nats"] == pytest.approx((0.5 - 0.1 + 0.8 - 0.2) / 2)
    against = effects.need(pd.DataFrame(rows), lifts.assign(lift=-lifts["lift"]))
    assert against["need_correlation"] == pytest.approx(-1.0)
    assert against["selectivity_nats"] == pytest.approx(-(0.5 - 0.1 + 0.8 - 0.2) / 2)
    assert math.isnan(effects.need(pd.DataFrame(rows[-1:]), lifts)["need_correlation"])


def test_selectivity_has_the_interval_of_its_groups() -> None:
    draw = np.random.default_rng(0)
    some, tokens = groups(40), np.full(160, 10.0)
    clean = Nats(3 * tokens, tokens)
    in_code = np.arange(160) < 80
    noise = np.repeat(draw.normal(0, 0.3, 80), 2)

    def under(cost: np.ndarray) -> Nats:
        return Nats((3 + cost) * tokens, tokens)

    slots = [
        costs.Slot(0, under(np.where(in_code, 0.6, 0.1) + 0.05), under(np.full(160, 0.05))),
        costs.Slot(1, under(np.where(in_code, 0.2, 0.5) + noise), None),
    ]
    row = costs.selectivity_row(slots, clean, some, Draws(999, 0.95, 0))
    of_domain = [noise[part].mean() for part in (in_code, ~in_code)]
    assert row["cost_nats"] == pytest.approx((0.5 + 0.3 + of_domain[1] - of_domain[0]) / 2)
    # only the second slot's need varies: by two independent means of 40 groups
    spread = math.sqrt(sum(np.var(noise[part]) / 40 for part in (in_code, ~in_code))) / 2
    assert row["cost_high_nats"] - row["cost_low_nats"] == pytest.approx(2 * 1.96 * spread, rel=0.12)
    assert (row["domain"], row["tokens"], row["documents"]) == ("all", 1600, 160)
    exact = costs.selectivity_row(slots[:1], clean, some, Draws(19, 0.95, 0))
    assert [exact[name] for name in ("cost_nats", "cost_low_nats", "cost_high_nats")] == pytest.approx([0.5] * 3)
    alone = group_documents(pd.DataFrame({"domain": ["code", "code", "prose"], "group": ["a", "b", "c"]}), DOMAINS)
    few = Nats(np.full(3, 2.0), np.ones(3))
    single = costs.selectivity_row([costs.Slot(0, few, None)], few, alone, Draws(19, 0.95, 0))
    assert math.isnan(single["cost_low_nats"])
    assert single["cost_nats"] == 0


def test_the_interval_of_the_selectivity_is_that_of_its_row() -> None:
    kinds = (("load_matched", 0.1), ("selectivity", 0.3))
    rows = pd.DataFrame(
        [
            {"ablation": "a", "seed": 0, "selector": "router", "layer": 0, "slot": -1, "domain": "all"}
            | {"intervention": kind, "cost_nats": cost, "cost_low_nats": cost - 0.02, "cost_high_nats": cost + 0.02}
            for kind, cost in kinds
        ]
    )
    lifts = pd.DataFrame(columns=["ablation", "seed", "selector", "probe", "slot", "domain", "lift"])
    for given, bounds in ((rows, [0.28, 0.32]), (rows[:1], [math.nan] * 2)):
        found = effects.effects_table(given, lifts, (), 0.05).iloc[0]
        assert [found["selectivity_low_nats"], found["selectivity_high_nats"]] == pytest.approx(bounds, nan_ok=True)
        assert found["matched_nats"] == 0.1


def test_selectivity_is_over_the_controls_of_the_same_seed() -> None:
    rows = [
        {"ablation": arm, "seed": seed, "selector": "router", "selectivity_nats": value + seed}
        for arm, value in (("learned", 0.5), ("frozen", 0.1), ("hash", 0.3))
        for seed in (0, 1)
    ]
    found = effects.add_selectivity_excess(pd.DataFrame(rows), ("frozen", "hash"))
    learned = found[found["ablation"] == "learned"]["selectivity_excess_nats"]
    assert learned.tolist() == pytest.approx([0.3, 0.3])
    missing = effects.add_selectivity_excess(pd.DataFrame(rows[:-1]), ("frozen", "hash"))
    assert missing["selectivity_excess_nats"].isna().tolist() == [False, True, False, True, False]


# --- in a whole study --------------------------------------------------------------------------------------------


def test_a_planted_study_has_its_effects(table: Callable[[str], pd.DataFrame]) -> None:
    rows = table("effects")
    assert rows.groupby("ablation", sort=False)["use"].unique().map(list).to_dict() == {
        "auxiliary": ["used"],
        "unbalanced_fast": ["idle"],
        "frozen": ["used"],
        "hash": ["used"],
    }
    runs = table("runs").set_index(["ablation", "seed"])
    assert runs.loc[("auxiliary", 0), "matched_nats"] == pytest.approx(0.2)
    assert math.isnan(runs.loc[("dense", 0), "matched_nats"])
    # slot e is needed by domain e mod 3 alone, .2 nats beyond its control, and `auxiliary` prefers it so
    learned = rows[rows["ablation"] == "auxiliary"]
    assert learned["selectivity_nats"].tolist() == pytest.approx([0.2] * 4)
    assert (learned["need_correlation"] > 0.6).all()
    assert (rows[rows["ablation"] == "hash"]["selectivity_nats"] < 0.2).any()
    named = table("comparisons").query("statistic == 'matched_nats' and ablation == 'frozen'")
    assert named["difference"].tolist() == pytest.approx([-0.1])


def test_what_tells_the_domain_and_costs_nothing_is_idle(study: pathlib.Path, compare_spec_of) -> None:
    spec = compare_spec_of((0, 1))
    measures = compare.read_measures(spec, sorted(study.glob("measures/*/*")))
    interventions = compare.read_interventions(spec, sorted(study.glob("interventions/*/*/*.parquet")))

    def states(rows: pd.DataFrame | None) -> dict[str, str]:
        runs = compare.compare(spec, measures, rows)["runs"]
        return runs[runs["seed"] == 0].set_index("ablation")["state"].to_dict()

    cheap = interventions.assign(
        **{name: interventions[name] - 0.19 for name in ("cost_nats", "cost_low_nats", "cost_high_nats")}
    )
    assert states(interventions)["auxiliary"] == "specialised"
    assert states(cheap)["auxiliary"] == "idle"
    assert states(cheap)["unbalanced_fast"] == "collapsed"
    assert states(None)["auxiliary"] == "undecided"
    assert states(None)["frozen"] == "indifferent"


def test_a_foreign_table_of_interventions_is_refused(study: pathlib.Path, compare_spec_of) -> None:
    file = study / "interventions/hash/seed1/interventions.parquet"
    with pytest.raises(ValueError, match="must hold one run of the study, and holds hash, seed 1"):
        compare.read_interventions(compare_spec_of((0,)), [file])
