"""Measure one run from files in training's formats, against the definitions and what was planted."""

import dataclasses
import functools
import math
import pathlib
import shutil

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from scipy import stats

from speciate.analysis import load, losses, observation, selectors, tables
from speciate.analysis.observation import Groups, Settings
from speciate.cli import execute
from speciate.config.contracts.statistics import RULES
from speciate.config.run import canonical_json
from speciate.config.stage_specs import MEASURED
from speciate.stages import measure

PATHS = ["blocks.0.ffn.router", "blocks.1.ffn.router"]


def run_table(study: pathlib.Path, name: str, arm: str = "auxiliary", seed: int = 0) -> pd.DataFrame:
    return tables.read_table(study / "measures" / arm / f"seed{seed}" / f"{name}.parquet", name)


def stored(study: pathlib.Path, arm: str = "auxiliary", seed: int = 0) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(study / "runs" / arm / f"seed{seed}" / "probe.safetensors")


def documents(study: pathlib.Path) -> pd.DataFrame:
    return pd.read_parquet(study / "mixture" / "probe.documents.parquet")


def test_selectors_has_a_row_a_check_and_one_for_the_finished_model(study: pathlib.Path, small) -> None:
    rows = run_table(study, "selectors")
    assert rows["selector"].unique().tolist() == PATHS
    for path, layer in zip(PATHS, (0, 1), strict=True):
        selected = rows[rows["selector"] == path]
        assert selected["layer"].unique().tolist() == [layer]
        assert selected["step"].tolist() == [*small.steps, small.num_steps]
        assert selected["probe"].tolist() == ["telemetry"] * len(small.steps) + ["full"]
        assert selected["num_chosen"].unique().tolist() == [1]
        assert selected["decisions"].tolist() == [6 * 3 * 64] * len(small.steps) + [12 * 3 * 64]


def test_load_and_information_are_those_of_the_choices(study: pathlib.Path) -> None:
    rows = run_table(study, "selectors").query("probe == 'full'").set_index("selector")
    experts = run_table(study, "experts").query("probe == 'full'")
    domain_P = np.repeat(np.load(study / "mixture" / "probe.domain.npy"), 64)
    for path in PATHS:
        choice_PS = stored(study)[f"{path}/choice"]
        share = choice_PS.mean(0)
        by_domain = np.stack([choice_PS[domain_P == domain].mean(0) for domain in range(3)])
        row = rows.loc[path]
        assert row["max_share"] == pytest.approx(share.max())
        assert row["effective_experts"] == pytest.approx(np.exp(stats.entropy(share)))
        expected = stats.entropy(share, base=2) - np.mean([stats.entropy(one, base=2) for one in by_domain])
        assert row["information_bits"] == pytest.approx(expected)
        selected = experts[experts["selector"] == path]
        assert selected[selected["domain"] == "all"]["share"].tolist() == pytest.approx(share.tolist())
        for index, domain in enumerate(("code", "math", "prose")):
            part = selected[selected["domain"] == domain]
            np.testing.assert_allclose(part["share"], by_domain[index])
            np.testing.assert_allclose(part["lift"], by_domain[index] / by_domain.mean(0))


def test_commitment_is_that_of_the_stored_probabilities(study: pathlib.Path) -> None:
    rows = run_table(study, "selectors").query("probe == 'full'")
    fields = stored(study)
    for path, row in zip(PATHS, rows.itertuples(), strict=True):
        mean = fields[f"{path}/probs_GS"].sum(0) / fields[f"{path}/decisions_G"].sum()
        assert row.commitment_nats == pytest.approx(
            fields[f"{path}/divergence_G"].sum() / fields[f"{path}/decisions_G"].sum()
        )
        assert row.drift_nats == pytest.approx(math.log(8) - stats.entropy(mean))
        assert row.commitment_nats == pytest.approx(row.drift_nats + row.information_nats)


def test_planted_behaviours_show(study: pathlib.Path) -> None:
    row = {arm: run_table(study, "runs", arm).iloc[0] for arm in ("auxiliary", "unbalanced_fast", "frozen", "hash")}
    assert row["unbalanced_fast"]["max_share"] > 0.9
    assert row["auxiliary"]["max_share"] < 0.3
    assert row["auxiliary"]["information_bits"] > 0.4
    assert max(row[arm]["information_bits"] for arm in ("frozen", "hash")) < 0.15
    # a hash router is a function of the token: tokens explain all that it tells of the domain, and nothing remains
    assert row["hash"]["token_explained_bits"] == pytest.approx(row["hash"]["information_bits"], rel=0.15)
    assert row["hash"]["conditional_information_bits"] == 0
    assert row["hash"]["commitment_nats"] == pytest.approx(math.log(8))
    assert row["auxiliary"]["token_explained_bits"] < 0.5 * row["auxiliary"]["information_bits"]
    assert row["auxiliary"]["conditional_information_bits"] > 0.3


