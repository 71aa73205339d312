"""Test attention against its equation and on selected columns, and the head counts that it refuses."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from speciate.config.components import component_module
from speciate.model.token_batch import BuildContext, TokenBatch


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mixer": {"num_heads": 5}}, "num_heads: 5 heads do not divide a width of 24"),
        ({"mixer": {"num_heads": 4, "num_kv_heads": 3}}, "num_kv_heads: 3 does not divide 4 query heads"),
        ({"mixer": {"num_heads": 8}, "position": "rotary"}, "a head has 3"),
    ],
)
def test_impossible_heads_are_refused(model_spec: Callable[..., Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="num_") as caught:
        model_spec(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_equals_attention_written_out(model_spec: Callable[..., Any], position: str, num_kv_heads: int) -> None:
    model = model_spec(mixer={"num_kv_heads": num_kv_heads}, position=position)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50)).double()
    x_BTD, tokens = torch.randn(2, 9, 24, dtype=torch.float64), TokenBatch.of(torch.zeros(2, 9))
    joint_BTD = mixer.query_key_value(x_BTD)
    result = torch.zeros(2, 9, 24, dtype=torch.float64)

    def vector(part: int, block: int, t: int, head: int) -> torch.Tensor:
        kv_head = head if part == 0 else head * num_kv_heads // 4
        start = 6 * ((0, 4, 4 + num_kv_heads)[part] + kv_head)
        v_h = joint_BTD[block, t, start : start + 6]
        if position == "learned" or part == 2:
            return v_h
        turn = torch.polar(torch.ones(3).double(), t * 10000.0 ** (-torch.arange(3).double() / 3))
        turned = torch.complex(v_h[:3], v_h[3:]) * turn
        return torch.cat((turned.real, turned.imag))

    for block in range(2):
        for head in range(4):
            for t in range(9):
                q_h = vector(0, block, t, head)
                score = torch.stack([q_h @ vector(1, block, s, head) for s in range(t + 1)]) / 6**0.5
                values = torch.stack([vector(2, block, s, head) for s in range(t + 1)])
                result[block, t, 6 * head : 6 * head + 6] = score.softmax(-1) @ values
    torch.testing.assert_close(mixer(x_BTD, tokens), mixer.out(result), rtol=1e-6, atol=1e-6)


def test_some_columns_attend_as_if_the_others_were_not_there(model_spec: Callable[..., Any]) -> None:
    model = model_spec(position="rotary")
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50)).double()
    column_BK = torch.tensor([[0, 3, 4, 8]])
    x_BKD = torch.randn(1, 4, 24, dtype=torch.float64)
    tokens = TokenBatch.of(torch.zeros(1, 9))
    some = mixer(x_BKD, tokens.select(column_BK))
    # the same by masking: every other column gets a context of its own
    x_BTD = torch.randn(1, 9, 24, dtype=torch.float64)
    x_BTD[0, column_BK[0]] = x_BKD[0]
    document_BT = torch.arange(1, 10).unsqueeze(0).scatter(1, column_BK, 0)
    full = mixer(x_BTD, dataclasses.replace(tokens, document_BT=document_BT))
    torch.testing.assert_close(full[:, column_BK[0]], some)
