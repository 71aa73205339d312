"""Compare a whole fake study: what was planted is found, what is missing is named, and the bytes are the same."""

import math
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from speciate.analysis import excess, hypotheses, statistics
from speciate.cli import execute
from speciate.config.run import canonical_json
from speciate.config.stage_specs import COMPARED, Prediction
from speciate.stages import compare

Table = Callable[[str], pd.DataFrame]
ARMS = ["dense", "auxiliary", "unbalanced_fast", "frozen", "hash"]


def folders(study: pathlib.Path, *without: str) -> list[pathlib.Path]:
    every = [study / "measures" / arm / f"seed{seed}" for arm in ARMS for seed in (0, 1)]
    return [folder for folder in every if str(folder.relative_to(study / "measures")) not in without]


def tables_of_interventions(study: pathlib.Path) -> list[pathlib.Path]:
    return sorted(study.glob("interventions/*/*/interventions.parquet"))


def compared(study: pathlib.Path, compare_spec_of, *without: str) -> dict[str, pd.DataFrame]:
    spec = compare_spec_of((0, 1))
    interventions = compare.read_interventions(spec, tables_of_interventions(study))
    return compare.compare(spec, compare.read_measures(spec, folders(study, *without)), interventions)


def test_states_are_what_was_planted(table: Table) -> None:
    state = table("runs").groupby("ablation")["state"].unique().map(list).to_dict()
    assert state == {
        "dense": [""],
        "auxiliary": ["specialised"],
        "unbalanced_fast": ["collapsed"],
        "frozen": ["indifferent"],
        "hash": ["indifferent"],
    }


def state_of_load(table: Table, arm: str, **changed: float) -> str:
    """Return the state of the first layer's load at the end, after its rows at begin and end have changed."""
    rows = table("selectors")
    rows = rows[(rows["ablation"] == arm) & (rows["seed"] == 0) & (rows["layer"] == 0)].copy()
    for name, value in changed.items():
        column, _, when = name.partition("__")
        probe = "full" if when == "end" else "telemetry"
        step = rows["step"] == (rows["step"].max() if when in ("end", "last") else rows["step"].min())
        rows.loc[step & (rows["probe"] == probe), column] = value
    result = excess.add_load_states(rows, ("frozen", "hash"))
    assert (result.loc[result["probe"] == "telemetry", "load_state"] == "").all()
    return str(result.loc[result["probe"] == "full", "load_state"].iloc[0])


def test_a_load_is_even_collapsed_or_uneven(table: Table) -> None:
    assert state_of_load(table, "auxiliary") == "even"
    assert state_of_load(table, "unbalanced_fast") == "collapsed"
    assert state_of_load(table, "frozen", max_share_low__end=0.51) == "uneven"  # a control never learns
    assert state_of_load(table, "auxiliary", max_share_low__end=0.51) == "collapsed"
    assert state_of_load(table, "auxiliary", effective_experts_high__end=3.9) == "collapsed"
    begun = {"max_share__begin": 0.9, "drift_nats__begin": 0.5, "max_share_low__end": 0.9}
    assert state_of_load(table, "auxiliary", **begun, drift_nats__last=0.9) == "uneven"  # it began there
    assert state_of_load(table, "auxiliary", **begun, drift_nats__last=1.1) == "collapsed"
    begun["max_share__begin"] = 0.4
    assert state_of_load(table, "auxiliary", **begun, drift_nats__last=0.9) == "collapsed"


def test_runs_are_in_the_studys_order_with_their_words(table: Table) -> None:
    runs = table("runs")
    assert runs["ablation"].tolist() == [arm for arm in ARMS for _ in (0, 1)]
    assert runs["seed"].tolist() == [0, 1] * 5
    assert runs["about"].str.len().min() > 0


def test_excess_is_over_the_mean_of_the_controls_at_the_same_place(table: Table) -> None:
    rows = table("selectors")
    rows["unbiased"] = rows["information_bits"] - rows["null_mean_bits"]
    place = ["seed", "selector", "step", "probe"]
    wide = rows.pivot(index=place, columns="ablation", values="unbiased")
    result = rows.pivot(index=place, columns="ablation", values="excess_information_bits")
    control = (wide["frozen"] + wide["hash"]) / 2
    for arm in ARMS[1:]:
        np.testing.assert_allclose(result[arm], wide[arm] - control)
    np.testing.assert_allclose(result["frozen"], -result["hash"])
    runs = table("runs").set_index(["ablation", "seed"])["excess_information_bits"]
    full = rows[rows["probe"] == "full"].groupby(["ablation", "seed"])["excess_information_bits"].mean()
    np.testing.assert_allclose(runs[full.index], full)


