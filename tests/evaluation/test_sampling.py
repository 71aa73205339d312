"""Test the sampler's distribution against transformers' own warpers, and that draws follow it."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from speciate.evaluation.sampling import Sampling, next_token_probs


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 100])
@pytest.mark.parametrize("top_p", [0.2, 0.8, 1.0])
def test_equals_transformers_warpers(temperature: float, top_k: int, top_p: float) -> None:
    logit_V = torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * 2
    none = torch.zeros((1, 1), dtype=torch.long)
    expected = TemperatureLogitsWarper(temperature)(none, logit_V[None])
    if top_k:
        expected = TopKLogitsWarper(top_k)(none, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(none, expected)
    got = next_token_probs(logit_V, Sampling(temperature, top_k, top_p))
    torch.testing.assert_close(got, expected[0].softmax(-1))


def test_greedy_is_the_likeliest() -> None:
    logit_V = torch.tensor([0.0, 3.0, 1.0])
    assert next_token_probs(logit_V, Sampling(temperature=0)).tolist() == [0.0, 1.0, 0.0]