def test_frozen_routers_tell_the_domain_by_tokens_and_nothing_beyond(study: pathlib.Path) -> None:
    for seed in (0, 1):
        full = run_table(study, "selectors", "frozen", seed).query("probe == 'full'")
        assert (full["p_value"] <= 0.05).all()
        assert (full["conditional_p_value"] > 0.01).all()


def test_where_no_token_is_shared_by_all_domains_the_conditional_information_is_no_number(
    study: pathlib.Path, measure_spec_of, small
) -> None:
    spec = measure_spec_of("auxiliary", 0, small).model_copy(update={"min_occurrences": 10**9})
    result = measure.measure(spec, study / "runs" / "auxiliary" / "seed0", study / "mixture")
    full = result["selectors"].query("probe == 'full'")
    assert full["shared_token_share"].tolist() == [0, 0]
    nowhere = ["conditional_information_bits", "conditional_p_value"]
    assert full[nowhere].isna().all(axis=None)
    assert math.isnan(result["runs"]["conditional_information_bits"].item())
    usual = run_table(study, "selectors").query("probe == 'full'")
    assert usual[nowhere].notna().all(axis=None)
    pd.testing.assert_frame_equal(
        full.drop(columns=[*nowhere, "shared_token_share"]), usual.drop(columns=[*nowhere, "shared_token_share"])
    )


def test_placebo_lift_is_about_one(study: pathlib.Path) -> None:
    rows = run_table(study, "experts").query("probe == 'full' and domain != 'all'")
    assert rows["placebo_lift"].mean() == pytest.approx(1)
    assert (rows["placebo_lift"] - 1).abs().mean() < 0.35 * (rows["lift"] - 1).abs().mean()
    others = run_table(study, "experts").query("probe == 'telemetry' or domain == 'all'")
    assert others["placebo_lift"].isna().all()


def test_experts_rows_by_domain_only_where_they_are_promised(study: pathlib.Path, small) -> None:
    rows = run_table(study, "experts")
    every = rows[rows["domain"] == "all"]
    assert len(every) == 2 * 8 * (len(small.steps) + 1)
    by_domain = rows[rows["domain"] != "all"]
    assert set(zip(by_domain["probe"], by_domain["step"], strict=True)) == {("telemetry", 100), ("full", 100)}
    totals = rows.groupby(["selector", "step", "probe", "domain"])["share"].sum()
    np.testing.assert_allclose(totals, 1)


def test_types_count_the_tokens_of_code_alone(study: pathlib.Path) -> None:
    rows = run_table(study, "types")
    token_P = np.load(study / "mixture" / "probe.tokens.npy").reshape(-1)
    code_P = np.repeat(np.load(study / "mixture" / "probe.domain.npy"), 64) == 0
    choice_PS = stored(study)[f"{PATHS[1]}/choice"]
    for index, name in enumerate(observation.TYPES):
        selected = rows[(rows["selector"] == PATHS[1]) & (rows["type"] == name)]
        of_type = code_P & (token_P % 7 == index)
        assert (selected["tokens"] == of_type.sum()).all()
        np.testing.assert_allclose(selected["share"], choice_PS[of_type].mean(0))
        np.testing.assert_allclose(selected["lift"], choice_PS[of_type].mean(0) / choice_PS[code_P].mean(0))


def test_losses_by_hand(study: pathlib.Path) -> None:
    likelihood = pd.read_parquet(study / "runs" / "auxiliary" / "seed0" / "likelihood.parquet")
    rows = run_table(study, "losses")
    assert rows["domain"].tolist() == ["code", "math", "prose"]
    for row in rows.itertuples():
        part = likelihood[likelihood["domain"] == row.domain]
        assert row.nats == pytest.approx(part["nats"].sum() / part["tokens"].sum())
        assert row.bits_per_byte == pytest.approx(part["nats"].sum() / math.log(2) / part["bytes"].sum())
        assert row.nats_low < row.nats < row.nats_high
        assert (row.tokens, row.bytes, row.documents) == (part["tokens"].sum(), part["bytes"].sum(), len(part))
    run = run_table(study, "runs").iloc[0]
    assert run["loss"] == pytest.approx(rows["nats"].mean())
    assert rows["nats_error"].isna().all() and math.isnan(run["loss_error"])
    assert (run["skipped"], run["spikes"]) == (1, 0)


