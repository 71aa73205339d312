"""Test the readers of Megatron-Core's router trace and of Megatron-LM's tokens per expert.

The fixtures follow megatron/core/transformer/moe/router_trace.py and megatron/training/activation_logging.py.
"""

import pathlib
from typing import Any

import numpy as np
import pytest
from tests.traces.expected import Choices, assert_holds, draw, kinds, write_lines

from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, read_trace

EXPERTS, K = 6, 2
OPTIONS = ReadOptions(num_experts=EXPERTS, phase="prompt")


def record(step: int, layer: int, rank: int, choices: Choices, **more: Any) -> dict[str, Any]:
    """Return a line as RouterTracer writes it, in the order of its keys."""
    line = {"step": step, "stage": "pre_dispatch", "block": "decoder", "layer": layer, "rank": rank}
    return line | {"num_tokens": len(choices), "topk": choices.shape[1]} | more | {"top_indices": choices.tolist()}


def trace(folder: pathlib.Path, rank: int, choices: Choices, steps: int = 2, cut: int = 0) -> pathlib.Path:
    """Write a rank's file: each step has an equal part of the tokens."""
    parts = np.array_split(choices, steps)
    lines = [record(step, layer, rank, part[:, layer]) for step, part in enumerate(parts) for layer in range(2)]
    return write_lines(folder / f"router_trace_rank{rank}.jsonl", lines, cut)


def windows(rank: int, choices: Choices, steps: int = 2) -> dict[tuple[str, str], Choices]:
    parts = np.array_split(choices, steps)
    return {(f"router_trace_rank{rank} step {step} part 0 window 0", "prompt"): part for step, part in enumerate(parts)}


def test_a_trace_of_ranks_with_tokens_of_their_own(tmp_path: pathlib.Path) -> None:
    choices = [draw(rank, 40, 2, EXPERTS, K) for rank in range(2)]
    for rank in range(2):
        trace(tmp_path, rank, choices[rank])
    (tmp_path / "router_trace_rank2.jsonl").write_text("")  # a rank without a router
    assert find_format([tmp_path])[0] == "megatron"
    found = read_trace(tmp_path, options=OPTIONS)
    assert_holds(found, windows(0, choices[0]) | windows(1, choices[1]), EXPERTS)
    assert [selector.path for selector in found.selectors] == [f"decoder.layers.{n}.mlp.router" for n in (0, 1)]
    assert kinds(found) == {"layers_of_ranks"}
    assert not found.has_documents


def test_ranks_that_share_their_tokens_count_once(tmp_path: pathlib.Path) -> None:
    choices = draw(0, 40, 2, EXPERTS, K)
    trace(tmp_path, 0, choices)
    trace(tmp_path, 1, choices)
    trace(tmp_path, 2, other := draw(2, 40, 2, EXPERTS, K))
    found = read_trace(tmp_path, options=OPTIONS)
    assert_holds(found, windows(0, choices) | windows(2, other), EXPERTS)
    (said,) = [note.text for note in found.notes if note.kind == "duplicated_ranks"]
    assert "router_trace_rank1.jsonl repeats " in said and "rank2" not in said


def test_indices_from_a_mask_have_no_order(tmp_path: pathlib.Path) -> None:
    choices = np.sort(draw(0, 40, 2, EXPERTS, K), axis=-1)  # as `nonzero` gives them
    trace(tmp_path, 0, choices)
    found = read_trace(tmp_path, options=OPTIONS)
    assert_holds(found, windows(0, choices), EXPERTS, first=False)
    assert kinds(found) == {"order_lost"}


def test_layers_of_other_blocks_are_apart(tmp_path: pathlib.Path) -> None:
    choices = draw(0, 40, 2, EXPERTS, K)
    lines = [record(0, 1, 0, choices[:, 0]), record(0, 1, 0, choices[:, 1]) | {"block": "mtp", "mtp_idx": 0}]
    found = read_trace(write_lines(tmp_path / "router_trace_rank0.jsonl", lines), options=OPTIONS)
    paths = {selector.path: selector for selector in found.selectors}
    names = ("decoder.layers.1.mlp.router", "mtp.layers.0.mtp_model_layer.layers.1.mlp.router")
    for number, name in enumerate(names):
        count = np.bincount(choices[:, number].ravel(), minlength=EXPERTS)
        np.testing.assert_array_equal(paths[name].tally.chosen_GS.sum(axis=0) * K, count)


def test_a_line_that_is_cut_off_is_left_out_and_noted(tmp_path: pathlib.Path) -> None:
    choices = draw(0, 40, 2, EXPERTS, K)
    path = trace(tmp_path, 0, choices, cut=9)
    found = read_trace(path, options=OPTIONS)
    assert found.selectors[0].tally.decisions_G.sum() == 40 and found.selectors[1].tally.decisions_G.sum() == 20
    assert kinds(found) == {"truncated", "uneven_layers"}
    (said,) = [note.text for note in found.notes if note.kind == "truncated"]
    assert said.startswith(f"{path}, line 4 is cut off")


