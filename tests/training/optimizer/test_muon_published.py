"""Test moe_arch's Muon against the singular value decomposition, and the telemetry of both Muons."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.optimizer import param_groups
from speciate.training.optimizer.muon import orthogonalise
from speciate.training.optimizer.muon_published import cubic_iteration

MOE = {
    "kind": "moe",
    "num_experts": 3,
    "hidden": 24,
    "router": "learned",
    "balance": "none",
}


def built(model: nn.Module, kind: str = "muon_published", **given: Any) -> Any:
    options = options_of("training/optimizer", kind)(kind=kind, **given)
    return component_module(options).build(options, model)


def transformer() -> Transformer:
    torch.manual_seed(0)
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": MOE, "depth": "every"}
    shape = {"width": 16, "num_layers": 2, "context": 8, "tied_head": False, "block": block}
    return Transformer(ModelSpec.model_validate(shape), 20)


def by_decomposition(matrix: Tensor) -> Tensor:
    """Compute the cubic of a matrix as U f(S) V^T, with f the cubic of a number."""
    u, s, v = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        s = 1.5 * s - 0.5 * s**3
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (10, 10), (1, 7)])
def test_it_is_the_cubic_of_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(cubic_iteration(matrix), by_decomposition(matrix), rtol=1e-10, atol=1e-12)


def test_singular_values_of_both_on_a_random_matrix_of_1024() -> None:
    matrix = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0))
    published = torch.linalg.svdvals(cubic_iteration(matrix))
    ours = torch.linalg.svdvals(orthogonalise(matrix, torch.float32))
    assert float(published.min()) < 0.002
    assert float(published.median()) == pytest.approx(0.19, abs=0.01)
    assert float(published.max()) == pytest.approx(0.45, abs=0.01)
    assert float(ours.median()) == pytest.approx(0.89, abs=0.02)
    assert float(ours.max()) == pytest.approx(1.20, abs=0.02)
    # all but the smallest singular values: a square matrix always has some near zero
    assert float((ours > 0.65).double().mean()) > 0.95
    assert float((published > 0.65).double().mean()) == 0.0


def test_two_steps_by_hand() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4, bias=False, dtype=torch.float64)
    weight, first, second = model.weight.detach().clone(), *torch.randn(2, 4, 6, dtype=torch.float64)
    optimizer = built(model, lr=0.1, momentum=0.9, weight_decay=0.2)
    for gradient in (first, second):
        model.weight.grad = gradient
        optimizer.step()
    momentum = by_decomposition(first)
    weight = (1 - 0.1 * 0.2) * weight - 0.1 * (first + 0.9 * momentum)
    momentum = by_decomposition(0.9 * momentum + second)
    weight = (1 - 0.1 * 0.2) * weight - 0.1 * (second + 0.9 * momentum)
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-10, atol=1e-12)


def cosine(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum() / one.norm() / other.norm())


def test_the_momentum_stays_what_the_first_gradient_made_it() -> None:
    momenta = {}
    for kind, given in (("muon_published", {}), ("muon", {"iteration": "float32"})):
        torch.manual_seed(0)
        model = nn.Linear(64, 64, bias=False)
        optimizer = built(model, kind, lr=0.001, **given)
        for step in range(100):
            # unrelated to each other; of norm .1, as a clipped gradient has on one of a hundred matrices
            model.weight.grad = 0.1 * nn.functional.normalize(torch.randn(4096), dim=0).view(64, 64)
            optimizer.step()
            if step == 0:
                first = optimizer.state[model.weight]["momentum_buffer"].clone()
        momenta[kind] = cosine(first, optimizer.state[model.weight]["momentum_buffer"])
        telemetry = optimizer.telemetry()
    assert momenta["muon_published"] > 0.5
    assert abs(momenta["muon"]) < 0.1
    assert telemetry["singular_median"] > 0.6


def test_routers_are_the_cubics_and_stacks_of_experts_adamws_at_a_part_of_the_rate() -> None:
    model = transformer()
    optimizer = built(model, lr=0.01)
    rows = param_groups.describe_groups(optimizer, model)
    names = {
        rule: {name for row in rows if row["rule"] == rule for name in row["names"]} for rule in ("cubic", "adamw")
    }
    layers = ("mixer.query_key_value.weight", "mixer.out.weight", "ffn.router.scorer.weight")
    assert names["cubic"] == {f"blocks.{layer}.{name}" for layer in (0, 1) for name in layers}
    assert names["adamw"] == {name for name, _ in model.named_parameters()} - names["cubic"]
    assert "blocks.0.ffn.experts.in_weight" in names["adamw"]
    assert [row["peak_rate"] for row in rows] == [
        0.01 if row["rule"] == "cubic" else pytest.approx(0.003) for row in rows
    ]
    assert loop.set_lr(optimizer, 0.5) == pytest.approx(0.005)


@pytest.mark.parametrize("kind", ["muon", "muon_published"])
def test_saved_state_loads_and_continues_bitwise(kind: str) -> None:
    uninterrupted, reloaded = transformer(), transformer()
    first, second = built(uninterrupted, kind), built(reloaded, kind)
    for step in range(4):
        for model, optimizer in ((uninterrupted, first), (reloaded, second)):
            for number, parameter in enumerate(model.parameters()):
                draw = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step == 1:
            file = io.BytesIO()
            torch.save(second.state_dict(), file)
            file.seek(0)
            second = built(reloaded, kind)
            assert second.telemetry() == {}, "it has made no update yet"
            second.load_state_dict(torch.load(file, weights_only=True))
    for mine, other in zip(uninterrupted.parameters(), reloaded.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("iteration", ["float32", "bfloat16"])
def test_telemetry_is_of_the_update_that_was_made(iteration: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(48, 64, bias=False)
    optimizer = built(model, "muon", lr=0.5, weight_decay=0.0, adjust_lr_fn="original", iteration=iteration)
    for _ in range(3):
        before = model.weight.detach().clone()
        model.weight.grad = torch.randn(64, 48)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    update = (before - model.weight.detach()) / 0.5 / (64 / 48) ** 0.5
    values, telemetry = torch.linalg.svdvals(update), optimizer.telemetry()
    assert telemetry["singular_min"] == pytest.approx(float(values.min()), rel=2e-3)
    assert telemetry["singular_median"] == pytest.approx(float(values.median()), rel=2e-3)
    assert telemetry["singular_max"] == pytest.approx(float(values.max()), rel=2e-3)
    assert 0.6 < telemetry["singular_median"] < 1.25


def test_telemetry_of_a_whole_model_tells_the_two_apart() -> None:
    telemetry = {}
    for kind in ("muon", "muon_published"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(96, 128), nn.Linear(128, 80), nn.Linear(80, 128))
        optimizer = built(model, kind)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
        optimizer.step()
        telemetry[kind] = optimizer.telemetry()
    assert set(telemetry["muon"]) == {"singular_min", "singular_median", "singular_max"}
    assert telemetry["muon"]["singular_min"] > 0.6
    assert telemetry["muon"]["singular_max"] < 1.25
    assert telemetry["muon_published"]["singular_max"] < 1.0
    assert telemetry["muon_published"]["singular_median"] < 0.65


def test_a_model_of_nothing_but_vectors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.adamw: leaves no matrix to Muon"):
        built(transformer(), adamw=["*"])
    with pytest.raises(ValueError, match=r"optimizer\.adamw: \*\.ruoter\.\* matches no parameter"):
        built(transformer(), adamw=["*.ruoter.*"])
