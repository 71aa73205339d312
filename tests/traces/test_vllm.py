"""Test the reader of vLLM's routed experts, in the shapes in which its versions and servers give them."""

import base64
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from tests.traces.expected import Choices, assert_holds, draw, kinds, write_lines

from speciate.selection.text import Text
from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, read_trace

EXPERTS, LAYERS, K, PROMPT, GENERATED = 8, 3, 2, 12, 5
OPTIONS = ReadOptions(num_experts=EXPERTS)
CHOICES = draw(5, PROMPT + GENERATED - 1, LAYERS, EXPERTS, K)  # the last token that is generated is not fed back
BOTH = {("r1", "prompt"): CHOICES[:PROMPT], ("r1", "generation"): CHOICES[PROMPT:]}
PROMPT_IDS, IDS = list(range(100, 100 + PROMPT)), list(range(500, 500 + GENERATED))


def npy(choices: Choices) -> str:
    """Return an array as vLLM's servers send it: the base64 of a .npy file."""
    np.save(buffer := io.BytesIO(), choices.astype(np.int16))
    return base64.b64encode(buffer.getvalue()).decode()


def parts(choices: Choices) -> dict[str, Any]:
    """Return an array as servers on top of vLLM send it."""
    data = base64.b64encode(choices.astype(np.int16).tobytes()).decode()
    return {"data": data, "shape": list(choices.shape), "dtype": "int16", "encoding": "base64"}


def as_list(choices: Choices) -> Any:
    return choices.tolist()


REQUESTS = {
    "apart, and flat": lambda code: {
        "id": "r1",
        "prompt_token_ids": PROMPT_IDS,
        "token_ids": IDS,
        "prompt_routed_experts": code(CHOICES[:PROMPT]),
        "routed_experts": code(CHOICES[PROMPT:]),
    },
    "as a server's answer": lambda code: {
        "id": "r1",
        "object": "chat.completion",
        "choices": [{"index": 0, "token_ids": IDS, "routed_experts": code(CHOICES[PROMPT:])}],
        "prompt_token_ids": PROMPT_IDS,
        "prompt_routed_experts": code(CHOICES[:PROMPT]),
        "usage": {"prompt_tokens": PROMPT, "completion_tokens": GENERATED},
    },
    "in one array": lambda code: {
        "id": "r1",
        "prompt_token_ids": PROMPT_IDS,
        "token_ids": IDS,
        "routed_experts": code(CHOICES),
    },
    "in one array, with counts": lambda code: {
        "id": "r1",
        "num_prompt_tokens": PROMPT,
        "num_output_tokens": GENERATED,
        "routed_experts": code(CHOICES),
    },
}


@pytest.mark.parametrize("shape", REQUESTS)
@pytest.mark.parametrize("code", [npy, parts, as_list])
def test_prompt_and_generation_are_apart(tmp_path: pathlib.Path, shape: str, code: Any) -> None:
    path = write_lines(tmp_path / "requests.jsonl", [REQUESTS[shape](code)])
    assert find_format([path])[0] == "vllm"
    record = read_trace(path, options=OPTIONS)
    assert_holds(record, BOTH, EXPERTS)
    assert record.sample is not None
    assert record.sample.position_P.tolist() == list(range(PROMPT + GENERATED - 1))
    ids = [-1] * len(CHOICES) if "counts" in shape else [*PROMPT_IDS, *IDS[:-1]]
    assert record.sample.token_P.tolist() == ids
    assert not record.notes


def test_an_npz_holds_one_request(tmp_path: pathlib.Path) -> None:
    arrays = {"prompt_routed_experts": CHOICES[:PROMPT], "routed_experts": CHOICES[PROMPT:]}
    ids = {"prompt_token_ids": np.array(PROMPT_IDS), "token_ids": np.array(IDS)}
    np.savez(tmp_path / "r1.npz", **{name: value.astype(np.int16) for name, value in arrays.items()}, **ids)
    assert_holds(read_trace(tmp_path / "r1.npz", options=OPTIONS), BOTH, EXPERTS)


def test_completions_of_one_prompt_count_it_once(tmp_path: pathlib.Path) -> None:
    other = draw(6, 3, LAYERS, EXPERTS, K)
    request = REQUESTS["as a server's answer"](npy)
    request["choices"].append({"index": 1, "token_ids": [7, 8, 9, 10], "routed_experts": npy(other)})
    del request["usage"]
    record = read_trace(write_lines(tmp_path / "requests.jsonl", [request]), options=OPTIONS)
    assert_holds(record, BOTH | {("r1 completion 1", "generation"): other}, EXPERTS)