def test_what_the_trace_does_not_tell_is_noted(tmp_path: pathlib.Path) -> None:
    found = read_trace(trace(tmp_path, 0, draw(0, 40, 2, EXPERTS, K)))
    assert kinds(found) == {"mixed_phases", "num_experts_guessed"}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"topk": 3}, {}, r"line 1: top_indices are 4 x 2, but num_tokens is 4 and topk is 3"),
        ({"num_tokens": 5}, {}, r"line 1: top_indices are 4 x 2, but num_tokens is 5 and topk is 2"),
        ({"top_indices": [[0, 1], [2]]}, {}, r"line 1: top_indices are not whole numbers, the same number of them"),
        ({"top_indices": [[0, 1], [2, 6], [1, 2], [3, 4]]}, {}, r"line 1: expert 6 of decoder\.layers\.0.* is out of"),
        (
            {"top_indices": [[0, 1], [2, 2], [1, 2], [3, 4]]},
            {},
            r"line 1: a token of .* chooses an expert twice \(2, 2\)",
        ),
        ({"layer": "a"}, {}, r"line 1: layer is 'a', not a whole number"),
        ({}, {"num_chosen": 3}, r"line 1: decoder.* has 2 experts a token, but --chosen says 3"),
    ],
)
def test_a_line_that_is_wrong_is_refused(
    tmp_path: pathlib.Path, change: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    line = record(0, 0, 0, draw(0, 4, 1, EXPERTS, K)[:, 0]) | change
    path = write_lines(tmp_path / "router_trace_rank0.jsonl", [line])
    with pytest.raises(ValueError, match=r"router_trace_rank0\.jsonl, " + message):
        read_trace(path, options=ReadOptions(num_experts=EXPERTS, **options))


def test_a_key_that_is_missing_and_a_k_that_changes_are_refused(tmp_path: pathlib.Path) -> None:
    line = record(0, 0, 0, draw(0, 4, 1, EXPERTS, K)[:, 0])
    path = write_lines(tmp_path / "t.jsonl", [line, {name: line[name] for name in line if name != "topk"}])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: has no topk"):
        read_trace(path)
    write_lines(path, [line, record(1, 0, 0, draw(0, 4, 1, EXPERTS, 3)[:, 0])])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: decoder.* has 3 experts a token, and 2 before it"):
        read_trace(path)


def tokens_per_expert(folder: pathlib.Path, rank: int, counts: np.ndarray) -> pathlib.Path:
    """Write a rank's file, of counts [iterations, layers, micro-batches, own experts]."""
    lines = [
        {"iter": 100 * iteration, "block": "decoder", "layer": layer, "tpe": counts[iteration, layer].tolist()}
        for iteration in range(counts.shape[0])
        for layer in range(counts.shape[1])
    ]
    return write_lines(folder / "tokens_per_expert" / f"rank{rank}.jsonl", lines)


COUNTS = np.random.default_rng(0).integers(1, 100, (4, 3, 2, 2, 2))  # rank, iteration, layer, micro-batch, own experts
COUNTS[0, 0, 0, 0] = 3, 4


def test_counts_of_the_experts_of_each_rank_are_put_together(tmp_path: pathlib.Path) -> None:
    for rank in range(4):
        tokens_per_expert(tmp_path, rank, COUNTS[rank])
    assert find_format([tmp_path])[0] == "megatron_counts"
    found = read_trace(tmp_path, options=ReadOptions(num_experts=4, num_chosen=1))
    # ranks 0 and 1 are one expert-parallel group, 2 and 3 another
    for number, name in enumerate(found.documents["document"]):
        _, iteration, _, batch, _, group = name.split()
        for layer in range(2):
            pair = COUNTS[2 * int(group) : 2 * int(group) + 2, int(iteration) // 100, layer, int(batch)]
            np.testing.assert_array_equal(found.selectors[layer].tally.chosen_GS[number], pair.ravel())
    assert len(found.documents) == 12
    assert kinds(found) == {"counts_only"}


def test_tensor_parallel_ranks_count_once(tmp_path: pathlib.Path) -> None:
    for rank in range(4):
        tokens_per_expert(tmp_path, rank, COUNTS[rank // 2])
    found = read_trace(tmp_path, options=ReadOptions(num_experts=4, num_chosen=1))
    total = found.selectors[0].tally.chosen_GS.sum(axis=0)
    np.testing.assert_array_equal(total, COUNTS[:2, :, 0].sum(axis=(1, 2)).ravel())
    assert kinds(found) == {"counts_only", "duplicated_ranks"}


def test_ranks_without_the_number_of_experts_are_refused(tmp_path: pathlib.Path) -> None:
    path = tokens_per_expert(tmp_path, 0, COUNTS[0])
    assert "num_experts_guessed" in kinds(read_trace(path))
    tokens_per_expert(tmp_path, 1, COUNTS[1])
    with pytest.raises(ValueError, match=r"each rank counts the tokens of its own 2 experts, .* give --experts"):
        read_trace(tmp_path)
    with pytest.raises(ValueError, match="2 ranks with 2 experts each do not make up --experts 8; files of ranks"):
        read_trace(tmp_path, options=ReadOptions(num_experts=8))
