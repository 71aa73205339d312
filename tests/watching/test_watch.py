"""Test the watch in plain PyTorch loops: what it counts, what it leaves as it was, when it stops, how it resumes."""

import json
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from tests.every_kind import VOCABULARY as VOCABULARY_OF_OURS
from tests.every_kind import model_settings
from tests.model.hf.families import build
from tests.watching.tiny import EXPERTS, LAYERS, ids, mixtral, send_all_to
from torch import Tensor, nn

from speciate.config.run import ModelSpec
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections
from speciate.watch import Alarm, CollapseWarning, JsonLines, RoutingCollapsed, Watch

ROOT = pathlib.Path(__file__).parents[2]
PROBE = {"input_ids": ids(16)}


@pytest.fixture(autouse=True)
def _one_seed() -> None:
    torch.manual_seed(0)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, parts: int = 1) -> None:
    """Make one update of four rows, in `parts` backward passes."""
    batch = ids(4, seed=seed)
    for part in batch.chunk(parts):
        model(input_ids=part, labels=part).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def expected_counts(model: nn.Module, batch: Tensor, chosen: int, mask: Tensor | None = None) -> list[np.ndarray]:
    """Return each layer's choices by row, from the logits that transformers itself returns."""
    with torch.no_grad():
        logits = model(input_ids=batch, attention_mask=mask, output_router_logits=True).router_logits
    found = []
    for layer_NS in logits:
        slot_NK = layer_NS.topk(chosen).indices
        count_GS = np.zeros((len(batch), EXPERTS))
        for token, slots in enumerate(slot_NK.tolist()):
            if mask is None or mask.flatten()[token]:
                count_GS[token // batch.shape[1], slots] += 1
        found.append(count_GS)
    return found


def counts_of(watch: Watch) -> list[np.ndarray]:
    """Return the totals of each layer."""
    return [np.array(watch.total[f"model.layers.{layer}.mlp.gate"]) for layer in range(LAYERS)]


def test_a_probe_is_counted_as_transformers_reports_it() -> None:
    model = mixtral(chosen=2)
    mask = torch.ones_like(PROBE["input_ids"])
    mask[3, 7:] = 0
    watch = Watch(model, {**PROBE, "attention_mask": mask}, every=2)
    assert watch.step(1) == {}
    values = watch.step(2)
    expected = expected_counts(model, PROBE["input_ids"], 2, mask)
    for found, count_GS in zip(counts_of(watch), expected, strict=True):
        np.testing.assert_array_equal(found, count_GS.sum(axis=0))
        assert found.sum() == 2 * (16 * 12 - 5)
    share = expected[1].sum(axis=0) / expected[1].sum()
    assert values["moe_load/max_vio/layer_1"] == pytest.approx(EXPERTS * share.max() - 1)
    assert values["moe_load/dead_share/layer_1"] == pytest.approx((share == 0).mean())


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("reentrant", [None, True, False])
def test_training_batches_are_counted_once(parts: int, reentrant: bool | None) -> None:
    """Parts of a batch add up, and what checkpointing computes again in the backward pass is not counted again."""
    model = mixtral().train()
    if reentrant is not None:
        model.activation_checkpointing_enable({"use_reentrant": reentrant})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, every=2)
    update(model, optimizer, seed=1, parts=parts)
    watch.step(1)
    expected = expected_counts(model.eval(), ids(4, seed=2), 1)
    model.train()
    update(model, optimizer, seed=2, parts=parts)
    watch.step(2)
    for found, count_GS in zip(counts_of(watch), expected, strict=True):
        np.testing.assert_array_equal(found, count_GS.sum(axis=0))


def test_what_runs_in_evaluation_mode_between_steps_is_not_counted() -> None:
    model = mixtral().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = Watch(model, every=1)
    update(model, optimizer, seed=1)
    model.eval()
    model(input_ids=ids(50, seed=9))
    model.train()
    watch.step(1)
    assert counts_of(watch)[0].sum() == 4 * 12


def test_packed_texts_of_a_row_are_documents_of_their_own() -> None:
    model = mixtral().eval()
    lengths = (5, 3, 4)
    position = torch.cat([torch.arange(length) for length in lengths])[None]
    watch = Watch(model, {"input_ids": ids(1), "position_ids": position}, every=1, armed_after=0)
    with pytest.warns(CollapseWarning, match="3 documents a check are too few"):
        watch.step(1)