def test_an_estimated_loss_has_the_standard_error_of_its_draws() -> None:
    # two documents of one domain deviate together, and one of another domain deviates the other way: in the mean over
    # the domains these half cancel
    likelihood = pd.DataFrame(
        {
            "domain": ["code", "code", "prose"],
            "tokens": [10, 30, 20],
            "nats_draws": [[10.0, 14.0], [60.0, 66.0], [40.0, 38.0]],
        }
    )
    error_D, error = losses.standard_errors(likelihood, ("code", "prose"))
    # code: 70/40 and 80/40, so half of their difference; prose: 40/20 and 38/20
    assert error_D == pytest.approx([0.125, 0.05])
    assert error == pytest.approx(abs((1.75 + 2.0) / 2 - (2.0 + 1.9) / 2) / 2)


def test_curves_hold_each_series_in_turn(study: pathlib.Path, small) -> None:
    rows = run_table(study, "curves")
    assert rows["series"].unique().tolist() == ["train", "code", "math", "prose"]
    assert rows[rows["series"] == "train"]["step"].tolist() == list(range(1, small.num_steps + 1))
    assert rows[rows["series"] == "math"]["step"].tolist() == [20, 40, 60, 80, 100]


def test_curves_ignore_the_auxiliary_loss() -> None:
    lines = [{"step": 1, "loss": 2.0, "auxiliary": 9.0}, {"step": 1, "validation": {"code": 3.0}}]
    assert losses.curves_table(lines).to_numpy().tolist() == [[1, "train", 2.0], [1, "code", 3.0]]


def test_verdicts_of_the_collapsing_run(study: pathlib.Path) -> None:
    rows = run_table(study, "verdicts", "unbalanced_fast")
    assert len(rows) == 3 * (2 + 1)
    assert set(rows["rule"]) == set(RULES)
    fired = rows[rows["fired"]]
    assert set(fired["selector"]) == {PATHS[0], "any"}
    assert set(fired["rule"]) == set(RULES)
    run = run_table(study, "runs", "unbalanced_fast").iloc[0]
    complete = rows[rows["selector"] == "any"].set_index("rule")["first_step"]
    assert [run[f"{rule}_step"] for rule in RULES] == complete[list(RULES)].tolist()
    assert not run_table(study, "verdicts", "auxiliary")["fired"].any()


def test_verdicts_say_how_soon_a_total_collapse_would_fire_each_rule(study: pathlib.Path) -> None:
    rows = run_table(study, "verdicts", "auxiliary").set_index(["selector", "rule"])["checks_to_fire"]
    for selector in (*PATHS, "any"):
        assert [rows[selector, "rule_60_percent"], rows[selector, "rule_3_over_e"]] == [3, 1]
    # 18 groups of documents, ten armed checks, two layers: ln(2 * 10 / .05) = 6.0, and a group is worth up to .67
    assert rows["any", "alarm"] == 1


def test_the_limits_are_of_the_selectors_slots_and_choices(study: pathlib.Path) -> None:
    rows = run_table(study, "selectors", "auxiliary")
    np.testing.assert_allclose(rows["max_share_limit"], 0.5)
    np.testing.assert_allclose(rows["effective_experts_limit"], 4)
    np.testing.assert_allclose(rows["unevenness"], np.maximum(rows["max_share"] / 0.5, 4 / rows["effective_experts"]))
    full = rows["probe"] == "full"
    assert (rows.loc[full, "effective_experts_high"] >= rows.loc[full, "effective_experts"]).all()
    assert rows.loc[~full, "effective_experts_high"].isna().all()


def test_a_dense_run_has_empty_tables_with_their_columns(study: pathlib.Path) -> None:
    for name in ("selectors", "experts", "types", "verdicts"):
        rows = run_table(study, name, "dense")
        assert rows.empty
        assert list(rows.columns) == list(tables.COLUMNS[name])
    row = run_table(study, "runs", "dense").iloc[0]
    assert row["num_selectors"] == 0
    assert row[["max_share", "information_bits", "alarm_step"]].isna().all()
    assert not math.isnan(row["loss"])


@pytest.mark.parametrize(("table", "arm"), [("selectors", "auxiliary"), ("runs", "auxiliary"), ("runs", "dense")])
def test_a_metric_with_a_column_and_no_function_is_refused(
    study: pathlib.Path, small, measure_spec_of, monkeypatch: pytest.MonkeyPatch, table: str, arm: str
) -> None:
    monkeypatch.setitem(tables.COLUMNS, table, {**tables.COLUMNS[table], "herfindahl": "float64"})
    spec = measure_spec_of(arm, 0, small)
    with pytest.raises(ValueError, match=rf"^{table}.parquet: nothing fills its column herfindahl$"):
        measure.measure(spec, study / "runs" / arm / "seed0", study / "mixture")


