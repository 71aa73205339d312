"""Test how logs are read: what is left out is noted, what is unknown is listed, and what contradicts is named."""

import json
import math
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any

import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event
from tests.training_logs.written import EVEN, ONE, events, torchtitan, verl

from speciate.training_logs.training_log import TrainingLog, read_training_log
from speciate.training_logs.verdict import headline, judge, limits

VIO = "rollout/moe/max_vio/layer_{}"


def written(folder: pathlib.Path, lines: list[Mapping[str, Any]], tail: str = "") -> pathlib.Path:
    file = folder / "log.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    return file


def read(folder: pathlib.Path, lines: list[Mapping[str, Any]], tail: str = "", **sizes: int) -> TrainingLog:
    return read_training_log([written(folder, lines, tail)], **sizes)


def noted(log: TrainingLog, kind: str) -> str:
    (text,) = [note.text for note in log.notes if note.kind == kind]
    return text


def test_values_that_are_not_finite_are_left_out_and_noted(tmp_path: pathlib.Path) -> None:
    lines = [{"step": step, VIO.format(0): math.nan if step in (2, 4) else 0.5} for step in range(6)]
    log = read(tmp_path, lines)
    assert log.table["step"].tolist() == [0, 1, 3, 5]
    assert noted(log, "not_finite") == (
        "rollout/moe/max_vio/layer_0: 2 values are not finite, and were left out; first at step 2."
    )


def test_a_resumed_run_keeps_the_last_value_of_a_step(tmp_path: pathlib.Path) -> None:
    steps = [(10, 0.1), (20, 0.2), (30, 0.3), (20, 2.0), (30, 3.0)]
    log = read(tmp_path, [{"step": step, VIO.format(0): value} for step, value in steps])
    assert log.table[["step", "value"]].to_numpy().tolist() == [[10, 0.1], [20, 2.0], [30, 3.0]]
    assert "steps go back from 30 to 20: the run was resumed" in noted(log, "resumed")


def test_unknown_names_that_look_like_routing_are_listed(tmp_path: pathlib.Path) -> None:
    line = {"step": 1, "loss": 2.0, VIO.format(0): 0.1, "router/entropy": 1.2, "MoE_aux_loss": 0.1, "lr": 0.1}
    log = read(tmp_path, [line])
    assert log.unknown == ("router/entropy", "MoE_aux_loss")


def test_names_that_contradict_each_other_are_named(tmp_path: pathlib.Path) -> None:
    lines = [{"step": step, VIO.format(0): 1.0, "moe_load/max_vio/layer_0": 1.0 + step / 10} for step in range(3)]
    # the summary of the layers is less than one of them
    log = read(tmp_path, [{**line, "rollout/moe/max_vio/max": 0.5} for line in lines])
    # one is of rollouts and the other of training batches: only the summary contradicts a layer
    assert noted(log, "contradiction") == (
        "the max over layers of max_vio (rollout) at step 0 is 0.5, and a layer has 1."
    )
    same = [{"step": line["step"], **{key.replace("rollout", "train"): line[key] for key in line}} for line in lines]
    assert noted(read(tmp_path, same), "contradiction") == (
        "names contradict each other on max_vio of layer 0 (train) at 2 steps; first at step 1:"
        " moe_load/max_vio/layer_0 1.1, train/moe/max_vio/layer_0 1."
    )


def test_impossible_values_are_named(tmp_path: pathlib.Path) -> None:
    lines = [{"step": step, VIO.format(0): 0.5, VIO.format(1): 7.0} for step in range(3)]
    log = read(tmp_path, lines, experts=8, chosen=2)
    assert noted(log, "impossible") == (
        "rollout/moe/max_vio/layer_1: 7 at step 0 gives max_vio 7, and that lies between 0 and 3 with 8 experts and 2"
        " chosen; 3 such values were left out."
    )
    assert set(log.table["layer"]) == {0}
    with pytest.raises(ValueError, match=r"holds no possible value: .* with 8 experts and 7 chosen"):
        read(tmp_path, [{"step": 1, VIO.format(1): 7.0}], experts=8, chosen=7)


def test_a_log_without_a_known_name_says_what_was_looked_for(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError) as caught:
        read(tmp_path, [{"step": 1, "loss": 2.0, "my_router/load": 1.0}])
    message = str(caught.value)
    assert "has no routing metric that is known. It has 2 names: my_router/load, loss. Looked for" in message
    for name in ("moe_load/max_vio/{mean,max}", "train/block {i}/load imbalance", "rollout/moe/max_vio/layer_{i}"):
        assert name in message


@pytest.mark.parametrize(
    ("tail", "kind"),
    [('{"step": 3, "rollo', "truncated"), ('not json\n{"step": 3, "rollout/moe/max_vio/layer_0": 1}\n', "no_json")],
)
def test_broken_lines_are_noted(tmp_path: pathlib.Path, tail: str, kind: str) -> None:
    log = read(tmp_path, [{"step": step, VIO.format(0): 0.5} for step in range(3)], tail)
    assert "4" in noted(log, kind)
    assert log.table["step"].max() == (2 if kind == "truncated" else 3)