@pytest.mark.parametrize("on_probe", [True, False])
def test_a_watched_run_has_the_bits_of_one_that_is_not(on_probe: bool) -> None:
    weights = []
    for watched in (True, False):
        model = mixtral(attention_dropout=0.3, router_jitter_noise=0.1).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        torch.manual_seed(7)
        watch = Watch(model, PROBE if on_probe else None, every=2) if watched else None
        for step in range(1, 6):
            update(model, optimizer, seed=step)
            if watch is not None:
                watch.step(step)
                assert all(module.training for module in model.modules())
        weights.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(*weights)


def test_a_closed_watch_leaves_no_hook() -> None:
    model = mixtral()
    before = sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
    with Watch(model, PROBE, every=1) as watch:
        watch.step(1)
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == before


def test_a_collapse_stops_a_plain_loop_and_names_layer_and_expert(tmp_path: pathlib.Path) -> None:
    model = mixtral().train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    steps: list[int] = []
    with Watch(model, PROBE, every=2, steps=40, on_alarm="stop", sink=JsonLines(tmp_path / "log.jsonl")) as watch:
        for step in range(1, 41):
            update(model, optimizer, seed=step)
            if step == 9:
                send_all_to(model, layer=1, expert=5)
            steps.append(step)
            watch.step(step)
    raised = watch.alarm.raised
    assert raised is not None
    assert (raised.layer, raised.expert, raised.since, raised.share) == (1, 5, 10, 1.0)
    assert steps[-1] == raised.step < 40
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(2, raised.step + 1, 2))
    assert lines[-1]["moe_load/max_vio/layer_1"] == EXPERTS - 1


def test_a_loop_without_a_block_gets_the_exception_a_function_the_alarm_and_a_warning_goes_on() -> None:
    taken: list[Alarm] = []
    for on_alarm in ("stop", "warn", taken.append):
        model = mixtral().eval()
        send_all_to(model, layer=0, expert=2)
        watch = Watch(model, PROBE, every=1, steps=10, armed_after=0, on_alarm=on_alarm)
        if on_alarm == "stop":
            with pytest.raises(RoutingCollapsed, match=r"routing has collapsed in layer 0 .* expert 2 takes 100%"):
                watch.step(1)
        elif on_alarm == "warn":
            with pytest.warns(CollapseWarning, match="routing has collapsed in layer 0"):
                watch.step(1)
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # once is enough
                watch.step(2)
        else:
            watch.step(1)
            watch.step(2)
            assert [alarm.expert for alarm in taken] == [2]


def test_a_healthy_loop_raises_nothing() -> None:
    model = mixtral(output_router_logits=True, router_aux_loss_coef=0.1).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    watch = Watch(model, PROBE, every=2, steps=30)
    for step in range(1, 31):
        update(model, optimizer, seed=step)
        watch.step(step)
    # 15 checks, of which those before the third step do not count
    assert watch.alarm.checks == watch.alarm.num_checks == 14
    assert watch.alarm.raised is None and watch.alarm.log_wealth < 0


def test_no_check_counts_before_the_alarm_is_armed() -> None:
    model = mixtral().eval()
    send_all_to(model, layer=0, expert=2)
    watch = Watch(model, PROBE, every=1, steps=30, on_alarm="stop")
    for step in (1, 2):
        watch.step(step)
    with pytest.raises(RoutingCollapsed, match=r"since step 1 .alarm at step 3"):
        watch.step(3)


