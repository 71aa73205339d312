"""Test Mixture-of-Depths: its choice against brute force, its block in closed form, and causal evaluation."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from speciate.config.run import ModelSpec
from speciate.model.block import Block
from speciate.model.cache import Cache
from speciate.model.depth import skipper
from speciate.model.depth.mod import DEAL_GROUP, deal_positions
from speciate.model.initial_weights import generator
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import auxiliary_loss, mark_recomputation, record_selections
from speciate.selection.tally import tally

Build = Callable[..., Transformer]
VOCABULARY = 50


@pytest.fixture
def built(transformer: Build, moe: Callable[..., dict[str, Any]]) -> Build:
    """Build a model of two float64 blocks, each with a mixture of experts inside a Mixture-of-Depths."""

    def build(ffn: dict[str, Any] | None = None, **changes: Any) -> Transformer:
        options = {"kind": "mod", "capacity": 0.5, **changes.pop("depth", {})}
        mixer = {"kind": "attention", "num_heads": 4}
        block = {"mixer": mixer, "ffn": ffn or moe(top_k=2), "depth": options, **changes.pop("block", {})}
        return transformer(block=block, **changes).double()

    return build


def undecided(model: Transformer) -> Transformer:
    """Set predictors that accept some tokens and reject others, as trained ones do."""
    for module in model.modules():
        if isinstance(module, skipper.Predictor):
            torch.nn.init.normal_(module.down.weight)
            torch.nn.init.zeros_(module.down.bias)
    return model


def chosen(model: Transformer, token_BT: Tensor, path: str = "blocks.0.depth.router") -> Tensor:
    with record_selections(model) as record:
        model(token_BT)
    return record[path].chosen_NS[:, 1].view_as(token_BT).bool()


def block_of(model: Transformer, token_BT: Tensor) -> tuple[Block, Tensor, TokenBatch]:
    block = model.blocks[0]
    assert isinstance(block, Block)
    return block, torch.randn(*token_BT.shape, 24, dtype=torch.float64), TokenBatch.of(token_BT)


def test_in_training_the_k_tokens_of_the_largest_logits_run(built: Build) -> None:
    model = built(depth={"capacity": 0.25})
    block, x_BTD, tokens = block_of(model, torch.randint(VOCABULARY, (3, 16)))
    choice = block.depth.router(x_BTD, tokens)
    for row in range(3):
        logits = (x_BTD[row] @ block.depth.router.scorer.weight[0]).tolist()
        largest = sorted(range(16), key=lambda t: -logits[t])[:4]
        assert choice.run_BT[row].nonzero().flatten().tolist() == sorted(largest)
    selection = choice.selection
    torch.testing.assert_close(selection.probs_NS.sum(1), torch.ones(48, dtype=torch.float64))
    torch.testing.assert_close(
        selection.probs_NS[:, 1].view(3, 16), (x_BTD @ block.depth.router.scorer.weight[0]).sigmoid()
    )
    assert selection.null_NS.tolist() == [[0.75, 0.25]]
    assert torch.equal(selection.token_N, torch.arange(48))


def test_what_runs_takes_r_of_the_block_and_what_skips_is_untouched(built: Build) -> None:
    model = built()
    block, x_BTD, tokens = block_of(model, torch.randint(VOCABULARY, (2, 16)))
    found_BTD, run_BT = block(x_BTD, tokens), block.depth.router(x_BTD, tokens).run_BT
    r_BT = (x_BTD @ block.depth.router.scorer.weight[0]).sigmoid()
    for row in range(2):
        column_K = run_BT[row].nonzero().flatten()
        # the tokens that run see only each other
        alone = tokens.select(column_K.expand(2, -1))
        ran_KD = block.run(x_BTD[:, column_K], alone)[row]
        kept_KD = x_BTD[row, column_K]
        expected_KD = kept_KD + r_BT[row, column_K, None] * (ran_KD - kept_KD)
        torch.testing.assert_close(found_BTD[row, column_K], expected_KD, rtol=1e-12, atol=1e-12)
        assert torch.equal(found_BTD[row, ~run_BT[row]], x_BTD[row, ~run_BT[row]])


@pytest.mark.parametrize("training", [True, False])
def test_at_capacity_1_it_is_the_plain_block_times_r(built: Build, training: bool) -> None:
    model = built(depth={"capacity": 1.0}).train(training)
    block, x_BTD, tokens = block_of(model, torch.randint(VOCABULARY, (2, 16)))
    r_BT1 = torch.sigmoid(x_BTD @ block.depth.router.scorer.weight.T)
    expected_BTD = x_BTD + r_BT1 * (block.run(x_BTD, tokens) - x_BTD)
    torch.testing.assert_close(block(x_BTD, tokens), expected_BTD, rtol=1e-12, atol=1e-12)
    selection = block.depth.router(x_BTD, tokens).selection
    # nothing is decided, so there is nothing to learn
    assert float(tally(selection, torch.zeros(32, dtype=torch.long), 1).divergence_G[0]) == 0.0
    assert block.depth.router.predictor is None


def test_the_router_learns_by_r_and_the_predictor_by_its_own_loss_alone(built: Build) -> None:
    model = built()
    token_BT = torch.randint(VOCABULARY, (2, 16))
    with record_selections(model) as record:
        logits = model(token_BT)
        own = auxiliary_loss({path: one for path, one in record.items() if path.endswith("depth.router")})
    names = {name for name, _ in model.named_parameters()}
    predictor = {name for name in names if ".predictor." in name}
    assert len(predictor) == 6

    def reached(loss: Tensor) -> set[str]:
        model.zero_grad()
        loss.backward(retain_graph=True)
        return {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.any())}

    assert reached(own) == predictor
    assert reached(logits.square().sum()) >= {f"blocks.{layer}.depth.router.scorer.weight" for layer in (0, 1)}
    assert not reached(logits.square().sum()) & predictor


def test_the_predictors_loss_is_the_cross_entropy_of_being_among_the_k(built: Build) -> None:
    model = undecided(built(depth={"predictor_weight": 0.5}))
    block, x_BTD, tokens = block_of(model, torch.randint(VOCABULARY, (2, 16)))
    choice, router = block.depth.router(x_BTD, tokens), block.depth.router
    p_BT = router.predictor(x_BTD).sigmoid()
    expected = -torch.where(choice.run_BT, p_BT.log(), (1 - p_BT).log()).mean() / 2
    torch.testing.assert_close(choice.selection.loss, expected)


def test_before_it_has_learned_the_predictor_says_the_capacity(built: Build) -> None:
    model = built(depth={"capacity": 0.125}, init_std=1e-6).eval()
    with record_selections(model) as record:
        model(torch.randint(VOCABULARY, (2, 16)))
    selection = record["blocks.0.depth.router"]
    torch.testing.assert_close(selection.probs_NS, selection.null_NS.expand(32, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("choice", ["learned", "random"])
@pytest.mark.parametrize("separate", [False, True])
def test_in_evaluation_no_token_depends_on_a_later_one(built: Build, choice: str, separate: bool) -> None:
    model = undecided(built(depth={"choice": choice}, separate_documents=separate)).eval()
    token_BT = torch.randint(VOCABULARY, (4, 16))
    document_BT = torch.tensor([0] * 7 + [1] * 9).expand(4, -1)
    before, runs_BT = model(token_BT, document_BT), chosen(model, token_BT)
    if choice == "learned":
        assert len(set(runs_BT.sum(1).tolist())) > 1, "rows of different counts, so that there is padding"
    for at in range(16):
        changed_BT = token_BT.clone()
        changed_BT[:, at] = (changed_BT[:, at] + 1) % VOCABULARY
        after = model(changed_BT, document_BT)
        torch.testing.assert_close(after[:, :at], before[:, :at], rtol=1e-12, atol=1e-12)
        assert torch.equal(chosen(model, changed_BT)[:, :at], runs_BT[:, :at])


def test_in_training_the_choice_looks_ahead(built: Build) -> None:
    model = built()
    token_BT = torch.randint(VOCABULARY, (1, 16))
    before_BT = chosen(model, token_BT)
    last = [torch.cat([token_BT[:, :-1], torch.tensor([[token]])], dim=1) for token in range(VOCABULARY)]
    assert any(not torch.equal(chosen(model, each_BT)[:, :-1], before_BT[:, :-1]) for each_BT in last)


@pytest.mark.parametrize("choice", ["learned", "random"])
@pytest.mark.parametrize("rows", [1, 3])
def test_with_a_cache_equals_the_full_forward(built: Build, choice: str, rows: int) -> None:
    model = undecided(built(depth={"choice": choice}, position="rotary")).eval()
    token_BT = torch.randint(VOCABULARY, (rows, 14))
    full = model(token_BT)
    for parts in ([1] * 14, [4, 1, 9], [14]):
        cache = Cache()
        read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
        torch.testing.assert_close(torch.cat(read, dim=1), full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rows", [1, 3])
def test_with_a_cache_behind_a_state_too(built: Build, rows: int) -> None:
    mamba = {"mixer": {"kind": "mamba", "state": 3, "step_rank": 2}, "ffn": {"kind": "dense", "hidden": 40}}
    model = undecided(built(block={**mamba, "depth": {"kind": "mod", "capacity": 0.5}})).eval()
    token_BT = torch.randint(VOCABULARY, (rows, 14))
    full = model(token_BT)
    for parts in ([1] * 14, [4, 1, 9]):
        cache = Cache()
        read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
        torch.testing.assert_close(torch.cat(read, dim=1), full, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_a_selector_inside_decides_about_its_own_tokens_alone(built: Build, training: bool) -> None:
    model = undecided(built()).train(training)
    with record_selections(model) as record:
        model(torch.randint(VOCABULARY, (3, 16)))
    for layer in (0, 1):
        outer, inner = record[f"blocks.{layer}.depth.router"], record[f"blocks.{layer}.ffn.router"]
        ran_N = outer.token_N[outer.chosen_NS[:, 1] == 1]
        assert sorted(inner.token_N.tolist()) == ran_N.tolist()
        assert 0 < len(ran_N) < 48


def test_rows_are_independent_of_each_other(built: Build) -> None:
    model = undecided(built()).eval()
    token_BT = torch.randint(VOCABULARY, (4, 16))
    alone = torch.cat([model(row_BT) for row_BT in token_BT.split(1)])
    torch.testing.assert_close(model(token_BT), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_seen_by_no_token_where_all_see_all(built: Build, causal: bool) -> None:
    model = undecided(built(causal=causal)).eval()
    token_BT = torch.randint(VOCABULARY, (4, 16))
    assert len(set(chosen(model, token_BT).sum(1).tolist())) > 1
    alone = torch.cat([model(row_BT) for row_BT in token_BT.split(1)])
    torch.testing.assert_close(model(token_BT), alone, rtol=1e-12, atol=1e-12)


def test_where_every_token_skips_the_block_is_the_identity(built: Build) -> None:
    model = built().eval()
    for block in model.blocks:
        block.depth.router.predictor.down.bias.data.fill_(-1e9)
    block, x_BTD, tokens = block_of(model, torch.randint(VOCABULARY, (2, 16)))
    with record_selections(model) as record:
        assert torch.equal(block(x_BTD, tokens), x_BTD)
    # the inner router was called without a token to decide on; an observer still finds it at every observation
    inner = record["blocks.0.ffn.router"]
    assert len(inner.token_N) == 0
    assert tally(inner, inner.token_N, 1).decisions_G.tolist() == [0.0]
    cached = TokenBatch.of(tokens.id_BT, cache=Cache())
    assert torch.equal(block(x_BTD, cached), x_BTD)


@pytest.mark.parametrize("capacity", [0.125, 0.5, 0.75])
@pytest.mark.parametrize("training", [True, False])
def test_the_random_control_runs_exactly_its_share(built: Build, capacity: float, training: bool) -> None:
    model = built(depth={"capacity": capacity, "choice": "random"}).train(training)
    with record_selections(model) as record:
        model(torch.randint(VOCABULARY, (3, 16)))
    runs = [record[f"blocks.{layer}.depth.router"] for layer in (0, 1)]
    for one in runs:
        assert one.chosen_NS[:, 1].view(3, 16).sum(1).tolist() == [16 * capacity] * 3
        # the null equals the probabilities, but a broadcast tensor's logarithms have another memory layout: allow the
        # rounding of 48 float64 decisions
        assert abs(float(tally(one, torch.zeros(48, dtype=torch.long), 1).divergence_G[0])) < 48 * 1e-15
    assert not torch.equal(runs[0].chosen_NS, runs[1].chosen_NS), "each layer is dealt anew"
    assert not any(".predictor." in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("capacity", [0.1, 0.125, 0.3, 0.5, 0.75, 1.0])
def test_runs_are_dealt_evenly_along_the_block(capacity: float) -> None:
    runs_T = deal_positions(capacity, 200, generator(0))
    for stop in range(DEAL_GROUP, 201, DEAL_GROUP):
        assert int(runs_T[:stop].sum()) == round(capacity * stop)
    assert torch.equal(runs_T, deal_positions(capacity, 200, generator(0)))
    starts = (
        torch.stack([deal_positions(capacity, DEAL_GROUP, generator(seed)) for seed in range(2000)]).double().mean(0)
    )
    torch.testing.assert_close(
        starts, torch.full_like(starts, round(capacity * DEAL_GROUP) / DEAL_GROUP), rtol=0, atol=0.05
    )


def test_it_records_how_far_evaluation_is_from_training(built: Build) -> None:
    model = undecided(built(ffn={"kind": "dense", "hidden": 40})).eval()
    token_BT = torch.randint(VOCABULARY, (2, 16))
    with torch.no_grad(), collect_metrics(model) as meter:
        model(token_BT)
    metrics = {name: value for (path, name, _), value in meter.means().items() if path == "blocks.0.depth.router"}
    runs_BT = chosen(model, token_BT)
    block = model.blocks[0]
    x_BTD = model.token_embedding(token_BT) + model.position_embedding(torch.arange(16))
    with torch.no_grad():
        evaluated_BTD = block(x_BTD, TokenBatch.of(token_BT))
        model.train()
        trained_BTD = block(x_BTD, TokenBatch.of(token_BT))
    expert_BT = chosen(model, token_BT)
    assert metrics["capacity"] == pytest.approx(float(runs_BT.double().mean()))
    assert metrics["agreement"] == pytest.approx(float((runs_BT == expert_BT).double().mean()))
    difference = (trained_BTD - evaluated_BTD).norm() / evaluated_BTD.norm()
    assert metrics["train_eval_difference"] == pytest.approx(float(difference), rel=1e-10)


def test_the_predictor_learns_whom_expert_choice_takes(built: Build) -> None:
    model = built(depth={"capacity": 0.25})
    router, x_BTD = model.blocks[0].depth.router, torch.randn(64, 16, 24, dtype=torch.float64)
    tokens = TokenBatch.of(torch.zeros(64, 16, dtype=torch.long))
    optimizer = torch.optim.Adam(router.parameters(), 0.01)
    for _ in range(150):
        router(x_BTD, tokens).selection.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    expert_BT = router(x_BTD, tokens).run_BT
    said_BT = router.eval()(x_BTD, tokens).run_BT
    assert float((said_BT == expert_BT).double().mean()) > 0.9  # predicting "never runs" would score .75


def test_the_threshold_lets_the_share_run_that_was_paid_for(built: Build) -> None:
    model = built(depth={"capacity": 0.25})
    router, x_BTD = model.blocks[0].depth.router, torch.randn(64, 16, 24, dtype=torch.float64)
    tokens = TokenBatch.of(torch.zeros(64, 16, dtype=torch.long))
    assert float(router.threshold) == pytest.approx(math.log(0.25 / 0.75))
    # an untrained predictor that is certain that no token runs
    torch.nn.init.normal_(router.predictor.down.weight, std=0.1)
    router.predictor.down.bias.data.fill_(-9.0)
    for _ in range(60):
        router(x_BTD, tokens)
    before = router.threshold.clone()
    assert float(router.eval()(x_BTD, tokens).run_BT.double().mean()) == pytest.approx(0.25, abs=0.01)
    with mark_recomputation():
        router.train()(x_BTD + 1, tokens)
    assert torch.equal(router.threshold, before), "what is computed again moves nothing"


def test_a_token_uses_its_share_of_the_blocks(transformer: Build, model_spec: Callable[..., ModelSpec]) -> None:
    dense = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": {"kind": "dense", "hidden": 40}}
    total, active = count_parameters(transformer(block={**dense, "depth": {"kind": "mod", "capacity": 0.25}}))
    # per block: two norms 2 x 48, attention 24 x 72 + 72 + 24 x 24 + 24, feed-forward 24 x 40 + 40 + 40 x 24 + 24
    block = 96 + 2400 + 1984
    assert total - active == 2 * round(0.75 * block)


@pytest.mark.parametrize(
    ("choice", "balance"),
    [
        *itertools.product(["token", {"kind": "token", "capacity_factor": 0.5}], ["none", "auxiliary", "bias"]),
        ({"kind": "expert", "non_causal": True}, "none"),
    ],
)
def test_a_block_in_which_nothing_runs_leaves_the_text_as_it_was(
    transformer: Callable[..., Transformer], moe: Callable[..., Any], choice: Any, balance: str
) -> None:
    depth = {"kind": "mod", "capacity": 1 / 16, "choice": "random"}
    model = transformer(ffn=moe(choice=choice, balance=balance, z_weight=0.1), depth=depth)
    for block in model.blocks:
        assert int(block.depth.router.dealt_T.sum()) == 1
        block.depth.router.dealt_T.zero_()
        block.depth.router.dealt_T[9] = True
    token_BT = torch.randint(50, (2, 9))
    x_BTD = model.norm(model.token_embedding(token_BT) + model.position_embedding(torch.arange(9)))
    torch.testing.assert_close(model.hidden(token_BT), x_BTD, rtol=0, atol=0)
    with record_selections(model) as record:
        loss = model.hidden(token_BT).square().mean()
    loss = loss + sum(selection.loss for selection in record.values())
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    assert all(
        float(weight.grad.abs().max()) == 0 for weight in model.blocks[0].ffn.parameters() if weight.grad is not None
    )
