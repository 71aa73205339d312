"""Test swapped selectors on models whose experts are copies of each other, or whose routers are, in another order."""

import copy
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluation.test_interventions import MOE, objective, probe
from tests.every_kind import VOCABULARY, model_settings

from speciate.config.run import ModelSpec
from speciate.evaluation import swaps
from speciate.evaluation.swaps import ALL, Donor, Swap
from speciate.model.transformer import Transformer
from speciate.selection.selection import selectors

PATHS = ("blocks.0.ffn.router", "blocks.1.ffn.router")
ARM, SEED, STEP = (Donor(kind, "other", 1, 9) for kind in ("arm", "seed", "step"))


def build(seed: int = 0, ffn: Any = MOE, **changes: Any) -> Transformer:
    torch.manual_seed(seed)
    settings = model_settings(ffn=ffn, **changes) | {"num_layers": 2}
    return Transformer(ModelSpec.model_validate(settings), VOCABULARY).double().eval()


def mean_nats(sums: Any) -> float:
    return float(sums.nats_G.sum() / sums.tokens_G.sum())


def reordered(model: Transformer, order: list[int]) -> Transformer:
    """Return a copy whose routers' slots are called otherwise, without moving the experts."""
    other = copy.deepcopy(model)
    for selector in selectors(other).values():
        selector.scorer.weight.data = selector.scorer.weight.data[order]
    return other


@pytest.mark.parametrize("change", [{}, {"top_k": 2}])
def test_a_swapped_router_is_the_model_with_its_weights(change: dict[str, Any]) -> None:
    model, other = build(0, {**MOE, **change}), build(1, {**MOE, **change})
    clean, swapped = swaps.nats_by_swap(model, objective(), probe(), {ARM: other})
    assert set(swapped) == {Swap(ARM, path, False) for path in (*PATHS, ALL)}
    for paths in (PATHS[:1], PATHS[1:], PATHS):
        mixed = copy.deepcopy(model)
        for path in paths:
            mixed.get_submodule(path).load_state_dict(other.get_submodule(path).state_dict())
        expected, _ = swaps.nats_by_swap(mixed, objective(), probe(), {})
        found = swapped[Swap(ARM, paths[0] if len(paths) == 1 else ALL, False)]
        np.testing.assert_allclose(found.nats_G, expected.nats_G, rtol=1e-12)
        assert abs(mean_nats(found) - mean_nats(clean)) > 1e-6
    again, _ = swaps.nats_by_swap(model, objective(), probe(), {})
    assert (again.nats_G == clean.nats_G).all(), "the model is as it was"


def test_its_own_router_and_one_among_equal_experts_cost_nothing() -> None:
    model = build()
    clean, swapped = swaps.nats_by_swap(model, objective(), probe(), {STEP: copy.deepcopy(model)})
    assert all((sums.nats_G == clean.nats_G).all() for sums in swapped.values())
    with torch.no_grad():
        for block in model.blocks:
            for weight in (block.ffn.experts.in_weight, block.ffn.experts.out_weight):
                weight[:] = weight[0].clone()
    clean, swapped = swaps.nats_by_swap(model, objective(), probe(), {ARM: build(1)})
    for sums in swapped.values():
        np.testing.assert_allclose(sums.nats_G, clean.nats_G, rtol=1e-9)


@pytest.mark.parametrize("top_k", [1, 2])
def test_matching_slots_undoes_another_order(top_k: int) -> None:
    model = build(0, {**MOE, "top_k": top_k})
    clean, swapped = swaps.nats_by_swap(model, objective(), probe(), {SEED: reordered(model, [2, 0, 3, 1])})
    assert set(swapped) == {Swap(SEED, path, matched) for path in (*PATHS, ALL) for matched in (False, True)}
    for case, sums in swapped.items():
        if case.relabelled:
            np.testing.assert_allclose(sums.nats_G, clean.nats_G, rtol=1e-9)
        else:
            assert abs(mean_nats(sums) - mean_nats(clean)) > 1e-6


def test_slots_are_matched_as_the_best_of_all_orders_does() -> None:
    count_SS = torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    best = max(sum(float(count_SS[s, o[s]]) for s in range(5)) for o in itertools.permutations(range(5)))
    found = swaps.match_slots(count_SS)
    assert sorted(found.tolist()) == list(range(5))
    assert float(count_SS[torch.arange(5), found].sum()) == pytest.approx(best)


@pytest.mark.parametrize(
    ("other", "stands_in"),
    [
        ({}, True),
        ({"router": "frozen"}, True),
        ({"router": "hash"}, True),
        ({"num_experts": 8}, False),
        ({"top_k": 2}, False),
        ({"router": {"kind": "learned", "shape": "mlp", "hidden": 7}}, False),
        ({"choice": {"kind": "expert", "non_causal": True}}, False),
    ],
)
def test_a_router_stands_in_where_it_has_the_same_slots(other: dict[str, Any], stands_in: bool) -> None:
    _, swapped = swaps.nats_by_swap(build(), objective(), probe(), {ARM: build(1, {**MOE, **other})})
    assert bool(swapped) == stands_in


def test_other_selectors_are_swapped_as_well_and_a_dense_model_has_none() -> None:
    depth = {"kind": "mod", "capacity": 0.5}
    model, other = (build(seed, "dense", depth=depth) for seed in (0, 1))
    for module in (model, other):
        for selector in selectors(module).values():
            torch.nn.init.normal_(selector.predictor.down.weight)
    _, swapped = swaps.nats_by_swap(model, objective(), probe(), {SEED: other})
    assert {case.selector for case in swapped} == {"blocks.0.depth.router", "blocks.1.depth.router", ALL}
    assert not any(case.relabelled for case in swapped), "skip and run are no names to be matched"
    dense = build(0, "dense")
    assert swaps.nats_by_swap(dense, objective(), probe(), {SEED: build(1, "dense")})[1] == {}