def test_a_resumed_watch_is_the_one_that_never_stopped() -> None:
    model = mixtral().eval()
    whole, resumed = (Watch(model, PROBE, every=2, steps=20, on_alarm=lambda alarm: None) for _ in range(2))
    for step in range(1, 21):
        if step == 11:
            send_all_to(model, layer=1, expert=0)
        whole.step(step)
        resumed.step(step)
        kept = json.loads(json.dumps(resumed.state_dict()))
        resumed.close()
        resumed = Watch(model, PROBE, every=2, steps=20, on_alarm=lambda alarm: None)
        resumed.load_state_dict(kept)
    assert whole.alarm.raised is not None
    assert resumed.state_dict() == whole.state_dict()
    other = Watch(model, {"input_ids": ids(16, seed=3)}, every=2, steps=20)
    with pytest.raises(ValueError, match=r"the saved watch has probe .*, and this one .*: they must be the same"):
        other.load_state_dict(kept)
    with pytest.raises(ValueError, match="step 20 comes after step 20: resume a watch by its `load_state_dict`"):
        whole.step(20)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_compiled_model_is_watched_on_a_probe_and_refused_without(in_place: bool) -> None:
    model = mixtral(chosen=2).train()
    expected = expected_counts(model.eval(), PROBE["input_ids"], 2)
    model.train()
    compiled = model
    if in_place:
        model.compile(backend="eager")
    else:
        compiled = torch.compile(model, backend="eager")
    with pytest.raises(ValueError, match=r"is compiled by torch.compile, .* give the watch a probe"):
        Watch(compiled)
    watch = Watch(compiled, PROBE, every=1)
    compiled(input_ids=ids(4), labels=ids(4)).loss.backward()
    watch.step(1)
    compiled(input_ids=ids(4), labels=ids(4)).loss.backward()
    watch.step(2)
    for found, count_GS in zip(counts_of(watch), expected, strict=True):
        np.testing.assert_array_equal(found, 2 * count_GS.sum(axis=0))


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(ValueError, match="has no router of experts"):
        Watch(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="DataParallel cannot be watched"):
        Watch(nn.DataParallel(mixtral()))
    with pytest.raises(ValueError, match="on_alarm: is 'warn', 'stop' or a function, not 'panic'"):
        Watch(mixtral(), on_alarm="panic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every: is a number of steps, at least 1, not 0"):
        Watch(mixtral(), every=0)
    with pytest.raises(ValueError, match=r"false_alarms: is a probability between 0 and 1, not 5"):
        Watch(mixtral(), false_alarms=5)
    model = mixtral()
    with pytest.raises(ValueError, match=r"no forward pass of the watched model was seen .*, in training mode"):
        Watch(model, every=1).step(1)
    with pytest.raises(ValueError, match=r"domains: has 2, and the probe 16 documents"):
        Watch(model, PROBE, every=1, domains=["a", "b"]).step(1)


def test_the_watch_comes_without_transformers() -> None:
    lines = "import sys, speciate.watch; assert 'transformers' not in sys.modules; speciate.watch.WatchCallback"
    done = subprocess.run(
        [sys.executable, "-c", lines], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "top_k": 2, "router": "learned", "balance": "none"}


def test_a_model_of_this_package_is_counted_as_its_selectors_report() -> None:
    settings = model_settings(ffn=MOE, depth={"kind": "mod", "capacity": 0.5})
    model = Transformer(ModelSpec.model_validate(settings), VOCABULARY_OF_OURS).train()
    token_BT = torch.randint(VOCABULARY_OF_OURS, (6, 16))
    document_BT = torch.arange(12).repeat_interleave(8).view(6, 16)
    model.eval()
    with record_selections(model) as record:
        model(token_BT, document_BT)
    model.train()
    watch = Watch(model, [token_BT, document_BT], every=1)
    values = watch.step(1)
    for path, selection in record.items():
        share_S = selection.chosen_NS.double().mean(0).numpy()
        np.testing.assert_allclose(watch.total[path] / np.sum(watch.total[path]), share_S, rtol=1e-6)
    # the router of experts chooses evenly if it never learned, a Mixture-of-Depths by its capacity
    chosen = {shape.path: shape.num_chosen for shape in watch.alarm.shapes}
    assert set(chosen.values()) == {1.0, 2.0}
    assert not np.isnan(list(values.values())).any()


def test_a_selector_whose_number_of_choices_varies_is_the_same_after_resuming() -> None:
    """Experts that choose their tokens take a rounded number of a row's, so k depends on its length."""
    settings = model_settings(ffn={**MOE, "choice": {"kind": "expert", "non_causal": True}})
    model = Transformer(ModelSpec.model_validate(settings), VOCABULARY_OF_OURS)
    batches = [torch.randint(VOCABULARY_OF_OURS, (6, length)) for length in (16, 7)]
    first = Watch(model.train(), every=1, armed_after=0)
    model(batches[0])
    with pytest.warns(CollapseWarning, match="documents a check are too few"):
        first.step(1)
    kept = first.state_dict()
    first.close()
    resumed = Watch(model, every=1, armed_after=0)
    resumed.load_state_dict(kept)
    model(batches[1])
    resumed.step(2)
    assert resumed.alarm.checks == 2 and resumed.alarm.shapes == first.alarm.shapes


def test_an_exported_model_of_this_package_is_counted_by_rows() -> None:
    model = build(model_settings(ffn=MOE)).train()
    batch = {"input_ids": torch.randint(VOCABULARY_OF_OURS, (6, 16))}
    watch = Watch(model, every=1)
    model(**batch).logits.sum().backward()
    watch.step(1)
    (total,) = {sum(counts) for counts in watch.total.values()}
    assert total == 2 * 6 * 16