def settings(confidence: float = 0.95, resamples: int = 399, seed: int = 0) -> Settings:
    return Settings(100, seed, 99, resamples, confidence, 0.1, 5)


def test_max_share_interval_covers_the_largest_share_balanced_or_not() -> None:
    domain_G = np.repeat(np.arange(3), 20)
    groups = Groups(("a", "b", "c"), np.arange(60), domain_G)
    draw = np.random.default_rng(0)
    for share_S in (np.full(8, 1 / 8), np.array([0.4, 0.3, 0.1, 0.1, 0.025, 0.025, 0.025, 0.025])):
        inside, below = 0, 0
        for trial in range(150):
            taste_GS = draw.dirichlet(20 * share_S, size=60)
            chosen_GS = draw.multinomial(50, taste_GS).astype(float)
            low, high = selectors.max_share_interval(chosen_GS, np.ones_like(chosen_GS), groups, settings(seed=trial))
            inside += low <= share_S.max() <= high
            below += low > share_S.max()
        assert stats.binom.cdf(inside, 150, 0.95) > 0.001
        assert stats.binom.sf(below - 1, 150, 0.025) > 0.001


def test_the_upper_bound_of_the_effective_slots_is_above_them_as_often_as_it_says() -> None:
    groups = Groups(("a", "b", "c"), np.arange(60), np.repeat(np.arange(3), 20))
    draw = np.random.default_rng(0)
    for share_S in (np.full(8, 1 / 8), np.array([0.6, 0.2, 0.1, 0.05, 0.02, 0.01, 0.01, 0.01])):
        below = 0
        for trial in range(150):
            chosen_GS = draw.multinomial(50, draw.dirichlet(20 * share_S, size=60)).astype(float)
            even_GS = np.ones_like(chosen_GS)
            high = selectors.effective_slots_high(chosen_GS, even_GS, groups, settings(seed=trial))
            below += high < float(load.effective_slots(share_S)) - 1e-9
            assert high >= float(load.effective_slots(chosen_GS.sum(axis=0) / chosen_GS.sum()))
        assert stats.binom.sf(below - 1, 150, 0.025) > 0.001


def test_top_2_choices_count_a_half_each(study: pathlib.Path) -> None:
    texts = measure.read_texts(study / "mixture", ("code",))
    (one, _) = measure.read_observed(study / "runs" / "auxiliary" / "seed0", texts.groups, len(texts.token_P))
    assert one.num_chosen == 1
    both_PS = np.maximum(one.choice_PS, np.roll(one.choice_PS, 1, axis=1))
    twice = observation.ObservedSelector(one.path, one.steps_K, one.early, one.final, both_PS, one.early_bits_KPB)
    assert twice.num_chosen == 2
    _, chosen_NS = selectors._decisions(twice, texts)
    np.testing.assert_allclose(chosen_NS.sum(axis=1), 1)
    assert set(np.unique(chosen_NS)) == {0, 0.5}


def test_positions_without_decision_or_document_are_left_out(study: pathlib.Path) -> None:
    texts = measure.read_texts(study / "mixture", ("code",))
    (one, _) = measure.read_observed(study / "runs" / "auxiliary" / "seed0", texts.groups, len(texts.token_P))
    choice_PS, group_P = one.choice_PS.copy(), texts.group_P.copy()
    choice_PS[:10], group_P[10:30] = 0, -1
    some = observation.ObservedSelector(one.path, one.steps_K, one.early, one.final, choice_PS, one.early_bits_KPB)
    fewer = dataclasses.replace(texts, group_P=group_P)
    assert len(selectors._decisions(some, fewer)[1]) == len(texts.token_P) - 30


@pytest.mark.parametrize(
    ("path", "layer"),
    [("blocks.3.ffn.router", 3), ("blocks.12.mixer.indexer", 12), ("router", -1), ("head2.router", -1)],
)
def test_layer_of_a_path(study: pathlib.Path, path: str, layer: int) -> None:
    texts = measure.read_texts(study / "mixture", ())
    (one, _) = measure.read_observed(study / "runs" / "auxiliary" / "seed0", texts.groups, len(texts.token_P))
    assert (
        observation.ObservedSelector(path, one.steps_K, one.early, one.final, one.choice_PS, one.early_bits_KPB).layer
        == layer
    )