def test_excess_intervals_hold_their_estimate_and_the_strongest_control_bounds_them(table: Table) -> None:
    runs = table("runs").query("num_selectors > 0")
    assert (runs["excess_low_bits"] < runs["excess_information_bits"]).all()
    assert (runs["excess_information_bits"] < runs["excess_high_bits"]).all()
    learned = runs[~runs["ablation"].isin(["frozen", "hash"])]
    assert (learned["least_excess_bits"] < learned["excess_information_bits"]).all()
    assert (learned["least_excess_low_bits"] < learned["least_excess_bits"]).all()
    assert runs[runs["ablation"].isin(["frozen", "hash"])]["least_excess_bits"].isna().all()


def excess_over_both(selectors: pd.DataFrame, draws: pd.DataFrame) -> dict[str, float]:
    """Return the excess of the run `learned`, seed 0, over the controls frozen and hash."""
    return excess.excess_of_run(
        "learned", 0, selectors=selectors, draws=draws, controls=("frozen", "hash"), confidence=0.95
    )


def test_a_paired_bootstrap_cancels_what_the_texts_have_in_common() -> None:
    draw = np.random.default_rng(0)
    common = draw.normal(0.5, 0.1, 999)
    rows, values = [], []
    for arm, level in (("learned", 0.3), ("frozen", 0.1), ("hash", 0.2)):
        rows.append({"ablation": arm, "information_bits": level + 0.02, "null_mean_bits": 0.02})
        value = level + common + draw.normal(0, 0.005, 999)
        values.append(pd.DataFrame({"ablation": arm, "draw": np.arange(999), "value": value}))
    selectors = pd.DataFrame(rows).assign(seed=0, selector="router", probe="full")
    draws = pd.concat(values).assign(seed=0, name="router")
    result = excess_over_both(selectors, draws)
    assert result["excess_information_bits"] == pytest.approx(0.15)
    assert result["excess_high_bits"] - result["excess_low_bits"] < 0.05
    assert result["least_excess_bits"] == pytest.approx(0.1)
    assert result["least_excess_low_bits"] == pytest.approx(0.1 - 1.96 * 0.005 * math.sqrt(2), abs=0.002)
    one_missing = selectors[selectors["ablation"] != "hash"]
    assert excess_over_both(one_missing, draws) == {}
    # a control of another family, without such a selector, does not count
    another = selectors.assign(selector=selectors["selector"].where(selectors["ablation"] != "hash", "depth.router"))
    alone = excess_over_both(another, draws)
    assert alone["excess_information_bits"] == pytest.approx(0.2)
    assert excess.matching_controls(another, ("frozen", "hash"), {"depth.router"}) == ("hash",)
    # a control that has the selector only at another seed is missing here
    later = selectors.assign(seed=selectors["ablation"].eq("hash").astype(int))
    assert excess_over_both(later, draws) == {}


def test_q_values_are_over_the_full_rows_of_all_runs(table: Table) -> None:
    rows = table("selectors")
    full = rows["probe"] == "full"
    assert rows[~full]["q_value"].isna().all()
    np.testing.assert_allclose(rows[full]["q_value"], stats.false_discovery_control(rows[full]["p_value"]))


def test_normalised_information_lies_between_controls_and_oracle(table: Table) -> None:
    full = table("selectors").query("probe == 'full'")
    learned = full[full["ablation"] == "auxiliary"].iloc[0]
    control = learned["information_bits"] - learned["null_mean_bits"] - learned["excess_information_bits"]
    expected = learned["excess_information_bits"] / (math.log2(3) - control)
    assert learned["normalised_information"] == pytest.approx(expected)
    assert 0.2 < expected < 1
    assert full[full["ablation"].isin(["frozen", "hash"])]["normalised_information"].abs().max() < 0.1


def test_comparisons_are_paired_by_seed(table: Table) -> None:
    runs, rows = table("runs"), table("comparisons")
    for statistic in ("loss", "max_share"):
        value = runs.pivot(index="seed", columns="ablation", values=statistic)
        row = rows[(rows["statistic"] == statistic) & (rows["ablation"] == "unbalanced_fast")].iloc[0]
        expected = stats.ttest_rel(value["unbalanced_fast"], value["auxiliary"])
        assert row["p_value"] == pytest.approx(expected.pvalue)
        assert row["low"] == pytest.approx(expected.confidence_interval().low)
        assert (row["num_seeds"], row["missing"], row["reference"]) == (2, 0, "auxiliary")
    loss = rows[rows["statistic"] == "loss"]
    assert loss["ablation"].tolist() == ["dense", "unbalanced_fast", "frozen", "hash"]
    np.testing.assert_allclose(loss["p_holm"], statistics.holm(loss["p_value"].to_numpy()))
    assert "dense" not in rows[rows["statistic"] == "max_share"]["ablation"].tolist()
    assert {"nats_code", "nats_math", "nats_prose"} < set(rows["statistic"])


