"""Test one training step: what it refuses, and that micro-batches add up to the whole batch."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.objective_base import Objective


def prepared(spec: RunSpec, objective: Objective | None = None) -> tuple[TrainContext, State]:
    """Set up a run of the small spec on fixed random blocks, without an observer."""
    torch.manual_seed(0)
    model = Transformer(spec.model, 64).double()
    token_BT = torch.randint(0, 64, (4, 16))
    # 13, 15, 0 and 7 predictions within documents: a micro-batch may have none
    document_BT = torch.tensor([[0] * 4 + [1] * 8 + [2] * 4, [3] * 16, list(range(4, 20)), [20, 21] * 4 + [22] * 8])
    context = TrainContext(
        spec=spec,
        objective=objective or component_module(spec.objective).Objective(spec.objective),
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,  # type: ignore[arg-type]
        documents=(lambda step: document_BT) if spec.model.separate_documents else None,
    )
    return context, State(0, model, component_module(spec.optimizer).build(spec.optimizer, model), [], {})


class NotFinite(Objective):
    """Use an objective whose loss is infinite times a weight."""

    def forward(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
        return model.hidden(token_BT).sum() * float("inf")

    def loss_mask(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
        return torch.ones_like(token_BT, dtype=torch.bool)

    def token_nll(self, model: Transformer, token_BT: Tensor, document_BT: Tensor | None) -> Tensor:
        raise NotImplementedError


def test_a_loss_that_is_not_finite_stops_before_the_update(run_spec: Callable[..., RunSpec]) -> None:
    context, state = prepared(run_spec(), NotFinite())
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(ValueError, match=r"run small, seed 0: step 0: loss .*; no update was made"):
        loop.train_step(context, state)
    for name, weight in state.model.state_dict().items():
        assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("separate", [False, True])
def test_micro_batches_add_up_to_the_whole_batch(run_spec: Callable[..., RunSpec], separate: bool) -> None:
    weights, losses = [], []
    for accumulation in (1, 2, 4):
        # each micro-batch computes its own balancing loss, so it is left out
        change = {"ffn": {"balance": "none", "z_weight": 0.0, "router": {"noise_std": 0.0}}}
        model = {"block": change, "separate_documents": separate}
        context, state = prepared(run_spec(model=model, training={"grad_accumulation": accumulation}))
        if accumulation == 1 and separate:
            token_BT, document_BT = context.tokens(0), context.documents(0)
            counted = document_BT[:, 1:] == document_BT[:, :-1]
            assert counted.sum(1).tolist() == [13, 15, 0, 7]
            expected = float(context.objective.token_nll(state.model, token_BT, document_BT)[counted].mean())
        losses.append(loop.train_step(context, state)["loss"])
        weights.append(torch.cat([weight.detach().flatten() for weight in state.model.parameters()]))
    assert losses[1:] == pytest.approx([losses[0]] * 2, abs=1e-12)
    assert not separate or losses[0] == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-7)
    torch.testing.assert_close(weights[2], weights[0], rtol=0, atol=1e-7)


def test_a_step_of_documents_of_one_token_is_refused(run_spec: Callable[..., RunSpec]) -> None:
    context, state = prepared(run_spec(model={"separate_documents": True}))
    alone = dataclasses.replace(context, documents=lambda step: torch.arange(64).view(4, 16))
    with pytest.raises(ValueError, match="run small, seed 0: step 0: no token is predicted"):
        loop.train_step(alone, state)