def test_groups_of_one_name_in_two_domains_are_two() -> None:
    rows = pd.DataFrame({"domain": ["b", "a", "b", "a"], "group": ["x", "x", "x", "y"]})
    groups = observation.group_documents(rows, ("a", "b"))
    assert groups.group_R.tolist() == [0, 1, 0, 2]
    assert groups.domain_G.tolist() == [1, 0, 0]
    assert groups.sum(np.array([1.0, 2, 4, 8])).tolist() == [5, 2, 8]
    assert groups.sum(np.array([[1.0, 2, 4, 8]]), axis=1).tolist() == [[5, 2, 8]]
    with pytest.raises(ValueError, match="unknown domains: b"):
        observation.group_documents(rows, ("a",))


@pytest.fixture
def command(study: pathlib.Path, tmp_path: pathlib.Path, measure_spec_of, small):
    """Copy one run; return the folders of the copy and of the tables, and a function that runs the command."""
    run_folder, output = tmp_path / "run", tmp_path / "out"
    shutil.copytree(study / "runs" / "auxiliary" / "seed0", run_folder)
    (tmp_path / "spec.json").write_text(canonical_json(measure_spec_of("auxiliary", 0, small)))
    folders = ("--run-folder", run_folder, "--mixture-folder", study / "mixture", "--output-folder", output)
    words = ["measure", "--spec", *map(str, (tmp_path / "spec.json", *folders))]
    return run_folder, output, functools.partial(execute, words)


def test_the_verb_writes_the_same_bytes(command, study: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, output, run = command
    run()
    assert sorted(file.name for file in output.iterdir()) == sorted(f"{name}.parquet" for name in MEASURED)
    for file in output.iterdir():
        assert file.read_bytes() == (study / "measures" / "auxiliary" / "seed0" / file.name).read_bytes(), file.name
    assert "auxiliary seed 0: " in capsys.readouterr().err


def change(file: pathlib.Path, edit) -> None:
    arrays = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file(edit(arrays), file)


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("telemetry", lambda a: {k: v for k, v in a.items() if PATHS[0] not in k}, "different selectors"),
        ("probe", lambda a: {**a, f"{PATHS[0]}/choice": a[f"{PATHS[0]}/choice"][:-1].copy()}, "2303 choices"),
        ("probe", lambda a: {**a, f"{PATHS[0]}/probs_GS": a[f"{PATHS[0]}/probs_GS"][:-1].copy()}, "has 47 documents"),
        ("probe", lambda a: {k: v for k, v in a.items() if "null" not in k}, "null_GS is missing"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(command, name: str, edit, message: str) -> None:
    run_folder, output, run = command
    change(run_folder / f"{name}.safetensors", edit)
    with pytest.raises(ValueError, match=f"run auxiliary, seed 0: .*{message}"):
        run()
    assert not output.exists()


def test_missing_facts_and_domains_are_named(command) -> None:
    run_folder, _, run = command
    likelihood = pd.read_parquet(run_folder / "likelihood.parquet")
    likelihood[likelihood["domain"] != "math"].to_parquet(run_folder / "likelihood.parquet")
    with pytest.raises(ValueError, match="no document of domain math"):
        run()
    likelihood.to_parquet(run_folder / "likelihood.parquet")
    (run_folder / "run.json").write_text("{}")
    with pytest.raises(ValueError, match=r"run\.json: has no parameters_total"):
        run()


def test_a_check_at_which_nothing_was_decided_has_no_figures(
    study: pathlib.Path, small, tmp_path, measure_spec_of
) -> None:
    # like a router inside a Mixture-of-Depths that runs no token yet
    shutil.copytree(study / "runs" / "auxiliary" / "seed0", tmp_path / "run")
    file = tmp_path / "run" / "telemetry.safetensors"
    seen = safetensors.numpy.load_file(file)
    for name in [name for name in seen if name.startswith(f"{PATHS[0]}/")]:
        seen[name] = seen[name].copy()
        seen[name][1] = 0
    safetensors.numpy.save_file(seen, file)
    measured = measure.measure(measure_spec_of("auxiliary", 0, small), tmp_path / "run", study / "mixture")["selectors"]
    rows = measured[(measured["selector"] == PATHS[0]) & (measured["probe"] == "telemetry")].sort_values("step")
    empty, others = rows.iloc[1], rows.drop(rows.index[1])
    assert empty["decisions"] == 0
    for column in ("max_share", "effective_experts", "gini", "commitment_nats", "information_nats"):
        assert math.isnan(empty[column])
        assert others[column].notna().all()
