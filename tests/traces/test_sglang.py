"""Test the reader of SGLang's expert distribution recorder, by records as its gatherers and accumulators make them.

The fixtures follow python/sglang/srt/eplb/expert_distribution.py: choices of eight columns filled with -1, physical
experts, and forward modes by number.
"""

import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tests.traces.expected import Choices, assert_holds, draw, kinds

from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, read_trace

torch = pytest.importorskip("torch")
EXPERTS, LAYERS, K = 6, 3, 2
EXTEND, DECODE, MIXED, IDLE, TARGET_VERIFY = 1, 2, 3, 4, 5
# layer 0 has no router; two experts are held twice
MAP = np.array([[0, 1, 2, 3, 4, 5, 0, 3], [5, 4, 3, 2, 1, 0, 5, 1], [1, 0, 2, 4, 3, 5, 2, 2]])
FIRST, SECOND = draw(1, 9, LAYERS, EXPERTS, K), draw(2, 7, LAYERS, EXPERTS, K)


def physical(choices: Choices) -> npt.NDArray[np.int32]:
    """Return choices [tokens, layers, k] as `topk_ids_of_layer` has them: [layers, tokens, 8], layer 0 without any."""
    ids = np.full((LAYERS, len(choices), 8), -1, dtype=np.int32)
    for layer in range(1, LAYERS):
        of_expert = [np.flatnonzero(MAP[layer] == expert) for expert in range(EXPERTS)]
        for token in range(len(choices)):
            for rank in range(K):
                held = of_expert[choices[token, layer, rank]]
                ids[layer, token, rank] = held[token % len(held)]  # any of the places that hold the expert
    return ids


def record(number: int, mode: int, choices: Choices, positions: list[int], **more: Any) -> dict[str, Any]:
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": [1000 + position for position in positions],
        "positions": positions,
        "extend_seq_lens": None,
        "forward_mode": mode,
        "topk_ids_of_layer": torch.from_numpy(physical(choices)),
        "misc_objects": [],
    } | more


def served() -> list[dict[str, Any]]:
    """Return two requests: prompts of 5 and 4 tokens in one pass, the first in chunks; then steps of both."""
    return [
        record(0, EXTEND, np.r_[FIRST[:3], SECOND[:4]], [0, 1, 2, 0, 1, 2, 3], extend_seq_lens=[3, 4]),
        record(1, EXTEND, FIRST[3:5], [3, 4], extend_seq_lens=[2]),
        record(2, DECODE, np.r_[FIRST[5:6], SECOND[4:5]], [5, 4]),
        record(3, IDLE, FIRST[:0], []),
        record(4, DECODE, np.r_[FIRST[6:7], SECOND[5:6]], [6, 5]),
        record(5, TARGET_VERIFY, FIRST[:4], [7, 8, 9, 10]),
        record(6, DECODE, SECOND[6:7], [6]),
    ]


def dump(path: pathlib.Path, records: list[dict[str, Any]], **more: Any) -> pathlib.Path:
    torch.save({"records": records, "last_physical_to_logical_map": torch.from_numpy(MAP)} | more, path)
    return path


NAMES = [f"expert_distribution_recorder_1.5_0 pass 0 sequence {number}" for number in range(2)]
EXPECTED = {
    (NAMES[0], "prompt"): FIRST[:5, 1:],
    (NAMES[0], "generation"): FIRST[5:7, 1:],
    (NAMES[1], "prompt"): SECOND[:4, 1:],
    (NAMES[1], "generation"): SECOND[4:7, 1:],
}


def test_tokens_are_joined_to_their_requests_and_experts_are_the_model_s(tmp_path: pathlib.Path) -> None:
    path = dump(tmp_path / "expert_distribution_recorder_1.5_0.pt", served())
    assert find_format([tmp_path]) == ("sglang", [path])
    found = read_trace(path)
    assert_holds(found, EXPECTED, EXPERTS)
    assert [selector.path for selector in found.selectors] == ["layer 1", "layer 2"]
    assert kinds(found) == {"physical_ids", "rejected_drafts"}
    assert found.sample is not None
    np.testing.assert_array_equal(found.sample.token_P, 1000 + found.sample.position_P)
    (said,) = [note.text for note in found.notes if note.kind == "rejected_drafts"]
    assert ": 4 tokens of speculative decoding were left out" in said


def test_ranks_that_share_their_tokens_count_once(tmp_path: pathlib.Path) -> None:
    for rank in range(2):
        records = [line | {"rank": rank} for line in served()]
        dump(tmp_path / f"expert_distribution_recorder_1.5_{rank}.pt", records)
    found = read_trace(tmp_path)
    assert_holds(found, EXPECTED, EXPERTS)
    assert "duplicated_ranks" in kinds(found)


