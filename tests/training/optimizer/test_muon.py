"""Test Muon against torch's own, on matrices and on stacks slice by slice, and AdamW on the rest."""

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.optimizer import param_groups

MOE = {"kind": "moe", "num_experts": 3, "hidden": 24, "router": "learned", "balance": "none"}
DENSE = {"kind": "dense", "hidden": 24}


def options(**settings: Any) -> Any:
    return options_of("training/optimizer", "muon")(kind="muon", **settings)


def built(model: nn.Module, **settings: Any) -> torch.optim.Optimizer:
    optimizer: torch.optim.Optimizer = component_module(options()).build(options(**settings), model)
    return optimizer


def transformer(ffn: dict[str, Any]) -> Transformer:
    torch.manual_seed(0)
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn, "depth": "every"}
    shape = {"width": 16, "num_layers": 2, "context": 8, "tied_head": False, "block": block}
    return Transformer(ModelSpec.model_validate(shape), 20)


def gradients(model: nn.Module, step: int) -> None:
    """Set gradients that depend on each parameter's name and the step alone."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(1000 * step + sum(map(ord, name)))
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def names(rows: list[dict[str, Any]], *rules: str) -> set[str]:
    return {name for row in rows if row["rule"] in rules for name in row["names"]}


@pytest.mark.parametrize("iteration", ["bfloat16", "float32"])
def test_hidden_matrices_are_muons_and_the_rest_adamws(iteration: str) -> None:
    model = transformer(MOE)
    rows = param_groups.describe_groups(built(model, iteration=iteration), model)
    per_layer = ("mixer.query_key_value.weight", "mixer.out.weight", "ffn.experts.in_weight", "ffn.experts.out_weight")
    matrices = {f"blocks.{layer}.{name}" for layer in range(2) for name in per_layer}
    assert names(rows, "muon", "muon_batched") == matrices
    assert names(rows, "adamw") == {name for name, _ in model.named_parameters()} - matrices
    assert {"token_embedding.weight", "position_embedding.weight", "unembedding.weight", "norm.weight"} < names(
        rows, "adamw"
    )
    assert {"blocks.0.ffn.router.scorer.weight", "blocks.0.ffn.experts.in_bias"} < names(rows, "adamw")
    assert sum(row["parameters"] for row in rows) == sum(parameter.numel() for parameter in model.parameters())
    stacked = {name for name in matrices if "experts" in name}
    assert names(rows, "muon_batched") == (stacked if iteration == "bfloat16" else matrices)


def test_the_split_in_one_line() -> None:
    model = transformer(DENSE)
    # matrices per layer: 16 x (48 + 16 + 24 + 24); two layers
    line = param_groups.summarise_groups(param_groups.describe_groups(built(model), model))
    assert line.startswith("muon updates 3,584 parameters in 8 tensors, adamw updates ")


def test_patterns_decide_the_split() -> None:
    model = transformer(MOE)
    rows = param_groups.describe_groups(built(model, adamw=["*embedding*", "*.query_key_value.*"]), model)
    assert names(rows, "muon") == {
        f"blocks.{layer}.{name}" for layer in range(2) for name in ("mixer.out.weight", "ffn.router.scorer.weight")
    }


def test_what_has_a_side_of_one_is_no_matrix() -> None:
    model = nn.Sequential(nn.Linear(4, 1), nn.Linear(4, 3), nn.Conv1d(6, 6, 4, groups=6))
    rows = param_groups.describe_groups(built(model), model)
    assert names(rows, "muon", "muon_batched") == {"1.weight"}


@pytest.mark.parametrize("adjust", ["original", "match_rms_adamw"])
def test_a_dense_model_is_bitwise_torchs_muon_and_adamw(adjust: str) -> None:
    ours, torchs = transformer(DENSE), transformer(DENSE)
    optimizer = built(ours, lr=0.02, adamw_lr=0.003, adjust_lr_fn=adjust, weight_decay=0.1, momentum=0.9)
    hidden = [p for n, p in torchs.named_parameters() if n.startswith("blocks") and p.ndim == 2]
    others = [p for n, p in torchs.named_parameters() if not (n.startswith("blocks") and p.ndim == 2)]
    decaying = [
        {"params": [p for p in others if (p.ndim > 1) == large], "weight_decay": 0.1 * large} for large in (1, 0)
    ]
    reference = [
        torch.optim.Muon(hidden, lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn=adjust),
        torch.optim.AdamW(decaying, lr=0.003, betas=(0.9, 0.95), fused=True),
    ]
    for step in range(5):
        gradients(ours, step)
        gradients(torchs, step)
        optimizer.step()
        for one in reference:
            one.step()
    for (name, weight), other in zip(ours.named_parameters(), torchs.parameters(), strict=True):
        assert torch.equal(weight, other), name


def steps_of_stack_and_singles(
    shape: tuple[int, int, int], adjust: str, as_linear: bool, iteration: str
) -> tuple[Tensor, Tensor]:
    """Return how far five steps moved a stack of matrices, with our Muon and with torch's; both (E, R, C).

    Torch's Muon has each matrix as a parameter: (outputs, inputs), as linear layers hold it, or as the stack does.
    """
    torch.manual_seed(0)
    start_ERC = torch.randn(shape)
    stack = nn.Parameter(start_ERC.clone())

    def turned(matrix: Tensor) -> Tensor:
        return matrix.mT.contiguous() if as_linear else matrix.clone()

    singles = [nn.Parameter(turned(matrix)) for matrix in start_ERC]
    ours = built(nn.ParameterDict({"stack": stack}), lr=0.02, adjust_lr_fn=adjust, iteration=iteration)
    torchs = torch.optim.Muon(singles, lr=0.02, adjust_lr_fn=adjust)
    for _ in range(5):
        stack.grad = torch.randn(shape)
        for single, gradient in zip(singles, stack.grad, strict=True):
            single.grad = turned(gradient)
        ours.step()
        torchs.step()
    expected_ERC = torch.stack([turned(single.detach()) for single in singles])
    return stack.detach() - start_ERC, expected_ERC - start_ERC


SHAPES = [(3, 16, 24), (4, 24, 16), (2, 16, 16), (1, 5, 64)]
# the scales that depend on inputs and outputs need the matrices as linear layers hold them
WAYS = [("match_rms_adamw", False), ("match_rms_adamw", True), ("original", True)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("adjust", "as_linear"), WAYS)
def test_each_matrix_of_a_stack_moves_as_with_torchs_muon(
    shape: tuple[int, int, int], adjust: str, as_linear: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)  # torch's iteration without its rounding
    moved_ERC, expected_ERC = steps_of_stack_and_singles(shape, adjust, as_linear, "float32")
    # a batched and a single product round differently; the five rounds of the quintic multiply the rounding of small
    # singular values by up to 3.4445^5 = 485: 485 float32 eps of a movement of .02, and the weights' own rounding
    torch.testing.assert_close(moved_ERC, expected_ERC, rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("adjust", "as_linear"), WAYS)
def test_in_bfloat16_a_stack_moves_as_with_torchs_muon(
    shape: tuple[int, int, int], adjust: str, as_linear: bool
) -> None:
    moved_ERC, expected_ERC = steps_of_stack_and_singles(shape, adjust, as_linear, "bfloat16")
    # bfloat16 rounds each product to 1/256, and the quintic multiplies that; in float32, above, the two are equal
    assert float((moved_ERC - expected_ERC).norm() / expected_ERC.norm()) < 0.15


@pytest.mark.parametrize("shape", [(8, 12), (12, 8), (3, 12, 8)])
def test_in_float32_it_is_torchs_iteration_without_its_rounding(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    update = torch.randn(shape)
    orthogonal = component_module(options()).orthogonalise(update, torch.float32)
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.clone)
    from torch.optim import _muon

    matrices = update if update.ndim == 3 else update[None]
    expected = torch.stack([_muon._zeropower_via_newtonschulz(m, (3.4445, -4.7750, 2.0315), 5, 1e-7) for m in matrices])
    # 485 float32 eps, as above: a batch is rounded otherwise than its matrices one by one
    torch.testing.assert_close(orthogonal, expected.view(shape), rtol=0, atol=6e-5)
    values = torch.linalg.svdvals(orthogonal)
    assert values.min() > 0.6
    assert values.max() < 1.25


def test_a_collapsed_gradient_is_no_division_by_zero() -> None:
    model = nn.Linear(4, 3)
    optimizer = built(model, weight_decay=0.0)
    before = model.weight.detach().clone()
    model.weight.grad, model.bias.grad = torch.zeros(3, 4), torch.zeros(3)
    optimizer.step()
    assert torch.equal(model.weight, before)


def test_rates_of_both_halves_follow_the_patterns_and_the_schedule() -> None:
    model = transformer(MOE)
    optimizer = built(model, lr=0.02, adamw_lr=0.004, lr_scales={"*.router.*": 10.0, "*.experts.in_weight": 0.5})
    assert loop.set_lr(optimizer, 0.5) == pytest.approx(0.01)
    rates = {
        name: group["lr"]
        for group in optimizer.param_groups
        for name, parameter in model.named_parameters()
        if any(parameter is member for member in group["params"])
    }
    assert rates["blocks.0.ffn.router.scorer.weight"] == pytest.approx(0.02)  # .004 x 10 / 2
    assert rates["token_embedding.weight"] == pytest.approx(0.002)
    assert rates["blocks.1.ffn.experts.in_weight"] == pytest.approx(0.005)
    assert rates["blocks.1.ffn.experts.out_weight"] == rates["blocks.1.mixer.out.weight"] == pytest.approx(0.01)


def test_one_rate_serves_both_halves_unless_told_otherwise() -> None:
    assert {group["peak"] for group in built(transformer(MOE), lr=0.006).param_groups} == {0.006}


@pytest.mark.parametrize("iteration", ["bfloat16", "float32"])
def test_saved_state_loads_with_weights_only_and_continues_bitwise(iteration: str) -> None:
    uninterrupted, reloaded = transformer(MOE), transformer(MOE)
    first, second = built(uninterrupted, iteration=iteration), built(reloaded, iteration=iteration)
    for step in range(6):
        for model, optimizer in ((uninterrupted, first), (reloaded, second)):
            gradients(model, step)
            loop.set_lr(optimizer, 1 / (1 + step))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if step == 2:
            file = io.BytesIO()
            torch.save(second.state_dict(), file)
            file.seek(0)
            second = built(reloaded, iteration=iteration)
            second.load_state_dict(torch.load(file, weights_only=True))
    for weight, other in zip(uninterrupted.parameters(), reloaded.parameters(), strict=True):
        assert torch.equal(weight, other)


def test_frozen_parameters_are_left_out() -> None:
    model = transformer(DENSE)
    model.blocks[0].requires_grad_(False)
    rows = param_groups.describe_groups(built(model), model)
    assert not any(name.startswith("blocks.0") for row in rows for name in row["names"])


def test_patterns_that_fit_nothing_are_refused_but_for_the_default_ones() -> None:
    built(transformer(DENSE))  # it has no router, and the default patterns name one
    with pytest.raises(ValueError, match=r"optimizer\.adamw: \*\.ruoter\.\* matches no parameter"):
        built(transformer(MOE), adamw=["*.ruoter.*"])
    with pytest.raises(ValueError, match=r"optimizer\.lr_scales: \*\.ruoter\.\* matches no parameter"):
        built(transformer(MOE), lr_scales={"*.ruoter.*": 10.0})
    with pytest.raises(ValueError, match=r"optimizer\.adamw: leaves no matrix to Muon"):
        built(transformer(MOE), adamw=["*"])


def test_the_scale_of_an_update_by_hand() -> None:
    scale = component_module(options()).update_scale
    assert scale(torch.empty(8, 2), "original") == 2.0  # 8 outputs of 2 inputs
    assert scale(torch.empty(2, 8), "original") == 1.0
    assert scale(torch.empty(5, 2, 8), "original") == 2.0  # experts of 2 inputs and 8 outputs
    assert scale(torch.empty(5, 2, 8), "match_rms_adamw") == pytest.approx(0.2 * math.sqrt(8))
