"""Test the readers of json lines of indices and scores, and of llama.cpp's csv of layer and expert."""

import pathlib
from typing import Any

import numpy as np
import pytest
from tests.traces.expected import Choices, assert_holds, draw, kinds, write_lines

from speciate.traces.contract import ReadOptions
from speciate.traces.read import find_format, read_trace

EXPERTS, LAYERS, K, TOKENS = 8, 3, 2, 30
CHOICES = draw(5, TOKENS, LAYERS, EXPERTS, K)
SCORES = np.random.default_rng(0).random(CHOICES.shape)
OPTIONS = ReadOptions(num_experts=EXPERTS)


def token_by_token() -> list[dict[str, Any]]:
    return [
        {
            "document": f"text {token // 15}",
            "position": token % 15,
            "token": 100 + token,
            "layer": layer,
            "indices": CHOICES[token, layer].tolist(),
            "scores": SCORES[token, layer].tolist(),
            "label": "ab"[token // 15],
        }
        for token in range(TOKENS)
        for layer in range(LAYERS)
    ]


def in_batches() -> list[dict[str, Any]]:
    return [
        {
            "request_id": f"text {number}",
            "positions": list(range(15)),
            "token_ids": list(range(100 + 15 * number, 115 + 15 * number)),
            "layer_idx": layer,
            "topk_ids": CHOICES[15 * number : 15 * number + 15, layer].tolist(),
            "topk_weights": SCORES[15 * number : 15 * number + 15, layer].tolist(),
            "domain": "ab"[number],
        }
        for number in range(2)
        for layer in range(LAYERS)
    ]


@pytest.mark.parametrize("lines", [token_by_token(), in_batches()], ids=["tokens", "batches"])
def test_lines_of_tokens_and_of_batches_hold_the_same(tmp_path: pathlib.Path, lines: list[dict[str, Any]]) -> None:
    path = write_lines(tmp_path / "t.jsonl", lines)
    assert find_format([path])[0] == "jsonl"
    record = read_trace(path, options=OPTIONS)
    assert_holds(record, {("text 0", ""): CHOICES[:15], ("text 1", ""): CHOICES[15:]}, EXPERTS)
    assert record.documents["label"].tolist() == ["a", "b"]
    assert record.sample is not None and record.sample.weight_LPK is not None
    np.testing.assert_allclose(record.sample.weight_LPK, SCORES.transpose(1, 0, 2), rtol=1e-6)
    assert record.sample.token_P.tolist() == list(range(100, 130))
    assert not record.notes


def test_scores_of_all_experts_are_probabilities(tmp_path: pathlib.Path) -> None:
    probs = np.random.default_rng(1).dirichlet(np.ones(EXPERTS), TOKENS)
    choices = np.argsort(-probs, axis=1)[:, :K]
    path = write_lines(tmp_path / "t.jsonl", [{"layer": 4, "indices": choices.tolist(), "scores": probs.tolist()}])
    (selector,) = read_trace(path, options=OPTIONS).selectors
    assert selector.layer == 4
    np.testing.assert_allclose(selector.tally.probs_GS[0], probs.sum(axis=0))
    np.testing.assert_allclose(selector.tally.entropy_G[0], -(probs * np.log(probs)).sum())


def test_lines_that_name_nothing_but_indices(tmp_path: pathlib.Path) -> None:
    path = write_lines(tmp_path / "t.jsonl", [{"indices": row.tolist()} for row in CHOICES[:, 0]])
    record = read_trace(path, options=ReadOptions(document_length=20))
    assert_holds(record, {("window 0", ""): CHOICES[:20, :1], ("window 1", ""): CHOICES[20:, :1]}, EXPERTS)
    assert kinds(record) == {"layer_unknown", "num_experts_guessed"}
    assert not record.has_documents


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": [[1, 2], [3]]}, "indices are no numbers, or tokens have different numbers of them"),
        ({"indices": [1.5, 2]}, r"indices are not \[k\] or \[tokens, k\] whole numbers"),
        ({"indices": [8, 2]}, "expert 8 of layer 0 is out of range"),
        ({"indices": [2, 2]}, r"chooses an expert twice \(2, 2\)"),
        ({"indices": [1, 2, 3]}, "layer 0 has 3 experts a token, and 2 before it"),
        ({"layer": 0.5}, "layer is 0.5, not a whole number"),
        ({"position": [1, 2]}, "position has 2 values for 1 tokens"),
        ({"scores": [0.1, 0.2, 0.3]}, "scores are 1 x 3, but indices are 1 x 2"),
    ],
)
def test_a_line_that_is_wrong_is_refused(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    line = {"layer": 0, "indices": [1, 2]}
    path = write_lines(tmp_path / "t.jsonl", [line, line | change])
    with pytest.raises(ValueError, match=r"t\.jsonl, line 2: .*" + message):
        read_trace(path, options=OPTIONS)


def moe_trace(path: pathlib.Path, steps: list[Choices], header: bool = True) -> pathlib.Path:
    """Write the rows of llama.cpp's example: for each step, each layer's tokens one after the other."""
    rows = [f"{layer},{expert}" for step in steps for layer in range(LAYERS) for expert in step[:, layer].ravel()]
    path.write_text(("layer,expert\n" if header else "") + "".join(row + "\n" for row in rows))
    return path


STEPS = [CHOICES[:20], *(CHOICES[token : token + 1] for token in range(20, TOKENS))]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("told", [True, False])
def test_rows_of_layer_and_expert_are_tokens_of_k(tmp_path: pathlib.Path, header: bool, told: bool) -> None:
    path = moe_trace(tmp_path / "moe_trace.csv", STEPS, header)
    assert find_format([path])[0] == "layer_expert"
    record = read_trace(path, options=ReadOptions(num_chosen=K if told else None, document_length=25))
    windows = {("moe_trace window 0", ""): CHOICES[:25], ("moe_trace window 1", ""): CHOICES[25:]}
    assert_holds(record, windows, EXPERTS, first=False)
    expected = {"mixed_phases", "order_lost", "num_experts_guessed"}
    assert kinds(record) == expected | (set() if told else {"num_chosen_guessed"})


def test_a_csv_that_is_cut_off_loses_its_last_token(tmp_path: pathlib.Path) -> None:
    path = moe_trace(tmp_path / "moe_trace.csv", STEPS)
    path.write_text(path.read_text()[:-2] + "")  # 2,7 is now 2,
    record = read_trace(path, options=ReadOptions(num_experts=EXPERTS, phase="prompt"))
    assert [selector.tally.decisions_G.sum() for selector in record.selectors] == [TOKENS, TOKENS, TOKENS - 1]
    assert kinds(record) == {"num_chosen_guessed", "order_lost", "truncated", "uneven_layers"}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("layer,expert\n0,1\n0,x\n1,2\n", {}, "t.csv, line 3: is '0,x', not layer,expert"),
        ("layer,expert\n0,1\n0,2\n1,2\n1,3\n0,4\n0,5\n", {"num_chosen": 4}, "row 1: 2 choices of layer 0 follow one"),
        ("layer,expert\n0,1\n0,1\n1,2\n1,2\n", {}, "does not say how many experts a token chooses"),
        ("layer,expert\n", {}, "t.csv: has no rows"),
        ("layer,expert\n0,1\n0,-2\n", {}, "expert -2 of layer 0 is out of range"),
    ],
)
def test_a_csv_that_is_wrong_is_refused(
    tmp_path: pathlib.Path, text: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_trace(tmp_path / "t.csv", options=ReadOptions(**options))