def test_a_cached_prefix_and_a_step_without_its_prompt_are_noted(tmp_path: pathlib.Path) -> None:
    records = [
        record(0, EXTEND, FIRST[3:], list(range(3, 9)), extend_seq_lens=[6]),
        record(1, MIXED, SECOND, [0, 1, 2, 3, 4, 5, 77], extend_seq_lens=[6, 1]),
    ]
    found = read_trace(dump(tmp_path / "r.pt", records))
    assert kinds(found) == {"physical_ids", "cached_prefixes", "unknown_prompts"}
    names = [f"r pass {number} sequence {place}" for number, place in ((0, 0), (1, 0), (1, 1))]
    expected = {(names[0], "prompt"): FIRST[3:, 1:], (names[1], "prompt"): SECOND[:6, 1:]}
    assert_holds(found, expected | {(names[2], "generation"): SECOND[6:, 1:]}, EXPERTS)


def test_counts_by_pass_are_brought_to_logical_experts(tmp_path: pathlib.Path) -> None:
    counts = np.random.default_rng(0).integers(0, 50, (3, *MAP.shape)).astype(np.int32)
    counts[:, 0] = 0
    records = [
        {"forward_pass_id": n, "rank": 0, "gatherer_key": "primary", "global_physical_count": torch.from_numpy(count)}
        for n, count in enumerate(counts)
    ]
    found = read_trace(dump(tmp_path / "r.pt", records), options=ReadOptions(num_chosen=1))
    for layer in (1, 2):
        expected = [[count[layer, MAP[layer] == expert].sum() for expert in range(EXPERTS)] for count in counts]
        np.testing.assert_array_equal(found.selectors[layer - 1].tally.chosen_GS, expected)
    assert kinds(found) == {"counts_only", "physical_ids"}


@pytest.mark.parametrize("steps", [True, False])
def test_sums_are_divided_by_the_ranks_that_share_tokens(tmp_path: pathlib.Path, steps: bool) -> None:
    counts = np.random.default_rng(0).integers(0, 50, (4, LAYERS, EXPERTS))
    counts[3] = 0  # the buffer's rest
    summed = torch.from_numpy(4 * (counts if steps else counts.sum(axis=0)))
    torch.save({"rank": 0, "logical_count": summed, "average_utilization_rate_over_window": None}, tmp_path / "r.pt")
    options = ReadOptions(num_chosen=1, data_parallel=4)
    found = read_trace(tmp_path / "r.pt", options=options)
    for layer, selector in enumerate(found.selectors):
        np.testing.assert_array_equal(selector.tally.chosen_GS.sum(axis=0), counts[:, layer].sum(axis=0))
    assert len(found.documents) == (3 if steps else 1)
    assert kinds(read_trace(tmp_path / "r.pt")) == {"counts_only", "num_chosen_guessed", "counts_multiplied"}


@pytest.mark.parametrize(
    ("records", "more", "message"),
    [
        ([], {}, "has no records; was the recorder dumped before"),
        ([record(0, EXTEND, FIRST, list(range(8)))], {}, "record 0: 8 input_ids and 8 positions for 9 tokens"),
        (
            [record(0, EXTEND, FIRST, list(range(9)), extend_seq_lens=[3])],
            {},
            "record 0: extend_seq_lens add up to 3, not 9 tokens",
        ),
        (served(), {"last_physical_to_logical_map": None}, "has no last_physical_to_logical_map"),
        (
            served(),
            {"last_physical_to_logical_map": torch.from_numpy(MAP[:, :5])},
            "record 0: expert [5-7] is out of range: the server has 5 physical experts. Shared experts",
        ),
        (
            served(),
            {"last_physical_to_logical_map": torch.from_numpy(MAP[:2])},
            "record 0: experts of 3 layers, but the map has 2",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(
    tmp_path: pathlib.Path, records: list[dict[str, Any]], more: dict[str, Any], message: str
) -> None:
    path = dump(tmp_path / "r.pt", records, **more)
    with pytest.raises(ValueError, match=r"r\.pt.*" + message):
        read_trace(path, format="sglang")


def test_objects_that_could_run_code_are_never_built(tmp_path: pathlib.Path) -> None:
    dump(tmp_path / "r.pt", served(), server_args=pathlib.PurePosixPath("a"))
    with pytest.raises(ValueError, match=r"r\.pt: holds other objects than tensors and plain values"):
        read_trace(tmp_path / "r.pt")
    path = dump(tmp_path / "cut.pt", served())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut\.pt: is damaged or cut off"):
        read_trace(path, format="sglang")
