"""Test that metrics are kept as means by path, name and coordinate, and only while they are collected."""

import pytest
import torch
from torch import Tensor, nn

from speciate.selection.metrics import collect_metrics, is_collecting, record_metric


class Noting(nn.Module):
    """Record the metrics that it is given."""

    def forward(self, x_N: Tensor) -> Tensor:
        record_metric(self, "level", x_N)
        for place, value in enumerate(x_N.tolist()):
            record_metric(self, "by_place", value, at=float(place))
        return x_N


def test_means_are_over_all_elements_of_all_calls_by_path_name_and_coordinate() -> None:
    model, objective = nn.Sequential(Noting(), Noting()), Noting()
    with collect_metrics(model, objective) as meter:
        model(torch.tensor([1.0, 3.0]))
        model[1](torch.tensor([8.0]))
        objective(torch.tensor([5.0]))
    assert meter.means() == {
        ("0", "level", None): 2.0,
        ("0", "by_place", 0.0): 1.0,
        ("0", "by_place", 1.0): 3.0,
        ("1", "level", None): 4.0,
        ("1", "by_place", 0.0): 4.5,
        ("1", "by_place", 1.0): 3.0,
        ("objective", "level", None): 5.0,
        ("objective", "by_place", 0.0): 5.0,
    }
    assert meter.rows()[0] == ["0", "level", None, 2.0]


def test_nothing_is_kept_outside() -> None:
    model = Noting()
    with collect_metrics(model) as meter:
        assert is_collecting()
    assert not is_collecting()
    model(torch.ones(2))
    assert meter.means() == {}


def test_nothing_has_no_mean() -> None:
    model = Noting()
    with collect_metrics(model) as meter:
        model(torch.ones(0))
    assert meter.means() == {}


def test_a_module_of_another_model_cannot_record() -> None:
    with collect_metrics(Noting()), pytest.raises(KeyError):
        Noting()(torch.ones(1))
