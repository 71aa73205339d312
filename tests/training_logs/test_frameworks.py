"""Test that each framework's names become the one definition: the values are compared with those of the counts."""

import json
import pathlib
import re

import numpy as np
import pandas as pd
import pytest
from tests.training_logs.written import EVEN, ONE, UNEVEN, WRITERS, events

from speciate.training_logs.log_names import METRICS, framework_names, frameworks, match
from speciate.training_logs.training_log import COLUMNS, read_training_log
from speciate.watching.counts import MEASURES
from speciate.watching.json_lines import JsonLines

LOADS = {0: (EVEN, UNEVEN), 10: (EVEN, ONE)}
EXPERTS = 4


def true_values(load: tuple[float, ...]) -> dict[str, float]:
    share = np.array(load) / sum(load)
    kept = share[share > 0]
    return {
        "max_vio": EXPERTS * share.max() - 1,
        "effective_share": float(np.exp(-(kept * np.log(kept)).sum())) / EXPERTS,
        "cv": float(share.std() / share.mean()),
        "dead_share": float((share == 0).mean()),
    }


def true_value(row: pd.Series, numbers: list[int]) -> float:
    each = [true_values(load)[row["metric"]] for load in LOADS[row["step"]]]
    if not row["over"]:
        return each[numbers.index(row["layer"])]
    return float({"mean": np.mean, "max": np.max, "min": np.min}[row["over"]](each))


@pytest.mark.parametrize("name", WRITERS)
def test_the_values_are_those_of_the_counts(name: str, tmp_path: pathlib.Path) -> None:
    lines = [json.dumps({"step": step, "loss": 3.0, **WRITERS[name](loads)}) for step, loads in LOADS.items()]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    log = read_training_log([tmp_path / "log.jsonl"], experts=EXPERTS, chosen=1)
    assert tuple(log.table.columns) == tuple(COLUMNS)
    assert log.frameworks == (name,) and not log.unknown
    numbers = [1, 3] if name == "megatron" else [0, 1]
    assert set(log.table["layer"]) <= {-1, *numbers}
    assert len(log.table) >= 6 and set(log.table["step"]) == {0, 10}
    for _, row in log.table.iterrows():
        true = true_value(row, numbers)
        if row["relation"] == "=":
            assert row["value"] == pytest.approx(true, abs=1e-6), row["key"]
        elif row["relation"] == "<=":
            assert true <= row["value"] + 1e-6, row["key"]
        else:
            assert true >= row["value"] - 1e-6, row["key"]
    assert not [note for note in log.notes if note.kind in ("contradiction", "impossible")]


def test_bounds_are_used_only_where_the_name_does_not_determine_the_measure(tmp_path: pathlib.Path) -> None:
    found = {}
    for name, writer in WRITERS.items():
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"step": 0, **writer(LOADS[0])}))
        table = read_training_log([tmp_path / f"{name}.jsonl"], experts=EXPERTS, chosen=1).table
        found[name] = {(row.metric, row.relation) for row in table.itertuples()}
    assert found["torchtitan"] == {("max_vio", "="), ("cv", "="), ("dead_share", "<=")}
    assert found["megatron"] == {("max_vio", ">=")}
    assert found["olmo_core"] == {("max_vio", "<=")}
    assert found["verl"] == {("max_vio", "="), ("cv", ">=")}
    assert found["trl"] == {("max_vio", "="), ("effective_share", "="), ("effective_share", ">="), ("dead_share", "=")}
    expected = {("max_vio", "="), ("max_vio", ">="), ("cv", "="), ("effective_share", "="), ("dead_share", "=")}
    assert found["nemo_automodel"] == expected


def test_published_examples_of_the_frameworks_own_tests() -> None:
    """torchtitan's test has cv 1.22 and max_vio 2 for (12, 4, 0, 0), verl's avg_vio 1.5 for all on one of four."""
    assert WRITERS["torchtitan"]([EVEN, UNEVEN])["moe_load/cv/max"] == pytest.approx(1.5**0.5)
    assert WRITERS["torchtitan"]([EVEN, UNEVEN])["moe_load/cold_frac/mean"] == 0.25
    assert WRITERS["verl"]([ONE])["rollout/moe/avg_vio/layer_0"] == 1.5
    assert WRITERS["verl"]([ONE])["rollout/moe/min_vio/layer_0"] == -1
    assert WRITERS["trl"]([EVEN, (0, 0, 2, 2)])["eval_expert_usage/normalized_entropy_mean"] == pytest.approx(0.75)
    assert WRITERS["nemo_automodel"]([(200, 200, 0, 0)])["moe/expert_diversity_mean"] == pytest.approx(0.5)


@pytest.mark.parametrize("name", WRITERS)
def test_every_name_that_a_framework_logs_is_known(name: str) -> None:
    known = frameworks()
    for key in WRITERS[name](LOADS[0]):
        found = match(key, known)
        assert found is not None and found.framework.name == name, key


def test_every_name_that_is_shown_matches_its_pattern_and_no_other_framework() -> None:
    known = frameworks()
    assert [framework.name for framework in known] == framework_names() == sorted([*WRITERS, "speciate"])
    for framework in known:
        for name in framework.names:
            for key in shown_keys(name.shown):
                found = match(key, known)
                assert found is not None and found.framework is framework and found.name is name, key


def shown_keys(shown: str) -> list[str]:
    """Return the names that a template stands for: `a/{max,avg}/layer_{i}` gives a/max/layer_3 and a/avg/layer_3."""
    numbered = shown.replace("{i}", "3").replace("{j}", "5")
    found = re.search(r"\{([^}]*)\}", numbered)
    return [numbered.replace(found[0], word) for word in found[1].split(",")] if found else [numbered]


def test_the_watch_logs_what_its_reader_expects(tmp_path: pathlib.Path) -> None:
    assert set(MEASURES) | {"unevenness"} == set(METRICS)
    values = {f"moe_load/{metric}/layer_{layer}": 0.5 for metric in METRICS for layer in (0, 1)}
    JsonLines(tmp_path / "log.jsonl")(50, {**values, "moe_load/wealth/run": float("-inf")})
    log = read_training_log([tmp_path / "log.jsonl"])
    assert len(log.table) == len(values) and log.frameworks == ("speciate",)
    assert list(log.unconverted) == ["moe_load/wealth/run"]


@pytest.mark.parametrize("name", WRITERS)
def test_all_formats_hold_the_same(name: str, tmp_path: pathlib.Path) -> None:
    lines = [(step, WRITERS[name](loads)) for step, loads in LOADS.items()]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"step": step, **values}) + "\n" for step, values in lines))
    keys = list(dict.fromkeys(key for _, values in lines for key in values))
    rows = [
        ",".join(["step", *keys]),
        *(",".join(map(str, [step, *(values.get(key, "") for key in keys)])) for step, values in lines),
    ]
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    history = {"log_history": [{**values, "step": step} for step, values in lines]}
    (tmp_path / "trainer_state.json").write_text(json.dumps(history))
    files = [tmp_path / "a.jsonl", tmp_path / "a.csv", tmp_path / "trainer_state.json", events(tmp_path / "tb", lines)]
    tables = [read_training_log([file], experts=EXPERTS, chosen=1).table.drop(columns="file") for file in files]
    for table in tables:
        # writers of event files put `_` for a space, and hold float32
        table["key"] = table["key"].str.replace(" ", "_")
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=False, rtol=1e-5, atol=1e-5)
