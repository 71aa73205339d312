"""Test the similarity of experts that are copies, permutations, rotations and independent of each other."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.every_kind import CONTEXT, VOCABULARY, model_settings

from speciate.config.run import ModelSpec
from speciate.data.blocks import BlockSet
from speciate.evaluation import expert_similarity
from speciate.model.transformer import Transformer
from speciate.training.objective import causal

MOE = {"kind": "moe", "num_experts": 3, "hidden": 12, "router": "learned", "balance": "none"}


def model(**change: Any) -> Transformer:
    torch.manual_seed(0)
    settings = model_settings(ffn={**MOE, **change}, num_layers=1)
    return Transformer(ModelSpec.model_validate(settings), VOCABULARY).eval()


def similarities(some: Transformer) -> dict[str, float]:
    token_BT = np.random.default_rng(0).integers(0, VOCABULARY, (4, CONTEXT))
    blocks = BlockSet("probe", ("code",), token_BT, np.zeros_like(token_BT), np.zeros(4, int), pd.DataFrame(), None)
    rows = expert_similarity.similarity_metrics(some, causal.Objective(causal.Options(kind="causal")), blocks)
    assert {row[0] for row in rows} == {"blocks.0.ffn.experts"}
    return {str(name).removeprefix("expert_"): float(value) for _, name, _, value in rows}


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_copies_with_their_units_in_another_order_are_the_same(activation: str) -> None:
    some = model(activation=activation)
    experts = some.blocks[0].ffn.experts
    for expert in (1, 2):
        order = torch.randperm(12)
        inputs = experts.in_weight[0].view(24, -1, 12)[..., order].reshape(24, -1)
        experts.in_weight[expert] = inputs
        experts.out_weight[expert] = experts.out_weight[0][order]
    found = similarities(some)
    assert found == pytest.approx({"output_similarity": 1.0, "cka": 1.0, "weight_similarity": 1.0}, abs=1e-6)


@torch.no_grad()
def test_a_rotated_output_has_cka_one_and_another_direction() -> None:
    some = model()
    experts = some.blocks[0].ffn.experts
    for expert in (1, 2):
        rotation, _ = torch.linalg.qr(torch.randn(24, 24))
        experts.in_weight[expert] = experts.in_weight[0]
        experts.out_weight[expert] = experts.out_weight[0] @ rotation
    found = similarities(some)
    assert found["cka"] == pytest.approx(1.0, abs=1e-5)
    assert abs(found["output_similarity"]) < 0.5
    assert 0.2 < found["weight_similarity"] < 0.95  # the same inputs, other outputs


@torch.no_grad()
def test_independent_experts_are_unlike_and_opposite_ones_are_minus_one() -> None:
    some = model()
    found = similarities(some)
    assert abs(found["output_similarity"]) < 0.4
    assert found["cka"] < 0.6
    some.blocks[0].ffn.experts.in_weight[:] = some.blocks[0].ffn.experts.in_weight[0].clone()
    some.blocks[0].ffn.experts.out_weight[1] = -some.blocks[0].ffn.experts.out_weight[0]
    some.blocks[0].ffn.experts.out_weight[2] = some.blocks[0].ffn.experts.out_weight[0]
    assert similarities(some)["output_similarity"] == pytest.approx((-1 - 1 + 1) / 3, abs=1e-5)


def test_the_matching_is_the_best_of_all() -> None:
    import itertools

    draw = torch.Generator().manual_seed(0)
    one, other = (torch.nn.functional.normalize(torch.randn(5, 7, generator=draw), dim=-1).double() for _ in range(2))
    best = max(
        sum(float(one[row] @ other[column]) for row, column in enumerate(order)) / 5
        for order in itertools.permutations(range(5))
    )
    assert expert_similarity.matched_cosine(one, other) == pytest.approx(best)


def test_a_dense_model_has_no_experts() -> None:
    some = Transformer(ModelSpec.model_validate(model_settings()), VOCABULARY).eval()
    token_BT = np.zeros((2, CONTEXT), dtype=np.int64)
    blocks = BlockSet("probe", ("code",), token_BT, token_BT, np.zeros(2, int), pd.DataFrame(), None)
    assert expert_similarity.similarity_metrics(some, causal.Objective(causal.Options(kind="causal")), blocks) == []
