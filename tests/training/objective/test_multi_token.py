"""Test each head's loss against torch's cross-entropy on shifted targets, and one head against the causal loss."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.mtp_heads import prediction_heads
from speciate.model.profiling.flops import flops_per_token
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import record_selections
from speciate.training.build_model import build_model

VOCABULARY, WIDTH, HIDDEN, LENGTH = 64, 16, 16, 16
DENSE: dict[str, Any] = {"kind": "dense", "hidden": HIDDEN}
MakeRun = Callable[..., RunSpec]


def built(make: MakeRun, objective: Any, **model: Any) -> tuple[Transformer, nn.Module]:
    """Build a dense model with its heads, its weights large enough to matter, and the objective."""
    run = make(objective=objective, model={"init_std": 0.3, "embedding_std": 0.3, "block": {"ffn": DENSE}, **model})
    torch.manual_seed(0)
    return build_model(run, VOCABULARY), component_module(run.objective).Objective(run.objective)


def multi(heads: int, **options: Any) -> dict[str, Any]:
    return {"kind": "multi_token", "heads": heads, "chunk": 7, **options}


def by_hand(model: Transformer, token_BT: Tensor) -> list[Tensor]:
    """Compute each head's logits, (B, T, V), layer by layer."""
    tokens = TokenBatch.of(token_BT)
    x_BTD = model.token_embedding(token_BT) + model.position_embedding.weight[: token_BT.shape[1]]
    for block in model.blocks[:-1]:
        x_BTD = block.run(x_BTD, tokens)
    own_BTD = model.norm(model.blocks[-1].run(x_BTD, tokens))
    logits = [own_BTD @ model.token_embedding.weight.T]
    for part in model.parts.values():
        if hasattr(part, "block"):
            logits.append(part.norm(part.block.run(x_BTD, tokens)) @ model.token_embedding.weight.T)
        else:
            logits.append(own_BTD @ part.unembedding.weight.T)
    return logits