def test_losses_differ_from_the_reference_by_document(table: Table) -> None:
    rows = table("losses")
    reference = rows[rows["ablation"] == "auxiliary"]
    assert reference["difference_bits"].isna().all()
    wide = rows.pivot(index=["seed", "domain"], columns="ablation", values="bits_per_byte")
    dense = rows[rows["ablation"] == "dense"].set_index(["seed", "domain"])
    np.testing.assert_allclose(dense["difference_bits"], (wide["dense"] - wide["auxiliary"])[dense.index])
    assert (dense["difference_low_bits"] > 0).all()
    # paired by document, the interval is much narrower than that of the loss itself
    assert (dense["difference_high_bits"] - dense["difference_low_bits"] < 0.05).all()


def test_collapse_counts_alarms_with_wilson(table: Table) -> None:
    rows = table("collapse").set_index("ablation")
    assert rows["collapsed"].to_dict() == {"auxiliary": 0, "unbalanced_fast": 2, "frozen": 0, "hash": 0}
    expected = stats.binomtest(2, 2).proportion_ci(0.95, method="wilson")
    assert rows.loc["unbalanced_fast", ["share", "low", "high"]].tolist() == pytest.approx([1, expected.low, 1])


def test_hypotheses_are_decided_in_their_order(table: Table) -> None:
    rows = table("hypotheses")
    assert rows["name"].tolist() == ["collapse", "balance", "invisible", "learned"]
    assert rows["verdict"].tolist() == ["supported", "refuted", "supported", "supported"]
    assert rows["confidence"].tolist() == pytest.approx([0.95, 0.95, 0.9, 0.95])


def test_an_unknown_statistic_is_refused(table: Table) -> None:
    one = {
        "name": "odd",
        "statistic": "state",
        "arm": "hash",
        "reference": "frozen",
        "margin": 0.0,
        "direction": "less",
        "scale": "plain",
    }
    with pytest.raises(ValueError, match=r"hypotheses\.odd: statistic: nothing in this study is called state"):
        hypotheses.hypotheses_table(table("runs"), [one], (0, 1), 0.95)


def test_a_hypothesis_about_a_domain_or_a_layer_is_decided_by_that_part_of_each_run(
    study: pathlib.Path, compare_spec_of, table: Table
) -> None:
    first = {"statement": "s", "test": "value", "arm": "auxiliary", "value": 0.0, "direction": "greater"}
    predictions = tuple(
        Prediction.model_validate({**first, "name": name.replace(".", "_"), "statistic": name})
        for name in ("loss.math", "max_share.layer0")
    )
    spec = compare_spec_of((0, 1)).model_copy(update={"hypotheses": predictions})
    result = compare.compare(spec, compare.read_measures(spec, folders(study)))["hypotheses"].set_index("statistic")
    losses, selectors = table("losses"), table("selectors")
    of_math = losses[(losses["ablation"] == "auxiliary") & (losses["domain"] == "math")]["nats"]
    of_layer = selectors[(selectors["ablation"] == "auxiliary") & (selectors["probe"] == "full")]
    of_layer = of_layer[of_layer["layer"] == 0]["max_share"]
    assert len(of_math) == len(of_layer) == 2
    assert result.loc["loss.math", "difference"] == pytest.approx(of_math.mean())
    assert result.loc["max_share.layer0", "difference"] == pytest.approx(of_layer.mean())


def test_a_missing_run_is_named_and_counted(study: pathlib.Path, compare_spec_of) -> None:
    result = compared(study, compare_spec_of, "unbalanced_fast/seed1")
    assert result["missing"][["ablation", "seed", "reason"]].to_numpy().tolist() == [["unbalanced_fast", 1, ""]]
    assert len(result["runs"]) == 9
    row = result["comparisons"].query("statistic == 'loss' and ablation == 'unbalanced_fast'").iloc[0]
    assert (row["num_seeds"], row["missing"]) == (1, 1)
    assert math.isnan(row["low"])
    counted = result["collapse"].set_index("ablation")
    assert counted.loc["unbalanced_fast", ["runs", "missing", "collapsed"]].tolist() == [1, 1, 1]
    assert result["hypotheses"].set_index("name").loc["collapse", ["missing", "verdict"]].tolist() == [1, "undecided"]


