"""Test what the stage of interventions writes of a run of a few steps, beside what other stages know of it."""

import pathlib
from collections.abc import Callable

import pandas as pd
import pytest
import safetensors.numpy

from speciate.analysis import selectors
from speciate.analysis.effects import effects
from speciate.analysis.observation import Settings
from speciate.config.run import RunSpec
from speciate.config.stage_specs import InterveneSpec
from speciate.data.blocks import read_block_set
from speciate.stages import evaluate, intervene, measure, train
from speciate.training.checkpoint.load_run import load_run

SETTINGS = Settings(
    num_steps=12, seed=0, permutations=19, resamples=19, confidence=0.9, armed_after=0.1, min_occurrences=1
)


class Never:
    """Never ask to stop."""

    received = 15

    def __bool__(self) -> bool:
        return False


def test_the_selectivity_is_that_of_the_study_and_has_an_interval(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: Callable[..., RunSpec]
) -> None:
    run, folder = run_spec(), tmp_path / "run"
    assert train.train(run, mixture, folder, tmp_path / "checkpoints", stop=Never())
    settings = InterveneSpec(run=run, blocks=4, max_slots=16, resamples=99, confidence=0.9, draw_seed=0)
    before = intervene.intervene(settings, folder, mixture)
    assert "selectivity" not in set(before["intervention"]), "the run was not evaluated"
    _, model = load_run(folder, 64)
    objective = run.objective.component().Objective(run.objective)
    choices, _ = evaluate.probe_selectors(model, objective, read_block_set(mixture, "probe"))
    safetensors.numpy.save_file(choices, folder / "probe.safetensors")
    rows = intervene.intervene(settings, folder, mixture)
    pd.testing.assert_frame_equal(rows[rows["intervention"] != "selectivity"].reset_index(drop=True), before)
    texts = measure.read_texts(mixture, ())
    observed = measure.read_observed(folder, texts.groups, len(texts.token_P))
    lifts = selectors.experts_table(observed, texts, SETTINGS).query("probe == 'full'")
    assert len(observed) == 2
    for path in (selector.path for selector in observed):
        of_selector = rows[rows["selector"] == path]
        row = of_selector[of_selector["intervention"] == "selectivity"].iloc[0]
        expected = effects.need(of_selector, lifts[lifts["selector"] == path])["selectivity_nats"]
        assert row["cost_nats"] == pytest.approx(expected, abs=1e-12)
        assert row["cost_low_nats"] < row["cost_nats"] < row["cost_high_nats"]
        assert (row["domain"], row["slot"], row["blocks"]) == ("all", -1, 8)