@pytest.mark.parametrize("form", ["block", "linear"])
@pytest.mark.parametrize("weights", ["equal", "published"])
@pytest.mark.parametrize("heads", [2, 4])
def test_equals_torchs_cross_entropy_on_shifted_targets(run_spec: MakeRun, heads: int, form: str, weights: str) -> None:
    model, objective = built(run_spec, multi(heads, form=form, weights=weights))
    token_BT = torch.randint(VOCABULARY, (3, LENGTH))
    loss = objective(model, token_BT)
    loss.backward()
    ours = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    count = 3 * (LENGTH - 1)
    expected = [
        F.cross_entropy(logit_BTV[:, : LENGTH - 1 - ahead].mT, token_BT[:, 1 + ahead :], reduction="sum") / count
        for ahead, logit_BTV in enumerate(by_hand(model, token_BT))
    ]
    torch.testing.assert_close(objective.head_losses(model, token_BT), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(loss, expected[0], rtol=1e-6, atol=1e-6)
    weight_H = {"equal": (1, 1, 1, 1), "published": (1, 0.5, 0.3, 0.2)}[weights][:heads]
    divisor = sum(weight_H) if weights == "published" else 1
    sum(weight / divisor * head_loss for weight, head_loss in zip(weight_H, expected, strict=True)).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_the_published_weights_give_the_next_token_half(run_spec: MakeRun) -> None:
    assert built(run_spec, multi(4, weights="published"))[1].weights == pytest.approx((0.5, 0.25, 0.15, 0.1))
    assert built(run_spec, multi(4))[1].weights == (1, 1, 1, 1)


@pytest.mark.parametrize("separate", [False, True])
def test_one_head_is_the_causal_objective_bit_for_bit(run_spec: MakeRun, separate: bool) -> None:
    token_BT = torch.randint(VOCABULARY, (3, LENGTH))
    document_BT = (torch.arange(LENGTH) >= torch.tensor([[3], [16], [9]])).long()
    results = []
    for chosen in ({"kind": "causal", "chunk": 7}, multi(1)):
        model, objective = built(run_spec, chosen, separate_documents=separate)
        loss = objective(model, token_BT, document_BT)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        nats_BS, counted_BS = (f(model, token_BT, document_BT) for f in (objective.token_nll, objective.loss_mask))
        results.append({**model.state_dict(), **gradients, "loss": loss, "nats": nats_BS, "counted": counted_BS})
    assert results[0].keys() == results[1].keys()
    for name, value in results[0].items():
        assert torch.equal(value, results[1][name]), name


def test_further_heads_change_nothing_of_the_next_token_model(run_spec: MakeRun) -> None:
    token_BT = torch.randint(VOCABULARY, (3, LENGTH))
    plain, causal = built(run_spec, {"kind": "causal", "chunk": 7})
    model, objective = built(run_spec, multi(4))
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name
    assert torch.equal(plain(token_BT), model(token_BT))
    assert torch.equal(causal.token_nll(plain, token_BT), objective.token_nll(model, token_BT))
    # the value of the loss is the causal loss's own, to the last bit
    assert torch.equal(causal(plain, token_BT), objective(model, token_BT))


@torch.no_grad()
@pytest.mark.parametrize("separate", [False, True])
def test_no_target_is_in_another_document(run_spec: MakeRun, separate: bool) -> None:
    model, objective = built(run_spec, multi(4), separate_documents=separate)
    token_BT = torch.randint(VOCABULARY, (4, LENGTH))
    # a repeated document is another context; the last block consists of single tokens
    document_BT = torch.tensor([[0] * 5 + [1] * 2 + [0] * 9, [3] * 16, [2] * 13 + [4] * 3, [*range(16)]])
    sums_H, count = [0.0] * 4, 0
    for token_T, document_T in zip(token_BT, document_BT.tolist(), strict=True):
        lengths = [len(list(run)) for _, run in itertools.groupby(document_T)] if separate else [LENGTH]
        for context_T in token_T.split(lengths):  # each token alone: there is nothing else to predict
            count += len(context_T) - 1
            logits_HTV = [logit_BTV[0] for logit_BTV in by_hand(model, context_T[None])]
            for ahead in range(4):
                for position in range(len(context_T) - 1 - ahead):
                    sums_H[ahead] += float(
                        F.cross_entropy(logits_HTV[ahead][position], context_T[position + 1 + ahead])
                    )
    assert int(objective.loss_mask(model, token_BT, document_BT).sum()) == count == (42 if separate else 60)
    found_H = [float(loss) for loss in objective.head_losses(model, token_BT, document_BT)]
    assert found_H == pytest.approx([total / count for total in sums_H], rel=1e-5)


def test_each_heads_gradient_reaches_the_trunk_and_no_other_head(run_spec: MakeRun) -> None:
    model, objective = built(run_spec, multi(4))
    token_BT = torch.randint(VOCABULARY, (3, LENGTH))
    for ahead in range(4):
        model.zero_grad()
        objective.head_losses(model, token_BT)[ahead].backward()
        touched = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters() if name in touched}
        prefix = "blocks.1." if ahead == 0 else f"parts.head{ahead}."
        others = {"blocks.1.", *(f"parts.head{other}." for other in range(1, 4))} - {prefix}
        for start in ("blocks.0.mixer.query_key_value.weight", "blocks.0.ffn.out.weight", "token_embedding", prefix):
            assert sum(norm for name, norm in norms.items() if name.startswith(start)) > 1e-4, (ahead, start)
        assert not [name for name in norms if name.startswith(tuple(others)) and norms[name] > 0]


