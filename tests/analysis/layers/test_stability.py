"""Test saturation and churn against scikit-learn's kappa, against an enumeration, and on planted runs."""

import itertools
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
from sklearn.metrics import cohen_kappa_score

from speciate.analysis.layers import stability
from speciate.config.stage_specs import MeasureSpec
from speciate.stages import measure


def whole(one_PS: np.ndarray, other_PS: np.ndarray) -> list[float]:
    pair = stability.pair_of(one_PS.astype(np.uint8), other_PS.astype(np.uint8), np.zeros(len(one_PS), int), 1)
    return [float(value[0]) for value in pair.agreement()]


@pytest.mark.parametrize("seed", range(3))
def test_with_one_slot_a_token_it_is_cohens_kappa(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one = draw.choice(4, 400, p=[0.7, 0.2, 0.05, 0.05])
    other = np.where(draw.random(400) < 0.5, one, draw.choice(4, 400, p=[0.6, 0.3, 0.1, 0]))
    observed, by_chance, kappa = whole(np.eye(4)[one], np.eye(4)[other])
    assert observed == pytest.approx((one == other).mean())
    assert kappa == pytest.approx(cohen_kappa_score(one, other))
    assert by_chance == pytest.approx((observed - kappa) / (1 - kappa))


def test_chance_is_the_mean_over_all_orders_of_sets_of_slots() -> None:
    one = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 1]])
    other = np.array([[1, 0, 1], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]])
    sizes = (one.sum() + other.sum()) / 2
    orders = [(one * other[list(order)]).sum() / sizes for order in itertools.permutations(range(5))]
    observed, by_chance, kappa = whole(one, other)
    assert observed == pytest.approx((one * other).sum() / sizes)
    assert by_chance == pytest.approx(np.mean(orders))
    assert kappa == pytest.approx((observed - np.mean(orders)) / (1 - np.mean(orders)))


def test_positions_that_one_step_does_not_decide_are_left_out() -> None:
    one = np.array([[1, 0], [0, 1], [0, 0], [1, 0]])
    other = np.array([[1, 0], [1, 0], [1, 0], [0, 0]])
    pair = stability.pair_of(one.astype(np.uint8), other.astype(np.uint8), np.array([0, 1, 0, 1]), 2)
    assert pair.decisions_G.tolist() == [1, 1]
    assert pair.shared_G.tolist() == [1, 0]


def test_a_selector_that_sends_everything_to_one_slot_has_no_kappa() -> None:
    observed, by_chance, kappa = whole(np.eye(3)[[1] * 9], np.eye(3)[[1] * 9])
    assert (observed, by_chance) == (1, 1)
    assert np.isnan(kappa)


def test_planted_runs_settle_when_their_preferences_do(table: Callable[[str], pd.DataFrame]) -> None:
    rows = table("stability")
    frozen = rows[rows["ablation"] == "frozen"]
    assert (frozen["saturation_kappa"] == 1).all()
    assert (frozen.loc[frozen["step"] > 0, "churn_ratio"] == 0).all()
    assert set(rows["ablation"]) == {"auxiliary", "unbalanced_fast", "frozen", "hash"}
    learned = rows[(rows["ablation"] == "auxiliary") & (rows["seed"] == 0) & (rows["layer"] == 0)].set_index("step")
    settled = learned["saturation_kappa"]
    assert settled[0] < 0.6 < settled[20] < 1
    assert (settled.loc[40:] == 1).all(), "what is planted stops changing at 40 % of the steps"
    assert (learned.loc[50:, "churn"] == 0).all()
    assert learned.at[5, "churn"] > 0
    assert (learned["saturation_low"] <= settled).all()
    assert (learned["saturation_high"] >= settled).all()
    assert learned["previous_step"].tolist() == [-1, *learned.index[:-1]]
    assert learned.loc[0, ["churn", "churn_ratio", "churn_low"]].isna().all()


def test_collapse_raises_agreement_by_chance_and_not_kappa(table: Callable[[str], pd.DataFrame]) -> None:
    rows = table("stability").set_index(["ablation", "layer", "seed", "step"]).sort_index()
    early = rows.xs((0, 0, 10), level=["layer", "seed", "step"])
    assert early.at["unbalanced_fast", "saturation_by_chance"] > 2 * early.at["auxiliary", "saturation_by_chance"]
    assert early.at["unbalanced_fast", "saturation_kappa"] < early.at["auxiliary", "saturation_kappa"]


def test_telemetry_without_choices_is_refused(
    study: pathlib.Path, tmp_path: pathlib.Path, small: object, measure_spec_of: Callable[..., MeasureSpec]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for file in (study / "runs/frozen/seed0").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    file = folder / "telemetry.safetensors"
    early = safetensors.numpy.load_file(file)
    safetensors.numpy.save_file({k: v for k, v in early.items() if not k.endswith("0.ffn.router/choice")}, file)
    with pytest.raises(ValueError, match=r"selector blocks.0.ffn.router: telemetry has no choices, but 12 steps"):
        measure.measure(measure_spec_of("frozen", 0, small), folder, study / "mixture")