def test_without_a_control_nothing_counts_as_specialised(study: pathlib.Path, compare_spec_of) -> None:
    result = compared(study, compare_spec_of, "hash/seed0")
    runs = result["runs"].set_index(["ablation", "seed"])
    assert runs["state"]["auxiliary", 0] == "undecided"
    assert runs["state"]["auxiliary", 1] == "specialised"
    assert runs["state"]["unbalanced_fast", 0] == "collapsed"
    assert math.isnan(runs["excess_information_bits"]["auxiliary", 0])
    rows = result["selectors"]
    assert rows[rows["seed"] == 0]["excess_information_bits"].isna().all()
    assert rows[rows["seed"] == 1]["excess_information_bits"].notna().all()


def test_an_arm_without_any_run_is_missing_and_breaks_nothing(study: pathlib.Path, compare_spec_of) -> None:
    result = compared(study, compare_spec_of, "auxiliary/seed0", "auxiliary/seed1")
    assert result["missing"]["ablation"].tolist() == ["auxiliary", "auxiliary"]
    assert (result["comparisons"]["num_seeds"] == 0).all()
    assert (result["hypotheses"]["verdict"] == "undecided").all()
    assert result["collapse"].set_index("ablation").loc["auxiliary", ["runs", "missing"]].tolist() == [0, 2]


def test_the_dense_arm_alone_is_a_study(study: pathlib.Path, compare_spec_of) -> None:
    spec = compare_spec_of((0, 1))
    result = compare.compare(spec, compare.read_measures(spec, folders(study)[:2]))
    assert result["runs"]["state"].tolist() == ["", ""]
    assert result["selectors"].empty
    assert len(result["missing"]) == 8


def test_a_column_that_compare_should_fill_and_does_not_is_refused(
    study: pathlib.Path, compare_spec_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excess, "add_excess", lambda rows, *_: rows.assign(q_value=0.5))
    monkeypatch.setattr(excess, "add_states", lambda rows, *_, **__: rows)
    with pytest.raises(ValueError, match=r"^runs.parquet: nothing fills its column excess_information_bits, "):
        compared(study, compare_spec_of)


def test_foreign_and_repeated_runs_are_refused(study: pathlib.Path, compare_spec_of) -> None:
    every = folders(study)
    with pytest.raises(ValueError, match="run dense, seed 0 is also in"):
        compare.read_measures(compare_spec_of((0, 1)), [*every, every[0]])
    with pytest.raises(ValueError, match="the study has no run dense, seed 1"):
        compare.read_measures(compare_spec_of((0,)), every)


def test_the_verb_writes_the_same_bytes_whatever_the_order_of_runs(
    study: pathlib.Path,
    tmp_path: pathlib.Path,
    compare_spec_of,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "spec.json").write_text(canonical_json(compare_spec_of((0, 1))))
    measures = [str(folder) for folder in reversed(folders(study))]
    output = tmp_path / "out"
    argv = ["compare", "--spec", str(tmp_path / "spec.json"), "--output-folder", str(output), "--measures", *measures]
    argv += ["--interventions", *map(str, reversed(tables_of_interventions(study)))]
    execute(argv)
    written = sorted(file.name for file in output.iterdir())
    assert written == sorted(f"{name}.{kind}" for name in COMPARED for kind in ("csv", "parquet"))
    for name in written:
        assert (output / name).read_bytes() == (study / "tables" / name).read_bytes(), name
    assert "supported: The max_share of unbalanced_fast" in capsys.readouterr().err


def test_one_folder_stands_for_all_runs_of_the_study(study: pathlib.Path, compare_spec_of) -> None:
    """The workflow names no run: a command with all of ten thousand would be too long for the system."""
    every, measures = folders(study), folders(study)[0].parents[1]
    spec = compare_spec_of((0, 1))
    assert compare.run_folders(spec, measures) == [
        measures / arm.name / f"seed{seed}" for arm in spec.arms for seed in spec.seeds
    ]
    assert sorted(compare.run_folders(spec, measures)) == sorted(every)
    assert compare.run_folders(spec, every[0]) == [every[0]]
    # what another study or an earlier arm left there is not read
    assert {path.name for path in compare.run_folders(compare_spec_of((0,)), measures)} == {"seed0"}
    with pytest.raises(ValueError, match="holds no tables of a run, nor ablation/seed<k>"):
        compare.run_folders(spec, study)