def test_parameters_and_products_are_counted(run_spec: MakeRun) -> None:
    norm, attention = 2 * WIDTH, (WIDTH + 1) * 3 * WIDTH + (WIDTH + 1) * WIDTH
    dense = (WIDTH + 1) * HIDDEN + (HIDDEN + 1) * WIDTH
    plain = count_parameters(built(run_spec, "causal")[0])[0]
    for heads in (1, 2, 4):
        of_blocks = (heads - 1) * (attention + dense + 3 * norm)
        assert count_parameters(built(run_spec, multi(heads))[0]) == (plain + of_blocks,) * 2
        of_maps = (heads - 1) * WIDTH * VOCABULARY
        assert count_parameters(built(run_spec, multi(heads, form="linear"))[0]) == (plain + of_maps,) * 2
        for form in ("block", "linear"):
            model, objective = built(run_spec, multi(heads, form=form))
            token_BT = torch.randint(VOCABULARY, (6, LENGTH))
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                objective(model, token_BT).backward()
            counted = counter.get_total_flops()
            assert flops_per_token(model, LENGTH) * token_BT.numel() == pytest.approx(counted, rel=1e-12)


def test_a_heads_block_is_the_last_layers_mixer_on_every_token_and_dense(run_spec: MakeRun) -> None:
    last = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": {**DENSE, "hidden": 24}, "depth": "every"}
    model = built(run_spec, multi(3), exceptions=[{"layers": [1], "block": last}])[0]
    assert [head.ahead for head in prediction_heads(model)] == [1, 2]
    for head in prediction_heads(model):
        assert head.block.mixer.num_heads == 4
        assert head.block.ffn.up.out_features == 24
    experts = run_spec(objective=multi(2, ffn=DENSE))
    torch.manual_seed(0)
    model = build_model(experts, VOCABULARY)
    with record_selections(model) as record:
        component_module(experts.objective).Objective(experts.objective)(model, torch.randint(VOCABULARY, (2, LENGTH)))
    assert list(record) == ["blocks.0.ffn.router", "blocks.1.ffn.router"]
    with_experts = build_model(run_spec(objective=multi(2, ffn=experts.model.block.ffn.model_dump())), VOCABULARY)
    objective = component_module(experts.objective).Objective(experts.objective)
    with record_selections(with_experts) as record:
        objective.run_probe(with_experts, torch.randint(VOCABULARY, (2, LENGTH)), None)
    assert list(record)[2:] == ["parts.head1.block.ffn.router"]


@torch.no_grad()
def test_the_loss_of_each_head_is_noted(run_spec: MakeRun) -> None:
    model, objective = built(run_spec, multi(3))
    token_BT = torch.randint(VOCABULARY, (3, LENGTH))
    with collect_metrics(model, objective) as meter:
        objective.run_probe(model, token_BT, torch.zeros_like(token_BT))
    expected = {
        ("objective", "head_nats", float(ahead)): float(
            F.cross_entropy(logit_BTV[:, : LENGTH - 1 - ahead].mT, token_BT[:, 1 + ahead :])
        )
        for ahead, logit_BTV in enumerate(by_hand(model, token_BT))
    }
    noted = {key: mean for key, mean in meter.means().items() if key[0] == "objective"}
    assert noted == pytest.approx(expected, rel=1e-5)


def test_what_is_not_finite_in_any_head_shows(run_spec: MakeRun) -> None:
    model, objective = built(run_spec, multi(2))
    with torch.no_grad():
        model.parts["head1"].norm.weight.fill_(float("inf"))
    assert not objective(model, torch.randint(VOCABULARY, (2, LENGTH))).isfinite()


def test_heads_that_cannot_be_are_refused(run_spec: MakeRun) -> None:
    dense = {"block": {"ffn": DENSE}}
    for objective, model, message in (
        (multi(0), dense, "heads"),
        (multi(16), dense, r"the last of 16 heads has no token to predict in 16 \(model.context\)"),
        (multi(5, weights="published"), dense, "weights: 4 weights are published"),
        (multi(2, form="linear", ffn=DENSE), dense, "ffn: a linear head has no feed-forward layer"),
        (multi(2), {}, "ffn: the last layer's kind is moe; set the heads' own"),
        (multi(2), {**dense, "causal": False}, "multi_token needs a model that sees only what came before"),
    ):
        with pytest.raises(ValueError, match=message):
            run_spec(objective=objective, model=model)
    model, objective = built(run_spec, multi(15))
    with pytest.raises(ValueError, match="a block of 15 tokens has none for head 14 to predict"):
        objective(model, torch.zeros((1, 15), dtype=torch.long))
