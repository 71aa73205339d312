"""Test the scales of initial weights, and that they depend on the seed and the name alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.model.transformer import Transformer

Build = Callable[..., Transformer]


def test_the_scales_are_gpt2s(model_spec: Callable[..., Any]) -> None:
    model = Transformer(model_spec(width=256, num_layers=8, ffn={"kind": "dense", "hidden": 1024}), 500)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.ndim == 1:
            assert (parameter == 1).all(), name
        else:
            std = 0.02 / 16**0.5 if ".out." in name else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
            assert abs(parameter.mean().item()) < 4 * std / parameter.numel() ** 0.5, name


def test_experts_are_scaled_too_and_differ(transformer: Build, moe: Callable[..., Any]) -> None:
    experts = transformer(ffn=moe(hidden=500), init_std=0.02).blocks[0].ffn.experts
    assert experts.in_weight.std().item() == pytest.approx(0.02, rel=0.03)
    assert experts.out_weight.std().item() == pytest.approx(0.02 / 4**0.5, rel=0.03)
    assert not experts.out_bias.any()
    assert not torch.equal(experts.in_weight[0], experts.in_weight[1])


def test_the_seed_decides(transformer: Build) -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return transformer().head_VD

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_arms_of_one_seed_share_what_both_have(transformer: Build, moe: Callable[..., Any]) -> None:
    arms: dict[str, dict[str, torch.Tensor]] = {}
    for arm, ffn in {"dense": None, "learned": moe(), "frozen": moe(router="frozen")}.items():
        torch.manual_seed(7)
        arms[arm] = transformer(ffn=ffn).state_dict()
    shared = [name for name in arms["dense"] if "ffn." not in name]
    assert len(shared) > 10
    for name in shared:
        assert torch.equal(arms["dense"][name], arms["learned"][name]), name
    assert arms["learned"].keys() == arms["frozen"].keys()
    for name, value in arms["learned"].items():
        assert torch.equal(value, arms["frozen"][name]), name
