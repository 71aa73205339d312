"""Test that transformers' Trainer takes the same step whether a batch comes whole or in accumulated parts.

The Trainer itself needs the package accelerate, one of the developers' tools; the same sums are tested without it.
"""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.every_kind import model_settings
from tests.model.hf.families import build, ids
from torch import Tensor
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedModel

EVEN = {"kind": "auxiliary", "weight": 0.5, "scope": "sequence"}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "top_k": 2, "router": "learned", "balance": EVEN}
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ROWS = 4


def mixtral() -> PreTrainedModel:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(vocab_size=50, num_key_value_heads=2, num_local_experts=4, **SIZES))


def batch() -> list[dict[str, Tensor]]:
    """Make rows with 8, 6, 4 and 2 tokens to predict."""
    rows = []
    for row, token_T in enumerate(ids(ROWS)):
        label_T = token_T.clone()
        label_T[: 1 + 2 * row] = -100
        rows.append({"input_ids": token_T, "labels": label_T})
    return rows


def stacked(rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def accumulated(model: PreTrainedModel, size: int, **settings: Any) -> dict[str, Tensor]:
    """Return the gradients of the batch in parts of `size` rows, as the Trainer sums them."""
    model.train()
    rows = batch()
    num_items = stacked(rows)["labels"][:, 1:].ne(-100).sum()
    for start in range(0, ROWS, size):
        model(**stacked(rows[start : start + size]), num_items_in_batch=num_items, **settings).loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)  # losses are float32


def test_parts_have_the_gradient_of_the_whole() -> None:
    settings = model_settings(ffn=MOE)
    plain = build(settings).train()
    plain(**stacked(batch())).loss.backward()
    whole = {name: weight.grad for name, weight in plain.named_parameters() if weight.grad is not None}
    for size in (4, 2, 1):
        assert_close(accumulated(build(settings), size), whole)
    # so do transformers' own
    assert_close(accumulated(mixtral(), 1), accumulated(mixtral(), 4))


def test_parts_have_the_auxiliary_loss_of_the_whole() -> None:
    """Each row is as likely to be predicted here, since the loss of a batch weighs its parts by their predictions."""
    settings = model_settings(ffn=MOE | {"z_weight": 0.0})
    rows = [{**row, "labels": row["input_ids"]} for row in batch()]

    def gradients(size: int) -> dict[str, Tensor]:
        model = build(settings).train()
        num_items = stacked(rows)["labels"][:, 1:].ne(-100).sum()
        for start in range(0, ROWS, size):
            part = stacked(rows[start : start + size])
            model(**part, num_items_in_batch=num_items, output_router_logits=True).loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    assert_close(gradients(1), gradients(4))
    without = accumulated(build(settings), 4)
    name = "model.blocks.0.ffn.router.scorer.weight"
    assert (gradients(4)[name] - without[name]).abs().max() > 1e-4


@pytest.fixture
def trained(tmp_path: pathlib.Path) -> Callable[..., Any]:
    pytest.importorskip("accelerate")
    from transformers import Trainer, TrainerCallback, TrainingArguments

    class Gradients(TrainerCallback):  # type: ignore[misc]
        """Keeps the gradients of the only step."""

        def on_pre_optimizer_step(self, *states: Any, model: PreTrainedModel, **others: Any) -> None:
            parameters = model.named_parameters()
            self.kept = {name: weight.grad.clone() for name, weight in parameters if weight.grad is not None}

    def train(model: PreTrainedModel, size: int, **changes: Any) -> Any:
        arguments = TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=ROWS // size,
            max_steps=1,
            optim="sgd",
            max_grad_norm=0.0,
            learning_rate=0.1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            **changes,
        )
        data = {"data_collator": stacked, "train_dataset": batch(), "eval_dataset": batch()}
        gradients = Gradients()
        trainer = Trainer(model, arguments, callbacks=[gradients], **data)
        trainer.train()
        return trainer, gradients.kept

    return train


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_that_accumulates_takes_the_step_of_the_whole_batch(trained: Any) -> None:
    models = {}
    for size in (4, 1):
        models[size] = build(model_settings(ffn=MOE))
        _, gradients = trained(models[size], size)
        assert_close(gradients, accumulated(build(model_settings(ffn=MOE)), 4))
    for weight, other in zip(models[4].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-5, atol=1e-7)


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_evaluates_and_recomputes(trained: Any) -> None:
    (trainer, whole), (_, recomputed) = (
        trained(build(model_settings(ffn=MOE)), 2, gradient_checkpointing=enabled) for enabled in (False, True)
    )
    assert_close(recomputed, whole)
    with torch.no_grad():
        expected = trainer.model.eval()(**stacked(batch())).loss
    assert trainer.evaluate()["eval_loss"] == pytest.approx(float(expected), rel=1e-5)
