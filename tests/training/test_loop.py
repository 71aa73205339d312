"""One update: what it refuses, and that micro-batches add up to the whole batch."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from speciate.kinds import component
from speciate.model.transformer import Transformer
from speciate.spec import RunSpec
from speciate.training import loop
from speciate.training.checkpoint import State


def prepared(spec: RunSpec, objective: nn.Module | None = None) -> tuple[loop.Run, State]:
    """A run of the small spec on fixed random blocks, without an observer."""
    torch.manual_seed(0)
    model = Transformer(spec.model, 64).double()
    token_BT = torch.randint(0, 64, (4, 16))
    run = loop.Run(
        spec=spec,
        objective=objective or component(spec.objective).Objective(spec.objective),
        factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,  # type: ignore[arg-type]
    )
    return run, State(0, model, component(spec.optimizer).build(spec.optimizer, model), [], {})


class NotFinite(nn.Module):
    """An objective whose loss is infinite times a weight."""

    def forward(self, model: Transformer, token_BT: Tensor) -> Tensor:
        return model.hidden(token_BT).sum() * float("inf")


def test_a_loss_that_is_not_finite_stops_before_the_update(run_spec: Callable[..., RunSpec]) -> None:
    run, state = prepared(run_spec(), NotFinite())
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(ValueError, match=r"run small, seed 0: step 0: loss .*; no update was made"):
        loop.update(run, state)
    for name, weight in state.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_micro_batches_add_up_to_the_whole_batch(run_spec: Callable[..., RunSpec]) -> None:
    weights = []
    for accumulation in (1, 2, 4):
        # the balancing loss is taken in each micro-batch, so it is left out
        change = {"ffn": {"balance": "none", "z_weight": 0.0, "router": {"noise_std": 0.0}}}
        run, state = prepared(run_spec(model={"block": change}, training={"accumulation": accumulation}))
        loop.update(run, state)
        weights.append(torch.cat([weight.detach().flatten() for weight in state.model.parameters()]))
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(weights[2], weights[0], rtol=0, atol=1e-7)
