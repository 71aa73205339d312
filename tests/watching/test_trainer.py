"""Test the callback in real runs of transformers' Trainer: one that is made to collapse, and one that is not."""

import json
import pathlib
from typing import Any

import pytest
from tests.watching.tiny import EXPERTS, ids, mixtral
from torch import Tensor
from transformers import Trainer, TrainingArguments

from speciate.watch import CollapseWarning, WatchCallback

pytest.importorskip("accelerate")

PROBE = {"input_ids": ids(16)}
LAYER, EXPERT, STEPS = 1, 5, 40


class Rewarded(Trainer):
    """Rewards one expert of one layer: the loss falls as its router's logit rises."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, **settings: Any) -> Any:
        outputs = model(**inputs, output_router_logits=True)
        reward = outputs.router_logits[LAYER].log_softmax(-1)[:, EXPERT].mean()
        loss = outputs.loss - reward
        return (loss, outputs) if return_outputs else loss


def trainer(kind: type[Trainer], folder: pathlib.Path, callback: WatchCallback, **settings: Any) -> Trainer:
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=4,
        learning_rate=0.01,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        logging_strategy="no",
        **{"save_strategy": "no", "gradient_accumulation_steps": 2, **settings},
    )
    texts = ids(400, seed=4)
    rows = [{"input_ids": text, "labels": text} for text in texts]
    return kind(mixtral(router_aux_loss_coef=0.02), arguments, train_dataset=rows, callbacks=[callback])


@pytest.mark.parametrize("on_probe", [True, False])
def test_a_run_that_is_made_to_collapse_is_stopped_and_named(tmp_path: pathlib.Path, on_probe: bool) -> None:
    callback = WatchCallback(PROBE if on_probe else None, every=2, on_alarm="stop")
    run = trainer(Rewarded, tmp_path, callback)
    with pytest.warns(CollapseWarning, match=rf"routing has collapsed in layer {LAYER} .* expert {EXPERT} takes"):
        run.train()
    assert callback.watch is not None
    raised = callback.watch.alarm.raised
    assert raised is not None and (raised.layer, raised.expert) == (LAYER, EXPERT)
    assert raised.since <= raised.step == run.state.global_step < STEPS
    logged = [line for line in run.state.log_history if f"moe_load/max_vio/layer_{LAYER}" in line]
    assert [line["step"] for line in logged] == list(range(2, raised.step + 1, 2))
    assert logged[-1][f"moe_load/max_vio/layer_{LAYER}"] > EXPERTS / 2 - 1


@pytest.mark.parametrize("on_probe", [True, False])
def test_a_run_that_does_not_collapse_ends(tmp_path: pathlib.Path, on_probe: bool) -> None:
    callback = WatchCallback(PROBE if on_probe else None, every=2, on_alarm="stop")
    run = trainer(Trainer, tmp_path, callback)
    run.train()
    assert run.state.global_step == STEPS
    assert callback.watch is not None
    assert callback.watch.alarm.raised is None
    assert callback.watch.alarm.checks == callback.watch.alarm.num_checks


def test_a_run_that_resumes_from_a_checkpoint_goes_on_with_its_watch(tmp_path: pathlib.Path) -> None:
    whole = WatchCallback(PROBE, every=2)
    trainer(Trainer, tmp_path, whole, save_strategy="steps", save_steps=15).train()
    kept = json.loads((tmp_path / "checkpoint-15" / "trainer_state.json").read_text())
    assert kept["stateful_callbacks"]["speciate.watch"]["attributes"]["calls"] == 15
    resumed = WatchCallback(PROBE, every=2)
    trainer(Trainer, tmp_path, resumed).train(resume_from_checkpoint=str(tmp_path / "checkpoint-15"))
    assert whole.watch is not None and resumed.watch is not None
    assert resumed.watch.alarm.checks == whole.watch.alarm.checks
    assert resumed.watch.total.keys() == whole.watch.total.keys()
    assert [sum(counts) for counts in resumed.watch.total.values()] == [
        sum(counts) for counts in whole.watch.total.values()
    ]


def test_a_compiled_run_needs_a_probe(tmp_path: pathlib.Path) -> None:
    run = trainer(Trainer, tmp_path, WatchCallback(), torch_compile=True, torch_compile_backend="eager")
    with pytest.raises(ValueError, match=r"torch_compile: .* give the callback a probe"):
        run.train()
