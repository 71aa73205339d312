"""Test that Selections are recorded from outside a model."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from speciate.selection.selection import Selection, Selector, auxiliary_loss, record_selections, selectors


@dataclass
class Output:
    value: Tensor
    selection: Selection


class Router(Selector):
    """Act as the smallest selector, with two slots."""

    num_slots = 2

    def __init__(self, loss: float) -> None:
        super().__init__()
        self.project = nn.Linear(3, 2)
        self.weight = loss

    def forward(self, x: Tensor) -> Output:
        probs = self.project(x).softmax(-1)
        chosen = nn.functional.one_hot(probs.argmax(-1), 2).float()
        loss = self.weight * probs.mean(0)[0]
        return Output(x, Selection(probs, chosen, torch.full((1, 2), 0.5), torch.arange(len(x)), loss))


class Layer(nn.Module):
    def __init__(self, loss: float) -> None:
        super().__init__()
        self.router = Router(loss)

    def forward(self, x: Tensor) -> Tensor:
        return self.router(x).value + 1


class Model(nn.Module):
    def __init__(self, num_layers: int = 3) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Layer(float(index)) for index in range(num_layers)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def num_hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_each_selection_lies_under_its_modules_path_in_order() -> None:
    model, x = Model(), torch.randn(5, 3)
    with record_selections(model) as record:
        model(x)
    paths = ["blocks.0.router", "blocks.1.router", "blocks.2.router"]
    assert list(record) == paths == list(selectors(model))
    # the second layer saw x + 1, whatever was recorded
    assert torch.equal(record[paths[1]].probs_NS, model.blocks[1].router.project(x + 1).softmax(-1))


def test_recording_changes_nothing() -> None:
    model, x = Model(), torch.randn(5, 3)
    before = model(x)
    with record_selections(model):
        assert torch.equal(model(x), before)


def test_hooks_are_there_inside_and_gone_afterwards() -> None:
    model = Model()
    with record_selections(model) as record:
        assert num_hooks(model) == 3
        model(torch.randn(2, 3))
    assert num_hooks(model) == 0
    kept = record["blocks.0.router"]
    model(torch.randn(4, 3))
    assert record["blocks.0.router"] is kept


def test_hooks_are_gone_after_an_error() -> None:
    model = Model()
    with pytest.raises(ZeroDivisionError), record_selections(model):
        raise ZeroDivisionError
    assert num_hooks(model) == 0


def test_a_selector_that_runs_twice_is_an_error_and_leaves_no_hooks() -> None:
    model = Model()

    def twice() -> None:
        with record_selections(model):
            model(torch.randn(2, 3))
            model(torch.randn(2, 3))

    with pytest.raises(RuntimeError, match=r"blocks\.0\.router ran twice"):
        twice()
    assert num_hooks(model) == 0


def test_one_module_shared_by_two_layers_counts_as_running_twice() -> None:
    model = Model(2)
    model.blocks[1].router = model.blocks[0].router
    assert list(selectors(model)) == ["blocks.0.router"]
    with pytest.raises(RuntimeError, match="ran twice"), record_selections(model):
        model(torch.randn(2, 3))


def test_auxiliary_loss_is_the_mean_over_selectors_and_keeps_its_gradient() -> None:
    model, x = Model(), torch.randn(6, 3)
    with record_selections(model) as record:
        model(x)
    loss = auxiliary_loss(record)
    assert loss.item() == pytest.approx(sum(one.loss.item() for one in record.values()) / 3)
    loss.backward()
    assert model.blocks[2].router.project.weight.grad.abs().sum() > 0


def test_auxiliary_loss_of_a_dense_model_is_refused() -> None:
    model = Model(0)
    with record_selections(model) as record:
        model(torch.randn(2, 3))
    assert record == {}
    with pytest.raises(ValueError, match="dense"):
        auxiliary_loss(record)
