"""Test that micro-batches add up to the whole batch in float64, even with unequal numbers of predictions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.transformer import Transformer
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext

NUM_BLOCKS, LENGTH, VOCABULARY = 8, 16, 64
# each micro-batch computes its own balancing loss and z-loss, and draws its own noise
QUIET = {"balance": "none", "z_weight": 0.0, "router": {"noise_std": 0.0}}
MakeRun = Callable[..., RunSpec]


def prepared(spec: RunSpec, document_BT: Tensor | None) -> tuple[TrainContext, State]:
    """Set up a run of the small spec in float64 on fixed random blocks, without an observer."""
    torch.manual_seed(0)
    model = Transformer(spec.model, VOCABULARY).double()
    token_BT = torch.randint(VOCABULARY, (NUM_BLOCKS, LENGTH))
    context = TrainContext(
        spec=spec,
        objective=component_module(spec.objective).Objective(spec.objective),
        lr_factor=lambda step: 1.0,
        tokens=lambda step: token_BT,
        observer=None,  # type: ignore[arg-type]
        documents=None if document_BT is None else lambda step: document_BT,
    )
    return context, State(0, model, torch.optim.SGD(groups(model), lr=1.0), [], {})


def groups(model: Transformer) -> list[dict[str, Any]]:
    """Use plain gradient descent with rate 1, so that a step subtracts exactly the gradient from the weights."""
    return [{"params": list(model.parameters()), "peak": 1.0, "scale": 1.0}]


def gradient(spec: RunSpec, document_BT: Tensor | None) -> tuple[float, Tensor]:
    """Return the reported loss and the whole gradient of one step."""
    context, state = prepared(spec, document_BT)
    before = torch.cat([p.detach().flatten().clone() for p in state.model.parameters()])
    step_metrics = loop.train_step(context, state)
    return step_metrics["loss"], before - torch.cat([p.detach().flatten() for p in state.model.parameters()])


def documents(cuts: list[int]) -> Tensor:
    """Make blocks of this many documents each, with all document borders at the front."""
    return torch.stack([torch.arange(LENGTH).clamp(max=cut - 1) for cut in cuts])


# numbers of documents in 8 blocks: all alike; ragged; one block, and with eight portions one micro-batch, with nothing
# to predict
CUTS = {"whole": None, "ragged": [1, 9, 3, 16, 2, 1, 12, 5], "empty": [16, 16, 1, 1, 1, 1, 1, 2]}


@pytest.mark.parametrize("cuts", CUTS)
def test_eight_times_one_equals_two_times_four(run_spec: MakeRun, cuts: str) -> None:
    documents_per_block = CUTS[cuts]
    document_BT = None if documents_per_block is None else documents(documents_per_block)
    results = {}
    for accumulation in (1, 2, 4, 8):
        spec = run_spec(
            model={"separate_documents": documents_per_block is not None, "block": {"ffn": QUIET}},
            training={"blocks_per_step": NUM_BLOCKS, "grad_accumulation": accumulation, "max_grad_norm": 1e9},
        )
        results[accumulation] = gradient(spec, document_BT)
    for accumulation in (2, 4, 8):
        assert results[accumulation][0] == pytest.approx(results[1][0], abs=1e-12)
        torch.testing.assert_close(results[accumulation][1], results[1][1], rtol=0, atol=1e-12)


def test_the_loss_of_a_step_is_the_mean_over_its_predictions(run_spec: MakeRun) -> None:
    document_BT = documents([1, 9, 3, 16, 2, 1, 12, 5])
    spec = run_spec(
        model={"separate_documents": True, "block": {"ffn": QUIET}},
        training={"blocks_per_step": NUM_BLOCKS, "grad_accumulation": 4},
    )
    context, state = prepared(spec, document_BT)
    with torch.no_grad():
        logit_BTV = state.model(context.tokens(0), document_BT)
    nats_BS = F.cross_entropy(logit_BTV[:, :-1].mT, context.tokens(0)[:, 1:], reduction="none")
    within_BS = document_BT[:, 1:] == document_BT[:, :-1]
    means = [(nats_BS[i : i + 2][within_BS[i : i + 2]].mean()) for i in range(0, 8, 2)]
    assert loop.train_step(context, state)["loss"] == pytest.approx(float(nats_BS[within_BS].mean()), abs=1e-12)
    # the mean of the micro-batches' means is a different number
    assert abs(float(torch.stack(means).mean() - nats_BS[within_BS].mean())) > 1e-4


def test_the_selectors_losses_are_averaged_over_micro_batches(run_spec: MakeRun) -> None:
    # a z-loss is a mean over tokens, so its average over equal micro-batches is that of the whole batch
    change = {"ffn": {"balance": "none", "z_weight": 0.1, "router": {"noise_std": 0.0}}}
    results = []
    for accumulation in (1, 4):
        training = {"blocks_per_step": NUM_BLOCKS, "grad_accumulation": accumulation, "max_grad_norm": 1e9}
        context, state = prepared(run_spec(model={"block": change}, training=training), None)
        results.append(
            (loop.train_step(context, state)["auxiliary"], state.model.blocks[0].ffn.router.scorer.weight.detach())
        )
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0, atol=1e-12)
