"""Test SUBS, unbiasedness, separate gradients of denoiser and estimator, budgets, and the original's defects."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.training import toy
from torch import Tensor, nn

from speciate.config.components import component_module, options_of
from speciate.config.run import ModelSpec
from speciate.data.blocks import BlockSet
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import auxiliary_loss, record_selections
from speciate.training.diffusion import mdlm
from speciate.training.diffusion.mdlm import NoisyBlocks

VOCABULARY, LENGTH = 20, 12
LEARNED = {"kind": "learned", "width": 8, "num_heads": 2}
MASKINGS = ("uniform", "importance", "inverse", "balanced")
KINDS: dict[str, Any] = {
    "learned": LEARNED,
    "frequency": "frequency",
    "learned_frequency": {**LEARNED, "kind": "learned_frequency"},
    "random": "random",
    "oracle": "oracle",
}


def build(dtype: torch.dtype | None = None, ffn: Any = None, **settings: Any) -> tuple[Transformer, nn.Module]:
    """Build a small model and its objective."""
    options = options_of("training/objective", "masked_diffusion").model_validate(
        {"kind": "masked_diffusion", **settings}
    )
    module = component_module(options)
    block = {"mixer": {"kind": "attention", "num_heads": 2}, "ffn": ffn or {"kind": "dense", "hidden": 16}}
    shape = {"width": 8, "num_layers": 1, "context": LENGTH, "causal": False, "block": block | {"depth": "every"}}
    torch.manual_seed(1)
    model = ModelSpec.model_validate({**shape, "init_std": 0.4, "embedding_std": 0.4})
    built = Transformer(model, VOCABULARY + 1, module.parts(options, None))
    return built if dtype is None else built.to(dtype), module.Objective(options)


def blocks(num: int = 4) -> Tensor:
    """Draw tokens of very unequal frequency."""
    draw = torch.Generator().manual_seed(2)
    return torch.multinomial(0.8 ** torch.arange(float(VOCABULARY)), num * LENGTH, True, generator=draw).view(num, -1)


def noisy_blocks(token_BT: Tensor, masked_BT: Tensor) -> NoisyBlocks:
    maskable_BT = torch.ones_like(masked_BT).index_fill(1, torch.tensor(0), False)
    share_B = torch.full((len(token_BT),), 0.5, dtype=torch.float64)
    noisy_BT = token_BT.masked_fill(masked_BT, VOCABULARY)
    return NoisyBlocks(token_BT, noisy_BT, None, maskable_BT, masked_BT, torch.full(masked_BT.shape, 2.0), share_B)


def test_mask_has_no_probability_and_visible_tokens_cost_nothing() -> None:
    model, objective = build()
    token_BT = blocks()
    masked_BT = torch.rand(token_BT.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    masked_BT[:, 0] = False
    share_B = torch.full((4,), 0.5)
    nats_BT = mdlm.masked_nll(model, token_BT, None, masked_BT, share_B=share_B, chunk=5)
    logit_BTV = model(token_BT.masked_fill(masked_BT, VOCABULARY))
    logit_BTV[..., VOCABULARY] = -torch.inf
    expected_BT = -logit_BTV.log_softmax(-1).gather(2, token_BT.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(nats_BT[masked_BT], expected_BT[masked_BT])
    assert (nats_BT[~masked_BT] == 0).all()
    total, _ = objective.denoise(model, noisy_blocks(token_BT, masked_BT))
    torch.testing.assert_close(total, 2 * expected_BT[masked_BT].sum())


def test_visible_positions_have_no_gradient_and_their_targets_no_part() -> None:
    model, objective = build()
    token_BT = blocks()
    masked_BT = torch.zeros_like(token_BT, dtype=torch.bool)
    masked_BT[:, 3:6] = True
    seen: list[Tensor] = []
    model.norm.register_forward_hook(lambda module, args, output: (output.retain_grad(), seen.append(output))[0])
    total, _ = objective.denoise(model, noisy_blocks(token_BT, masked_BT))
    total.backward()
    assert not seen[0].grad[~masked_BT].any()
    assert seen[0].grad[masked_BT].abs().sum(-1).all()
    noisy = noisy_blocks(token_BT, masked_BT)
    other_BT = torch.where(masked_BT, token_BT, token_BT.flip(0))
    changed = NoisyBlocks(other_BT, noisy.noisy_BT, None, noisy.maskable_BT, masked_BT, noisy.weight_BT, noisy.share_B)
    assert torch.equal(objective.denoise(model, changed)[0], total)


def test_the_training_loss_and_the_evaluation_are_unbiased() -> None:
    """Compare with the exact bound, within 4 of each estimate's standard errors."""
    model = toy.denoiser()
    objective = build()[1]
    exact = float(toy.subsets(toy.table(model)).mean()) / 4
    torch.manual_seed(0)
    losses = torch.stack([objective(model, toy.TEXT_XT) for _ in range(300)]).detach()
    assert abs(float(losses.mean()) - exact) < 4 * float(losses.std()) / 300**0.5
    assert float(losses.std()) / 300**0.5 < 0.02 * exact
    draws_PBS = objective.nll_estimates(model, toy.TEXT_XT)
    estimate_P = draws_PBS.sum(2).mean(1) / 4
    torch.testing.assert_close(objective.token_nll(model, toy.TEXT_XT), draws_PBS.mean(0))
    assert abs(float(estimate_P.mean()) - exact) < 4 * float(estimate_P.std()) / len(estimate_P) ** 0.5