def test_lines_without_a_step_are_noted_and_a_broken_step_is_an_error(tmp_path: pathlib.Path) -> None:
    log = read(tmp_path, [{"step": 1, VIO.format(0): 0.5}, {VIO.format(0): 0.7}])
    assert "1 lines have no step, and were left out; first: 2. Looked for: step, global_step, _step" in noted(
        log, "no_step"
    )
    with pytest.raises(ValueError, match=r"log.jsonl: line 1: step: a step is a whole number, not 1.5"):
        read(tmp_path, [{"step": 1.5, VIO.format(0): 0.5}])


def test_verls_file_logger_and_nested_lines_are_read(tmp_path: pathlib.Path) -> None:
    lines = [{"step": 7, "data": {VIO.format(0): 0.5}}, {"step": 8, "rollout": {"moe": {"max_vio": {"layer_0": 0.75}}}}]
    assert read(tmp_path, lines).table["value"].tolist() == [0.5, 0.75]


def test_csv_of_wandb_and_csv_with_a_row_for_each_value(tmp_path: pathlib.Path) -> None:
    (tmp_path / "wandb.csv").write_text(
        '"Step","happy-run - moe_load/max_vio/max","happy-run - moe_load/max_vio/max__MIN"\n1,0.5,0.4\n2,0.6,0.4\n'
    )
    (tmp_path / "long.csv").write_text("step,tag,value\n1,moe_load/max_vio/max,0.5\n2,moe_load/max_vio/max,0.6\n")
    for name in ("wandb.csv", "long.csv"):
        table = read_training_log([tmp_path / name]).table
        assert table["value"].tolist() == [0.5, 0.6] and set(table["key"]) == {"moe_load/max_vio/max"}
    (tmp_path / "board.csv").write_text("Wall time,Step,Value\n1.0,1,0.5\n")
    with pytest.raises(ValueError, match="a CSV from TensorBoard does not name what it holds"):
        read_training_log([tmp_path / "board.csv"])


def test_event_files_with_tensors_are_read(tmp_path: pathlib.Path) -> None:
    """TensorFlow 2 keeps scalars as tensors: with a list of values, or with their bytes."""
    file = tmp_path / "events.out.tfevents.1"
    records = []
    for step, content in ((1, None), (2, struct.pack("<f", 0.75)), (3, struct.pack("<d", 0.875))):
        event = Event(step=step)
        value = event.summary.value.add(tag="moe_load/max_vio/max")
        value.tensor.dtype = 2 if step == 3 else 1
        if content is None:
            value.tensor.float_val.append(0.5)
        else:
            value.tensor.tensor_content = content
        records.append(event.SerializeToString())
    file.write_bytes(b"".join(map(framed, records)))
    assert read_training_log([file]).table["value"].tolist() == [0.5, 0.75, 0.875]


def framed(data: bytes) -> bytes:
    """Return a record as event files hold it."""

    def mask(crc: int) -> int:
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", mask(crc32c(length))) + data + struct.pack("<I", mask(crc32c(data)))


def test_a_cut_event_file_is_read_up_to_its_last_record_and_a_damaged_one_refused(tmp_path: pathlib.Path) -> None:
    file = events(tmp_path, [(step, torchtitan([EVEN, ONE])) for step in range(5)])
    whole = len(read_training_log([file]).table)
    data = file.read_bytes()
    for cut in (1, 9, 20):
        file.write_bytes(data[:-cut])
        log = read_training_log([file])
        assert noted(log, "truncated") == f"{file}: its last record is cut off; what is before it was read."
        assert len(log.table) == whole - 1
    file.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    with pytest.raises(ValueError, match=r"is damaged"):
        read_training_log([file])


def test_a_folder_of_event_files_is_read_in_order(tmp_path: pathlib.Path) -> None:
    for part in range(2):
        events(tmp_path / f"{part}", [(2 * part + step, torchtitan([EVEN, ONE])) for step in range(2)])
    assert sorted(set(read_training_log([tmp_path]).table["step"])) == [0, 1, 2, 3]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds no log: no file \*tfevents\*"):
        read_training_log([tmp_path / "empty"])


