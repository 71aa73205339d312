"""Test that training on a device equals training on the CPU, within the precision; on a CPU, test the tests."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.io import sha256
from speciate.model.activation import ACTIVATIONS
from speciate.model.moe.experts import Experts
from speciate.model.transformer import Transformer
from speciate.stages import train as verb
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.distributed.ranks import Ranks
from speciate.training.numerics import precision as arithmetic
from speciate.training.prefetch import BatchPrefetcher

MakeRun = Callable[..., RunSpec]
on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
QUIET = {"router": {"noise_std": 0.0}}


def steps(spec: RunSpec, device: str, ahead: int = 0) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the losses of three steps and the weights after them."""
    torch.manual_seed(0)
    ranks = Ranks(device=torch.device(device))
    model = ranks.place(Transformer(spec.model, 64))
    optimizer = component_module(spec.optimizer).build(spec.optimizer, model)

    def read(step: int) -> tuple[torch.Tensor, None]:
        return torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(step)), None

    with BatchPrefetcher(read, 3, ahead, pinned=device == "cuda") as feed, arithmetic.determinism(spec.training):
        run = TrainContext(
            spec=spec,
            objective=component_module(spec.objective).Objective(spec.objective),
            lr_factor=lambda step: 1.0,
            tokens=lambda step: feed(step)[0],
            observer=None,  # type: ignore[arg-type]
            ranks=ranks,
        )
        state = State(0, model, optimizer, [], {})
        losses = []
        for _ in range(3):
            losses.append(loop.train_step(run, state)["loss"])
            state.step += 1
    return losses, {name: weight.detach().cpu() for name, weight in model.state_dict().items()}


@on_devices
@pytest.mark.parametrize("top_k", [1, 2])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 3e-2)])
def test_steps_on_the_device_are_those_of_the_cpu(
    run_spec: MakeRun, device: str, top_k: int, precision: str, tolerance: float
) -> None:
    ffn = {"top_k": top_k, **QUIET}
    losses, _ = steps(run_spec(model={"block": {"ffn": ffn}}, training={"precision": precision}), device)
    expected, _ = steps(run_spec(model={"block": {"ffn": ffn}}), "cpu")
    assert losses == pytest.approx(expected, abs=tolerance)


@on_devices
def test_reading_ahead_changes_no_bit(run_spec: MakeRun, device: str) -> None:
    spec = run_spec(training={"deterministic": True, "grad_accumulation": 2})
    in_time, ahead = steps(spec, device), steps(spec, device, ahead=2)
    assert in_time[0] == ahead[0]
    for name, weight in in_time[1].items():
        assert torch.equal(weight, ahead[1][name]), name


@on_devices
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_grouped_experts_are_the_looped_ones(device: str, activation: str) -> None:
    torch.manual_seed(0)
    experts = Experts(4, 16, 32, ACTIVATIONS[activation], biases=True).to(device)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    count_E = torch.tensor([5, 0, 9, 2], device=device)
    results = []
    for run in (experts.run_looped, experts.run_grouped):
        x_AD = torch.randn(16, 16, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
        y_AD = run(x_AD, count_E)
        y_AD.square().sum().backward()
        gradients = [parameter.grad for parameter in experts.parameters()]
        results.append([y_AD.detach(), x_AD.grad, *gradients])
        experts.zero_grad(set_to_none=True)
    for looped, grouped in zip(*results, strict=True):
        torch.testing.assert_close(grouped, looped, rtol=1e-3, atol=1e-3)


@on_devices
@pytest.mark.parametrize("separate", [False, True])
def test_a_whole_run_ends_and_repeats(
    mixture: pathlib.Path, tmp_path: pathlib.Path, run_spec: MakeRun, device: str, separate: bool
) -> None:
    change: dict[str, Any] = {"training": {"deterministic": True, "num_steps": 4}}
    spec = run_spec(model={"separate_documents": separate}, **change)
    ranks = Ranks(device=torch.device(device))

    class Never:
        received = None

        def __bool__(self) -> bool:
            return False

    for name in ("one", "two"):
        with arithmetic.determinism(spec.training):
            assert verb.train(spec, mixture, tmp_path / name, tmp_path / f"{name}-kept", stop=Never(), ranks=ranks)
    for file in ("model.safetensors", "metrics.jsonl", "telemetry.safetensors"):
        assert sha256(tmp_path / "one" / file) == sha256(tmp_path / "two" / file)