def test_times_are_stratified() -> None:
    torch.manual_seed(0)
    uniform_B = mdlm.stratified_times(16, torch.device("cpu"))
    assert ((uniform_B * 16).ceil() == torch.arange(1, 17)).all()


def test_a_block_is_evaluated_alike_in_any_batch() -> None:
    model, objective = build()
    token_BT = blocks(6)
    # float32 products of other shapes: the tolerance covers their rounding, not that of the float64 averages of the
    # draws
    torch.testing.assert_close(
        objective.token_nll(model, token_BT)[2:4], objective.token_nll(model, token_BT[2:4]), rtol=1e-5, atol=1e-6
    )


def test_documents_are_apart_where_the_model_separates_them() -> None:
    model, objective = build(torch.float64)
    model.separate_documents = True
    token_BT = blocks(2)
    document_BT = (torch.arange(LENGTH) >= 7).long().expand(2, -1)
    counted_BS = objective.loss_mask(model, token_BT, document_BT)
    assert (counted_BS.sum(1) == LENGTH - 2).all()
    nats_BS = objective.token_nll(model, token_BT, document_BT)
    assert not nats_BS[~counted_BS].any()
    other_BT = token_BT.clone()
    other_BT[:, 8:] = (other_BT[:, 8:] + 1) % VOCABULARY
    masked_BT = torch.zeros_like(token_BT, dtype=torch.bool)
    masked_BT[:, 4] = True
    alike = [
        mdlm.masked_nll(model, text_BT, document_BT, masked_BT, share_B=torch.ones(2), chunk=9)
        for text_BT in (token_BT, other_BT)
    ]
    torch.testing.assert_close(*alike)


def test_time_is_told_only_where_it_is_asked_for() -> None:
    model, objective = build(time_conditioning=True)
    token_BT = blocks()
    masked_BT = torch.zeros_like(token_BT, dtype=torch.bool)
    masked_BT[:, 2:5] = True

    def at(share: float) -> Tensor:
        return mdlm.masked_nll(model, token_BT, None, masked_BT, share_B=torch.full((4,), share), chunk=9)

    assert torch.equal(at(0.1), at(0.9))  # before training, the time changes nothing
    objective(model, token_BT).backward()
    assert model.parts["time"].out.weight.grad.any()
    with torch.no_grad():
        model.parts["time"].out.weight.normal_()
    assert not torch.equal(at(0.1), at(0.9))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masking", MASKINGS)
