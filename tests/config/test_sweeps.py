"""Test sweeps, the short form of arms that differ in a few values."""

import pathlib
from typing import Any

import pytest

from speciate.config.extends import merge, read_yaml
from speciate.config.run import canonical_json
from speciate.config.study import Study, parse_study
from speciate.config.sweeps import Sweep, plan

ROOT = pathlib.Path(__file__).parents[2]
RATES = {
    "about": "{rate} times as fast, weight {weight}",
    "grid": {"rate": [1, 30], "weight": [0, 0.001]},
    "change": {
        "model": {"block": {"ffn": {"balance": {"weight": "{weight}"}}}},
        "optimizer": {"lr_scales": {"*.router.*": "{rate}"}},
    },
}
KINDS = {
    "about": "balance: {kind}",
    "grid": {"kind": {"bias": {"kind": "bias", "rate": 0.02}, "nothing": "none"}},
    "change": {"model": {"block": {"ffn": {"balance": "{kind}"}}}},
}


def study(sweeps: dict[str, Any], ablations: dict[str, Any] | None = None) -> Study:
    """Return the default study with these sweeps beside its arms."""
    settings = read_yaml(ROOT / "studies/three_selectors.yaml")
    return parse_study(merge(settings, {"sweeps": sweeps, "ablations": ablations or {}}), "study")


def test_a_sweep_is_the_same_as_its_arms_written_out() -> None:
    swept = study({"speed": RATES})
    names = [f"speed_rate{rate}_weight{weight}" for rate in (1, 30) for weight in ("0", "0_001")]
    assert list(swept.ablations)[-4:] == names
    assert swept.ablations["speed_rate30_weight0_001"].about == "30 times as fast, weight 0.001"
    written = study(
        {},
        {
            "speed_rate30_weight0_001": {
                "about": "x",
                "change": {
                    "model": {"block": {"ffn": {"balance": {"weight": 0.001}}}},
                    "optimizer": {"lr_scales": {"*.router.*": 30}},
                },
            }
        },
    )
    runs = [canonical_json(each.run("speed_rate30_weight0_001", 1)) for each in (swept, written)]
    assert runs[0] == runs[1]


def test_a_named_choice_puts_its_whole_value_into_the_change() -> None:
    found = study({"balance": KINDS})
    balances = [found.run(f"balance_kind{kind}", 0).model.block.ffn.balance for kind in ("bias", "nothing")]
    assert [balance.kind for balance in balances] == ["bias", "none"]
    assert balances[0].rate == 0.02
    assert plan("balance", found.sweeps["balance"]).cells[0].values == ("bias",)


def test_arms_of_a_sweep_can_be_in_hypotheses_and_layer_groups_still_expand() -> None:
    groups = {
        "about": "keys {k}",
        "grid": {"k": [16, 32]},
        "change": {
            "model": {
                "block": {"ffn": {"kind": "dense", "hidden": 256, "activation": "gelu"}},
                "layer_groups": {
                    "sparse": {
                        "layers": [2],
                        "block": {
                            "mixer": {
                                "kind": "gsa",
                                "num_heads": 4,
                                "indexer": "window",
                                "budget": {"kind": "fixed", "k": "{k}"},
                            }
                        },
                    }
                },
            }
        },
    }
    found = study({"keys": groups})
    assert [found.run(f"keys_k{k}", 0).model.exceptions[0].block.mixer.budget.k for k in (16, 32)] == [16, 32]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": {"rate": [1, 30], "weight": []}}, "sweeps.speed.grid.weight: has no values"),
        ({"grid": {"rate": [1, 1], "weight": [1]}}, "sweeps.speed.grid.rate: [1, 1] names a value twice"),
        ({"grid": {"rate": [1], "weight": [1], "other": [1]}}, "sweeps.speed.grid.other: nothing in change takes it"),
        ({"grid": {"rate": [1]}}, "sweeps.speed.change: {weight} is no parameter of the grid, which has rate"),
        ({"about": "{speed}"}, "sweeps.speed.about: 'speed' is no parameter of the grid"),
        ({"critical": "speed"}, "sweeps.speed.critical: speed is no parameter of the grid"),
        ({"critical": "weight"}, "sweeps.speed.critical: grid.weight: has no two positive numbers"),
        (
            {"change": {"optimizer": {"lr_scales": {"*": "{rate}"}}, "modl": "{weight}"}},
            "ablations.speed_rate1_weight0.modl",
        ),
        ({"grids": {}}, "sweeps.speed.grids: unknown key"),
    ],
)
def test_a_wrong_sweep_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        study({"speed": {**RATES, **change}})
    assert message in str(error.value)


def test_an_arm_with_a_sweeps_name_is_refused() -> None:
    with pytest.raises(ValueError, match="its arm speed_rate1_weight0 has the name of another"):
        study({"speed": RATES}, {"speed_rate1_weight0": {"about": "x"}})


def test_a_critical_parameter_needs_a_grid_of_two() -> None:
    with pytest.raises(ValueError, match="takes a grid of two parameters, not of 1"):
        Sweep(about="x", grid={"rate": [1, 2]}, change={"seed": "{rate}"}, critical="rate")