def test_the_sizes_are_checked(tmp_path: pathlib.Path) -> None:
    for sizes, message in (
        ({"experts": 1}, "--experts: a layer has at least two experts, not 1"),
        ({"experts": 8, "chosen": 0}, "--chosen: a token chooses at least one expert, not 0"),
        ({"experts": 8, "chosen": 8}, "--chosen: a token that chooses 8 of 8 experts has no choice"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            read(tmp_path, [{"step": 1, VIO.format(0): 0.5}], **sizes)


# what a log alone can say


def test_the_limit_needs_both_sizes(tmp_path: pathlib.Path) -> None:
    """OLMoE: 64 experts, 8 chosen: the limit of the share is 1/16, so MaxVio may be 3."""
    assert limits(64, 8)["max_vio"] == pytest.approx(3)
    lines = [
        {"step": step, **{VIO.format(layer): 0.2 + step * layer / 100 for layer in range(2)}}
        for step in range(0, 500, 10)
    ]
    log = read(tmp_path, lines, experts=64, chosen=8)
    states = {verdict.layer: verdict for verdict in judge(log)}
    assert states[0].state == "within"
    # .2 + step / 100 exceeds 3 first at step 290
    assert (states[1].state, states[1].since, states[1].step) == ("collapsed", 290, 490)
    assert headline(log, judge(log)) == (
        "Layer 1: MaxVio of 5.1 at step 490 is above the limit of 3 (of 64 experts, 8 chosen), since step 290"
    )
    for sizes, missing in (({}, "--experts and --chosen"), ({"experts": 64}, "--chosen")):
        verdicts = judge(read(tmp_path, lines, **sizes))
        assert {verdict.state for verdict in verdicts} == {"unknown"}
        assert all(verdict.sentence.endswith(f"give {missing}") for verdict in verdicts)


def test_since_is_the_last_unbroken_time(tmp_path: pathlib.Path) -> None:
    values = [0.1, 5.0, 5.0, 0.1, 5.0, 5.0]
    lines = [{"step": 10 * place, VIO.format(0): value} for place, value in enumerate(values)]
    (verdict,) = judge(read(tmp_path, lines, experts=64, chosen=8))
    assert verdict.since == 40
    (healed,) = judge(read(tmp_path, lines[:4], experts=64, chosen=8))
    assert healed.state == "within"


def test_fewer_than_half_of_the_experts_is_beyond_the_limits_of_any_size(tmp_path: pathlib.Path) -> None:
    line = {"step": 3, "moe/layer_0/expert_diversity": 0.4, "moe/layer_1/expert_diversity": 0.9}
    states = {verdict.layer: verdict.state for verdict in judge(read(tmp_path, [line]))}
    assert states == {0: "collapsed", 1: "unknown"}
    # many effective experts do not exclude that one takes too much
    sized = {verdict.layer: verdict.state for verdict in judge(read(tmp_path, [line], experts=64, chosen=8))}
    assert sized == {0: "collapsed", 1: "unknown"}


def test_bounds_prove_one_side_only(tmp_path: pathlib.Path) -> None:
    """An upper bound can show health and no collapse, a lower bound the reverse."""
    olmo = {"step": 1, "train/block 00/load imbalance": 1.5, "train/block 01/load imbalance": 6.0}
    states = {verdict.layer: verdict.state for verdict in judge(read(tmp_path, [olmo], experts=64, chosen=8))}
    assert states == {0: "within", 1: "unknown"}
    megatron = {"step": 1, "moe/max_overload_factor_layer_0": 1.5, "moe/max_overload_factor_layer_1": 6.0}
    states = {verdict.layer: verdict.state for verdict in judge(read(tmp_path, [megatron], experts=64, chosen=8))}
    assert states == {0: "unknown", 1: "collapsed"}


def test_summaries_prove_what_the_worst_layer_is(tmp_path: pathlib.Path) -> None:
    for over, value, state in (
        ("max", 1.0, "within"),
        ("max", 4.0, "collapsed"),
        ("mean", 1.0, "unknown"),
        ("mean", 4.0, "collapsed"),
    ):
        log = read(tmp_path, [{"step": 1, f"moe_load/max_vio/{over}": value}], experts=64, chosen=8)
        assert [verdict.state for verdict in judge(log)] == [state], (over, value)


def test_the_watchs_own_logs_need_no_sizes(tmp_path: pathlib.Path) -> None:
    line = {"step": 1, "moe_load/unevenness/layer_0": 0.8, "moe_load/unevenness/layer_1": 1.2}
    states = {verdict.layer: verdict.state for verdict in judge(read(tmp_path, [line]))}
    assert states == {0: "within", 1: "collapsed"}


def test_a_balanced_loss_is_no_verdict(tmp_path: pathlib.Path) -> None:
    log = read(tmp_path, [{"step": 1, "load_balancing_loss": 1.0}], experts=64, chosen=8)
    assert log.table.empty and judge(log) == []
    assert "1 wherever the mean probabilities P are even" in log.unconverted["load_balancing_loss"]
    assert "no measure" in headline(log, [])


def test_verls_whole_log_is_judged(tmp_path: pathlib.Path) -> None:
    log = read(tmp_path, [{"step": 1, **verl([EVEN, ONE])}], experts=4, chosen=1)
    states = {verdict.layer: verdict.state for verdict in judge(log)}
    assert states == {-1: "collapsed", 0: "within", 1: "collapsed"}
    assert headline(log, judge(log)).startswith("Layer 1: MaxVio of 3 at step 1 is above the limit of 1.52")