def test_every_repaired_strategy_keeps_the_budget_whatever_its_batch(kind: str, masking: str) -> None:
    model, _ = build(importance=KINDS[kind], masking=masking, curriculum="early")
    selector = model.parts["importance"]
    selector.before_update(0.9)
    with torch.no_grad():
        for parameter in selector.estimator.parameters():
            parameter.normal_()  # widely spread importances
        selector.count_V += torch.arange(VOCABULARY + 1)
    token_BT = blocks(6)
    share_B = torch.linspace(0.05, 1, 6, dtype=torch.float64)
    maskable_BT = mdlm.maskable_tokens(model, token_BT, None)
    with torch.no_grad():
        of_batch = selector.eval().mask_probs(model.tokens(token_BT), maskable_BT, share_B)
        alone = selector.mask_probs(model.tokens(token_BT[2:3]), maskable_BT[2:3], share_B[2:3])
    torch.testing.assert_close(of_batch.prob_BT.sum(1), share_B * (LENGTH - 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(of_batch.prob_BT[2:3], alone.prob_BT, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(of_batch.slope_BT[2:3], alone.slope_BT, rtol=1e-5, atol=1e-6)
    if masking != "uniform":
        assert of_batch.prob_BT[2, 1:].std() > 0.01
        higher = [torch.corrcoef(torch.stack([of_batch.importance_BT[2, 1:], of_batch.prob_BT[2, 1:]]))[0, 1]]
        assert (higher[0] > 0) == (masking != "inverse") or kind == "frequency"


@pytest.mark.parametrize("mode", ["repaired", "as_published"])
@pytest.mark.parametrize("target", ["masked", "uniform"])
def test_the_estimator_learns_from_its_own_loss_alone(mode: str, target: str) -> None:
    if (mode, target) == ("as_published", "uniform"):
        return
    model, objective = build(importance=LEARNED, masking="importance", mode=mode, target=target)
    torch.manual_seed(0)
    with record_selections(model) as record:
        loss = objective(model, blocks())
    in_estimator = {
        name: parameter for name, parameter in model.named_parameters() if name.startswith("parts.importance.")
    }
    rest = [parameter for name, parameter in model.named_parameters() if name not in in_estimator]
    from_loss = torch.autograd.grad(loss, [*in_estimator.values(), *rest], retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in from_loss[: len(in_estimator)])
    assert all(gradient is not None and gradient.any() for gradient in from_loss[len(in_estimator) :])
    from_selector = torch.autograd.grad(auxiliary_loss(record), [*in_estimator.values(), *rest], allow_unused=True)
    for name, gradient in zip(in_estimator, from_selector, strict=False):
        assert gradient is not None, name
        assert gradient.isfinite().all()
    assert all(gradient is None for gradient in from_selector[len(in_estimator) :])
    assert sum(float(gradient.abs().sum()) for gradient in from_selector[: len(in_estimator)]) > 0


def test_selection_is_of_every_maskable_token_against_uniform_masking() -> None:
    model, objective = build(importance="frequency", masking="importance")
    model.parts["importance"].count_V += torch.arange(VOCABULARY + 1)
    token_BT = blocks()
    with torch.no_grad(), record_selections(model) as record:
        objective.run_probe(model.eval(), token_BT, None)
    (selection,) = record.values()
    assert selection.token_N.tolist() == [at for at in range(4 * LENGTH) if at % LENGTH]
    for rows_NS in (selection.probs_NS, selection.chosen_NS, selection.null_NS):
        torch.testing.assert_close(rows_NS.sum(1), torch.ones(4 * (LENGTH - 1), dtype=torch.float64))
    mask_BL, null_BL = (rows_NS[:, 1].view(4, -1) for rows_NS in (selection.probs_NS, selection.null_NS))
    torch.testing.assert_close(mask_BL.sum(1), null_BL.sum(1))
    assert set((null_BL * 16).flatten().tolist()) <= {1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0}


def test_observations_repeat_and_depend_on_no_batch_mate() -> None:
    model, objective = build(importance=LEARNED, masking="balanced")
    model.eval()
    masks = []
    for token_BT in (blocks(6), blocks(6), blocks(6)[:3]):
        with record_selections(model) as record:
            objective.run_probe(model, token_BT, None)
        masks.append(record["parts.importance"].chosen_NS)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0][: 3 * (LENGTH - 1)], masks[2])


def test_the_other_selectors_of_the_model_are_seen_on_the_same_masks() -> None:
    moe = {"kind": "moe", "num_experts": 4, "hidden": 8, "top_k": 1, "router": "learned", "balance": "none"}
    model, objective = build(ffn=moe, importance=LEARNED, masking="importance", target="uniform")
    with record_selections(model) as record:
        objective(model, blocks()).backward()
    assert set(record) == {"blocks.0.ffn.router", "parts.importance"}


def test_what_is_noted() -> None:
    model, objective = build(importance=LEARNED, masking="importance", curriculum="default")
    selector = model.parts["importance"]
    selector.before_update(0.5)
    with collect_metrics(model, objective) as meter:
        objective.run_probe(model.eval(), blocks(32), None)
    means = {(name, at): mean for (_, name, at), mean in meter.means().items()}
    for (name, at), mean in means.items():
        if name == "mask_rate":
            assert mean == pytest.approx(at, abs=1e-9)
    assert means[("mask_budget", None)] == pytest.approx(1)
    assert means[("stage", None)] == 1
    assert 0.9 < means[("importance_entropy", None)] <= 1
    assert means[("importance_std", None)] > 0
    assert means[("importance_frequency_correlation", None)] == 0  # nothing has been counted
    assert -1 <= means[("importance_loss_correlation", None)] <= 1
    assert 0 <= means[("saturated_share", None)] < 0.05


def test_correlations_are_pearsons() -> None:
    from speciate.training.diffusion.adaptive_masking import row_correlations

    x_BT, y_BT = torch.randn(2, 3, 9, dtype=torch.float64)
    where_BT = torch.ones(3, 9, dtype=torch.bool)
    where_BT[1, 4:] = where_BT[2, 2:] = False
    expected = [np.corrcoef(x_BT[0], y_BT[0])[0, 1], np.corrcoef(x_BT[1, :4], y_BT[1, :4])[0, 1]]
    assert row_correlations(x_BT, y_BT, where_BT).tolist() == pytest.approx(expected)
    assert row_correlations(x_BT, torch.ones_like(x_BT), where_BT).tolist() == [0, 0]


def test_details_are_importance_and_nats_of_single_tokens() -> None:
    model, objective = build(importance="random", masking="importance")
    model.eval()
    table = pd.DataFrame({"document": [0], "domain": ["a"], "id": ["a"], "group": ["a"], "bytes": [1], "surface": [1]})
    tokens, document = blocks(10).numpy(), np.zeros((10, LENGTH), dtype=np.int32)
    probe = BlockSet("probe", ("a",), tokens, document, np.zeros(10, dtype=np.int32), table, None)
    rows = objective.details(model, probe)
    assert list(rows) == ["what", "item", "position", "token", "x", "y"]
    assert len(rows) == 8 * (LENGTH - 1)
    assert (rows["token"] == tokens[rows["item"], rows["position"]]).all()
    assert (rows[["x", "y"]] > 0).all(axis=None)
    pd.testing.assert_frame_equal(rows, objective.details(model, probe))


def trained(steps: int, **settings: Any) -> tuple[Transformer, list[dict[str, float]]]:
    """Train, and return the metrics at the start and at the end."""
    model, objective = build(importance={**LEARNED, "width": 16}, masking="importance", **settings)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    noted, token_BT = [], blocks(64)
    for step in range(steps + 1):
        if step in (0, steps):
            with torch.no_grad(), collect_metrics(model, objective) as meter:
                objective.run_probe(model.eval(), token_BT, None)
            noted.append({name: mean for (_, name, at), mean in meter.means().items() if at is None})
        model.train()
        model.parts["importance"].before_update(step / (steps + 1))
        with record_selections(model) as record:
            loss = objective(model, token_BT)
        optimizer.zero_grad()
        (loss + auxiliary_loss(record)).backward()
        optimizer.step()
        model.parts["importance"].after_update()
    return model, noted


def test_as_published_the_estimator_learns_the_mask_bit_and_the_masks_die_out() -> None:
    model, (before, after) = trained(60, mode="as_published", importance_weight=1.0)
    assert before["mask_budget"] > 0.3
    assert after["mask_budget"] < 0.1 * before["mask_budget"]
    # the estimator distinguishes [MASK] from words, which is all that it was asked to do
    selector, token_BT = model.parts["importance"].eval(), blocks(4)
    noisy_BT = token_BT.clone()
    noisy_BT[:, 2::2] = VOCABULARY
    logit_BT, _ = selector.estimates(model.tokens(noisy_BT))
    assert logit_BT[:, 2::2].min() > logit_BT[:, 1::2].max()


def test_as_published_the_curriculum_divides_the_masks_by_the_length() -> None:
    rates = []
    for curriculum in ("none", "default"):
        model, _ = build(importance=LEARNED, masking="importance", mode="as_published", curriculum=curriculum)
        maskable_BT = mdlm.maskable_tokens(model, blocks(), None)
        share_B = torch.full((4,), 0.7, dtype=torch.float64)
        probs = model.parts["importance"].mask_probs(model.tokens(blocks()), maskable_BT, share_B)
        rates.append(probs.prob_BT.sum(1).mean())
    assert float(rates[1] / rates[0]) == pytest.approx(1 / (LENGTH - 1), rel=0.1)
    assert rates[1] < 1  # less than one mask per block, whatever the block's length


def test_as_published_visible_tokens_are_part_of_the_loss() -> None:
    model, objective = build(importance="frequency", masking="importance", mode="as_published")
    token_BT = blocks()
    nothing = noisy_blocks(token_BT, torch.zeros_like(token_BT, dtype=torch.bool))
    total, nats_BT = objective.denoise(model, nothing)
    assert total > 0
    assert (nats_BT[:, 1:] > 0).all()


def test_repaired_the_importance_goes_with_the_loss_and_keeps_the_budget() -> None:
    _, (before, after) = trained(60, importance_weight=1.0)
    assert before["mask_budget"] == pytest.approx(1)
    assert after["mask_budget"] == pytest.approx(1)
    assert after["importance_std"] > 0.2
    assert after["importance_loss_correlation"] > 0.3
    assert after["importance_frequency_correlation"] < -0.3  # rare tokens have a higher loss


def test_frequency_counts_each_training_token_once() -> None:
    model, objective = build(importance="frequency", masking="importance")
    selector, token_BT = model.parts["importance"], blocks()
    # torch's and Python's logarithms differ by a few float64 eps
    expected_BT = torch.full(token_BT.shape, math.log(VOCABULARY + 1), dtype=torch.float64)
    torch.testing.assert_close(selector.surprisal(token_BT), expected_BT, rtol=1e-14, atol=0)
    model.train()
    objective(model, token_BT)
    objective.run_probe(model.eval(), token_BT, None)
    selector.after_update()
    assert torch.equal(selector.count_V.long(), torch.bincount(token_BT.flatten(), minlength=VOCABULARY + 1))
    share = (selector.count_V[token_BT[0, 0]] + 1) / (4 * LENGTH + VOCABULARY + 1)
    assert float(selector.surprisal(token_BT)[0, 0]) == pytest.approx(-math.log(share))


def test_the_oracle_is_the_causal_models_surprisal() -> None:
    model, _ = build(importance=KINDS["oracle"], masking="importance")
    teacher = model.parts["importance"].estimator.teacher
    token_BT = blocks()
    _, known_BT = model.parts["importance"].estimator(
        model.tokens(token_BT), torch.zeros(token_BT.shape, dtype=torch.float64)
    )
    causal = component_module(options_of("training/objective", "causal")(kind="causal"))
    expected_BS = causal.Objective(causal.Options(kind="causal")).token_nll(teacher, token_BT)
    torch.testing.assert_close(known_BT[:, 1:].float(), expected_BS)
    assert teacher.vocabulary == VOCABULARY
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_estimator_moves_no_other_weight() -> None:
    states = []
    for settings in ({}, {"importance": LEARNED}, {"importance": KINDS["oracle"]}):
        model, _ = build(**settings)
        states.append({name: weight for name, weight in model.state_dict().items() if "parts." not in name})
    for weights in states[1:]:
        assert all(torch.equal(weights[name], states[0][name]) for name in states[0])