def test_layers_without_a_router_and_cached_tokens_are_left_out(tmp_path: pathlib.Path) -> None:
    choices = CHOICES.copy()
    choices[:, 0] = 0  # a dense layer
    choices[:4] = 0  # a cached prefix
    request = REQUESTS["in one array"](lambda _: npy(choices))
    record = read_trace(write_lines(tmp_path / "requests.jsonl", [request]), options=OPTIONS)
    assert [selector.path for selector in record.selectors] == ["layer 1", "layer 2"]
    expected = np.bincount(choices[4:, 1].ravel(), minlength=EXPERTS)
    np.testing.assert_array_equal(record.selectors[0].tally.chosen_GS.sum(axis=0) * K, expected)
    (note,) = record.notes
    assert note.kind == "not_recorded" and note.text.endswith("Nothing else is there of layer 0.")
    assert note.text.startswith(f"{len(choices) + 4 * 2} decisions name expert 0 k times")


def test_with_one_expert_a_token_zeros_are_noted(tmp_path: pathlib.Path) -> None:
    choices = CHOICES[:, :, :1].copy()
    choices[:, 1] = 0
    request = REQUESTS["in one array"](lambda _: npy(choices))
    record = read_trace(write_lines(tmp_path / "requests.jsonl", [request]), options=OPTIONS)
    (note,) = record.notes
    assert note.kind == "only_expert_0" and note.text.startswith("layer 1 has expert 0 for every token")


def test_labels_come_from_the_request_or_the_texts(tmp_path: pathlib.Path) -> None:
    request = REQUESTS["apart, and flat"](npy)
    path = write_lines(tmp_path / "requests.jsonl", [request | {"domain": "law"}, request | {"id": "r2"}])
    assert read_trace(path, options=OPTIONS).documents["label"].tolist() == ["law", "law", "", ""]
    texts = [Text("r1", "", "x"), Text("r2", "", "y")]
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, texts=texts))
    assert record.documents["label"].tolist() == ["x", "x", "y", "y"]


def test_requests_without_lengths_are_noted(tmp_path: pathlib.Path) -> None:
    path = write_lines(tmp_path / "requests.jsonl", [{"routed_experts": CHOICES.tolist()}])
    record = read_trace(path, options=OPTIONS)
    assert_holds(record, {("requests line 1", ""): CHOICES}, EXPERTS)
    assert kinds(record) == {"mixed_phases"}
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, phase="generation"))
    assert record.documents["phase"].tolist() == ["generation"] and not record.notes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"routed_experts": npy(CHOICES)},
            "generation: 16 tokens with experts, but 5 tokens; drafts that were rejected",
        ),
        ({"routed_experts": npy(CHOICES[:2])}, "generation: 2 tokens with experts, but 5 tokens; some were not"),
        ({"prompt_routed_experts": npy(CHOICES[:3])}, "prompt: 3 tokens with experts, but 12 tokens; some were not"),
        ({"routed_experts": npy(CHOICES)[:-8]}, "routed_experts: is damaged or cut off"),
        ({"routed_experts": "not base64!"}, "routed_experts is a text, but not base64"),
        ({"routed_experts": "AAAAAA=="}, "routed_experts is bytes without a shape, so layers and k are unknown"),
        ({"routed_experts": [[[0, 1]], [[0, 1], [2, 3]]]}, "routed_experts is ragged"),
        (
            {"routed_experts": [[0, 1], [2, 3]]},
            r"routed_experts is an array \[2, 2\] of int64, not \[tokens, layers, k\]",
        ),
        ({"routed_experts": parts(CHOICES) | {"shape": [2, 2, 2]}}, "data, shape and dtype do not fit"),
        ({"routed_experts": npy(CHOICES[PROMPT:] + 7)}, "expert 1[0-4] of layer . is out of range: the router has 8"),
        ({"routed_experts": npy(CHOICES[PROMPT:] - 300)}, "expert -300 of layer . is out of range.*overflowed"),
        ({"prompt_token_ids": "abc"}, "prompt_token_ids is not a list of whole numbers"),
    ],
)
def test_a_request_that_is_wrong_is_refused(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "requests.jsonl", [REQUESTS["apart, and flat"](npy) | change])
    with pytest.raises(ValueError, match=r"requests\.jsonl, line 1.*" + message):
        read_trace(path, options=OPTIONS)


def test_pickles_are_refused(tmp_path: pathlib.Path) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [CHOICES[:2], CHOICES[2:3]]
    np.savez(tmp_path / "r1.npz", routed_experts=ragged)
    with pytest.raises(ValueError, match=r"r1\.npz: holds a pickle, which is never loaded"):
        read_trace(tmp_path / "r1.npz")
    (tmp_path / "requests.jsonl").write_text(json.dumps({"routed_experts": npy(CHOICES)})[:-20])
    with pytest.raises(ValueError, match=r"requests\.jsonl, line 1: is not JSON"):
        read_trace(tmp_path / "requests.jsonl")
