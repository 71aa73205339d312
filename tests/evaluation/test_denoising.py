"""Test the denoiser that samplers call (SUBS), and the data for the figure of unmasking orders."""

from typing import Any

import pytest
import torch

from speciate.config.components import kinds_in
from speciate.config.run import RunSpec
from speciate.evaluation.denoising import denoiser, importance_function, sampler_options, unmasking_orders
from speciate.model.transformer import Transformer
from speciate.training.build_model import build_model


def diffusion_model(**objective: Any) -> Transformer:
    torch.manual_seed(0)
    ffn = {"kind": "dense", "hidden": 16}
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn, "depth": "every"}
    shape = {"width": 16, "num_layers": 2, "context": 16, "causal": False, "block": block}
    kinds = {"objective": {"kind": "masked_diffusion", **objective}, "optimizer": "adamw", "schedule": "cosine"}
    run = RunSpec.model_validate({"ablation": "a", "seed": 0, "model": shape, **kinds})
    return build_model(run, 12).eval()


def test_words_have_all_the_probability_and_what_is_there_stays() -> None:
    model = diffusion_model()
    token_BT = torch.tensor([[3, 12, 5, 12], [1, 2, 3, 4]])
    prob_BTV = denoiser(model)(token_BT).exp()
    assert prob_BTV.shape == (2, 4, 12)
    torch.testing.assert_close(prob_BTV.sum(-1), torch.ones(2, 4))
    assert prob_BTV[0, 0].tolist() == torch.eye(12)[3].tolist()
    assert prob_BTV[1].argmax(-1).tolist() == [1, 2, 3, 4]
    # against the model's own head, by hand
    logit_V = model(token_BT)[0, 1, :12]
    torch.testing.assert_close(prob_BTV[0, 1], logit_V.softmax(-1))


def test_importance_is_the_estimators() -> None:
    assert importance_function(diffusion_model()) is None
    importance_of_tokens = importance_function(diffusion_model(importance="learned", masking="importance"))
    assert importance_of_tokens is not None
    importance_BT = importance_of_tokens(torch.tensor([[3, 12, 5, 12]]))
    assert importance_BT.shape == (1, 4)
    assert (importance_BT > 0).all()


@pytest.mark.parametrize("mode", ["repaired", "as_published"])
def test_an_order_of_every_sampler(mode: str) -> None:
    model = diffusion_model(importance="learned", masking="importance", mode=mode)
    rows = unmasking_orders(model, first=3, length=10, seed=0)
    assert set(rows["what"]) == {f"unmasking_{kind}" for kind in kinds_in("evaluation/sampler")}
    for _, sampler_rows in rows.groupby("what"):
        assert sorted(sampler_rows["position"]) == list(range(1, 10))
        assert sampler_rows["token"].max() < 12
        assert (sampler_rows["y"] >= 0).all()
    again = unmasking_orders(model, first=3, length=10, seed=0)
    assert rows.equals(again)
    one = rows[rows["what"] == "unmasking_random_order"]
    assert sorted(one["x"]) == list(range(1, 10))


def test_a_wrong_key_of_a_sampler_is_named() -> None:
    with pytest.raises(ValueError, match="num_step"):
        sampler_options("ancestral", num_step=3)
