"""Test the task of copying on models whose answers are known: one that copies, one that guesses, one that sees on."""

import pathlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.conftest import mixture as mixture
from tests.training.conftest import run_spec as run_spec
from torch import Tensor

from speciate.analysis.tasks.scores import check_scores
from speciate.config.run import RunSpec
from speciate.data.blocks import read_block_set
from speciate.evaluation.task import copying

MakeRun = Callable[..., RunSpec]


class Known(torch.nn.Module):
    """Predict the token `distance` places before the next one; without a distance, always the token `token`."""

    def __init__(self, distance: int = 0, token: int = 0, sure: float = 4.0) -> None:
        super().__init__()
        self.distance, self.token, self.sure, self.causal, self.context = distance, token, sure, True, 64

    def forward(self, token_BT: Tensor) -> Tensor:
        guess_BT = torch.full_like(token_BT, self.token)
        if self.distance:
            guess_BT[:, self.distance - 1 :] = token_BT[:, : token_BT.shape[1] - self.distance + 1]
        return self.sure * torch.nn.functional.one_hot(guess_BT, 64).float()


def subject(mixture: pathlib.Path, run: RunSpec, model: Any) -> Any:
    return SimpleNamespace(test=read_block_set(mixture, "test"), run=run, model=model, device=torch.device("cpu"))


def test_a_model_that_copies_is_right_and_gains_what_it_is_sure_of(mixture: pathlib.Path, run_spec: MakeRun) -> None:
    options = copying.Options(kind="copying", lengths=(12,), questions=40)
    rows = check_scores(copying.evaluate(options, subject(mixture, run_spec(), Known(distance=6))), "copying")
    by_metric = rows.groupby("metric")["value"].mean()
    assert by_metric["accuracy"] == 1
    # in the second copy the right token has the logit 4 among 63 of 0; in the first a token is right only by chance
    told = float(np.log(np.exp(4) + 63))
    right = rows[rows["metric"] == "nats_gained"]["value"]
    assert right.max() == pytest.approx(4, abs=0.02)
    assert 3.5 < by_metric["nats_gained"] <= told
    assert set(rows["length"]) == {12} and rows["depth"].isna().all()
    assert len(rows) == 80 and rows["item"].nunique() == 40


def test_the_best_guess_scores_what_is_called_chance(mixture: pathlib.Path, run_spec: MakeRun) -> None:
    token, count = np.unique(read_block_set(mixture, "test").tokens, return_counts=True)
    guess = Known(token=int(token[count.argmax()]))
    options = copying.Options(kind="copying", lengths=(64,), questions=200)
    rows = copying.evaluate(options, subject(mixture, run_spec(), guess))
    accuracy = rows[rows["metric"] == "accuracy"]
    assert accuracy["chance"].iloc[0] == count.max() / count.sum()
    assert accuracy["value"].mean() == pytest.approx(count.max() / count.sum(), abs=0.01)
    assert rows[rows["metric"] == "nats_gained"]["value"].mean() == pytest.approx(0, abs=0.05)


def test_all_runs_get_the_same_questions_and_a_length_does_not_change_the_others(
    mixture: pathlib.Path, run_spec: MakeRun
) -> None:
    def asked(*lengths: int) -> list[Tensor]:
        seen: list[Tensor] = []
        model = Known()
        model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
        options = copying.Options(kind="copying", lengths=lengths, questions=4)
        copying.evaluate(options, subject(mixture, run_spec(), model))
        return seen

    (alone,) = asked(16)
    assert torch.equal(alone, asked(8, 16)[1])
    assert torch.equal(alone[:, :8], alone[:, 8:])
    assert set(alone.flatten().tolist()) <= set(read_block_set(mixture, "test").tokens.flatten().tolist())


def test_what_the_task_cannot_ask_is_said_by_its_field(mixture: pathlib.Path, run_spec: MakeRun) -> None:
    options = copying.Options(kind="copying", lengths=(16, 128))
    with pytest.raises(ValueError, match="lengths: 128 tokens are more than the model's context, 64"):
        copying.evaluate(options, subject(mixture, run_spec(), Known()))
    ahead = run_spec(model={"block": {"ffn": {"choice": {"kind": "expert", "non_causal": True}, "balance": "none"}}})
    for run, causal in ((ahead, True), (run_spec(), False)):
        model = Known()
        model.causal = causal
        with pytest.raises(ValueError, match="copying: asks for the next token, and this model also sees later ones"):
            copying.evaluate(copying.Options(kind="copying", lengths=(8,)), subject(mixture, run, model))
    with pytest.raises(ValueError, match="multiple of 2"):
        copying.Options(kind="copying", lengths=(9,))
