"""Test gated sparse attention against its equations and dense attention, decoded token by token, and for causality."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from speciate.config.components import component_module
from speciate.model.attention_metrics import first_key_share
from speciate.model.cache import Cache
from speciate.model.profiling.mixer_cost import count_kept_bytes
from speciate.model.sparse_attention import query_chunks
from speciate.model.sparse_attention.query_chunks import AttentionInputs
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer
from speciate.selection.metrics import collect_metrics
from speciate.selection.selection import Selection, auxiliary_loss, record_selections, selectors

Build = Callable[..., Transformer]
RUNNING = {"kind": "running", "k": 4, "k_min": 2, "k_max": 6}
PUBLISHED = {"kind": "published", "k": 4, "k_min": 2, "k_max": 6, "non_causal": True}
ARMS: dict[str, dict[str, Any]] = {
    "as_published": {"indexer": {"kind": "as_published", "width": 5}},
    "kl": {"indexer": {"kind": "kl", "width": 5, "heads": 3}},
    "relu": {"indexer": {"kind": "kl", "width": 5, "activation": "relu"}},
    "soft": {"indexer": {"kind": "soft", "width": 5}},
    "window": {"indexer": "window"},
    "oracle": {"indexer": "oracle"},
    "kl_running": {"indexer": {"kind": "kl", "width": 5}, "budget": RUNNING},
    "soft_running": {"indexer": {"kind": "soft", "width": 5}, "budget": RUNNING},
}
LEARNED = ("kl", "relu", "soft", "kl_running", "soft_running")


def gsa(**changes: Any) -> dict[str, Any]:
    return {"kind": "gsa", "num_kv_heads": 2, "budget": {"kind": "fixed", "k": 4}, **changes}


def shape(arm: str, **changes: Any) -> dict[str, Any]:
    return {"mixer": gsa(**ARMS[arm], **changes), "position": "rotary"}


def sparse_stage(model: nn.Module) -> None:
    for selector in selectors(model).values():
        selector.before_update(0.9)


def one(model_spec: Callable[..., Any], position: str = "rotary", **mixer: Any) -> tuple[nn.Module, Any]:
    """Build a mixer in float64 with weights large enough to matter."""
    model = model_spec(mixer=mixer, position=position)
    built = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50)).double()
    for parameter in [*built.parameters(), *built.buffers()]:
        if parameter.ndim < 3 and parameter.is_floating_point() and parameter.shape[-1] != 3:
            parameter.data.normal_(0, 0.3)
    return built, model


@pytest.mark.parametrize("arm", ["as_published", "kl", "relu", "window", "oracle"])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
def test_with_all_keys_and_no_gates_it_is_attention(
    model_spec: Callable[..., Any], arm: str, num_kv_heads: int
) -> None:
    options = gsa(**ARMS[arm], num_kv_heads=num_kv_heads, gates="none", num_heads=4)
    sparse, _ = one(model_spec, **{**options, "budget": {"kind": "fixed", "k": 16}})
    dense, _ = one(model_spec, kind="attention", num_kv_heads=num_kv_heads)
    sparse.load_state_dict(dense.state_dict(), strict=False)
    x_BTD = torch.randn(3, 16, 24, dtype=torch.float64, requires_grad=True)
    document_BT = torch.tensor([[0] * 16, [0] * 5 + [1] * 11, [0] + [1] * 14 + [2]])
    for tokens in (TokenBatch.of(torch.zeros(3, 16)), TokenBatch.of(torch.zeros(3, 16), document_BT)):
        for stage in (0.0, 0.9):
            sparse.selector.before_update(stage)
            sparse_BTD, dense_BTD = sparse(x_BTD, tokens), dense(x_BTD, tokens)
            torch.testing.assert_close(sparse_BTD, dense_BTD, rtol=1e-9, atol=1e-9)
            gradient_BTD = torch.randn_like(sparse_BTD)
            (of_ours,) = torch.autograd.grad(sparse_BTD, x_BTD, gradient_BTD)
            torch.testing.assert_close(of_ours, torch.autograd.grad(dense_BTD, x_BTD, gradient_BTD)[0])


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("soft", [False, True])
def test_equals_its_equations_written_out(model_spec: Callable[..., Any], activation: str, soft: bool) -> None:
    indexer = {"kind": "soft", "width": 5} if soft else {"kind": "kl", "width": 5, "activation": activation}
    mixer, _ = one(model_spec, "learned", **gsa(indexer=indexer))
    mixer.eval()
    x_1TD = torch.randn(1, 11, 24, dtype=torch.float64)
    x_TD = x_1TD[0]
    joint_TD = mixer.query_key_value(x_TD)
    index, act = mixer.selector.indexer, torch.relu if activation == "relu" and not soft else torch.sigmoid

    def gate(part: nn.Linear, s: int) -> Tensor:
        return (part.weight @ x_TD[s] + part.bias).sigmoid()

    rows = []
    for t in range(11):
        score = []
        for s in range(t + 1):
            match = [
                act(index.query.weight[5 * j : 5 * j + 5] @ x_TD[t] @ (index.key.weight @ x_TD[s]) / 5**0.5 + bias)
                for j, bias in enumerate(index.bias_J)
            ]
            score.append(sum((index.gate.weight[j] @ x_TD[t]).sigmoid() * match[j] for j in range(4)))
        chosen = sorted(range(t + 1), key=lambda s: (float(score[s].detach()), s))[-4:]
        heads = []
        for head in range(4):
            part, group = slice(6 * head, 6 * head + 6), slice(6 * (head // 2), 6 * (head // 2) + 6)
            logit = [joint_TD[t, part] @ joint_TD[s, 24:36][group] / 6**0.5 for s in chosen]
            logit = [one + score[s].log() if soft else one for one, s in zip(logit, chosen, strict=True)]
            values = torch.stack([(joint_TD[s, 36:48] * gate(mixer.value_gate, s))[group] for s in chosen])
            heads.append(torch.stack(logit).softmax(0) @ values)
        rows.append(mixer.out(torch.cat(heads) * gate(mixer.output_gate, t)))
    torch.testing.assert_close(
        mixer(x_1TD, TokenBatch.of(torch.zeros(1, 11)))[0], torch.stack(rows), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("stage", [0.0, 0.9])
def test_no_later_token_changes_a_bit(transformer: Build, arm: str, stage: float) -> None:
    model = transformer(**shape(arm))
    for selector in selectors(model).values():
        selector.before_update(stage)
    token_BT = torch.randint(50, (2, 16))
    for training in (True, False):
        model.train(training)
        before = model(token_BT)
        for column in (1, 7, 15):
            changed_BT = token_BT.clone()
            changed_BT[:, column:] = torch.randint(50, (2, 16 - column))
            after = model(changed_BT)
            assert torch.equal(before[:, :column], after[:, :column])
            assert not torch.equal(before[:, column:], after[:, column:])


def test_as_published_the_number_of_keys_leaks(transformer: Build) -> None:
    model = transformer(mixer=gsa(indexer={"kind": "as_published", "width": 5}, budget=PUBLISHED)).eval()
    token_BT = torch.randint(50, (3, 16))
    other_BT = torch.cat([token_BT[:, :8], torch.randint(50, (3, 8))], 1)
    assert not torch.equal(model(token_BT)[:, :8], model(other_BT)[:, :8])
    with torch.no_grad(), collect_metrics(model) as meter:
        model(token_BT)
    means = meter.means()
    assert all(means[f"blocks.{layer}.mixer.selector", "leak", None] > 0 for layer in (0, 1))
    repaired = transformer(**shape("kl_running")).eval()
    with torch.no_grad(), collect_metrics(repaired) as meter:
        repaired(token_BT)
    assert [mean for (_, name, _), mean in meter.means().items() if name == "leak"] == [0, 0]


@pytest.mark.parametrize("arm", ARMS)
def test_blocks_do_not_know_of_each_other(transformer: Build, arm: str) -> None:
    model = transformer(**shape(arm)).double().eval()
    token_BT = torch.randint(50, (3, 16))
    torch.testing.assert_close(model(token_BT)[1:2], model(token_BT[1:2]), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("arm", ARMS)
def test_documents_are_contexts_of_their_own(transformer: Build, arm: str) -> None:
    model = transformer(**shape(arm), separate_documents=True).double().eval()
    token_BT = torch.randint(50, (1, 16))
    packed = model(token_BT, torch.tensor([[4] * 6 + [1] + [7] * 9]))
    for part in (slice(0, 6), slice(6, 7), slice(7, 16)):
        torch.testing.assert_close(packed[:, part], model(token_BT[:, part]), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(packed[:, 7:], model(token_BT)[:, 7:], atol=1e-3)


@pytest.mark.parametrize("arm", ARMS)
def test_with_a_cache_equals_the_full_forward(transformer: Build, arm: str) -> None:
    model = transformer(**shape(arm)).double().eval()
    token_BT = torch.randint(50, (3, 13))
    full = model(token_BT)
    for parts in ([1] * 13, [4, 1, 8]):
        cache = Cache()
        read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
        torch.testing.assert_close(torch.cat(read, dim=1), full, rtol=1e-10, atol=1e-10)


def test_padding_before_a_text_changes_nothing_of_it(transformer: Build) -> None:
    model = transformer(**shape("kl_running")).double().eval()
    token_BT = torch.randint(50, (1, 9))
    padded_BT = torch.cat([torch.zeros((1, 3), dtype=torch.long), token_BT], dim=1)
    position_BT, document_BT = torch.tensor([[0, 0, 0, *range(9)]]), torch.tensor([[1] * 3 + [0] * 9])
    cache, read = Cache(), []
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        places = {"position_BT": position_BT[:, part], "real_BT": document_BT[:, part] == 0}
        tokens = TokenBatch.of(padded_BT[:, part], cache=cache, **places)
        read.append(model.head(model.read(tokens)))
    torch.testing.assert_close(torch.cat(read, dim=1)[:, 3:], model(token_BT), rtol=1e-10, atol=1e-10)


def gradients(model: Transformer, stage: float, *, auxiliary: bool, lm: bool) -> dict[str, Tensor | None]:
    """Return each parameter's gradient from the selectors' own losses, the language model's loss, or both."""
    for selector in selectors(model).values():
        selector.before_update(stage)
    model.zero_grad(set_to_none=True)
    token_BT = torch.randint(50, (3, 16), generator=torch.Generator().manual_seed(0))
    with record_selections(model) as record:
        loss = model(token_BT).logsumexp(-1).square().mean() * lm
    (loss + auxiliary_loss(record) * auxiliary).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("arm", LEARNED)
@pytest.mark.parametrize("stage", [0.0, 0.9])
def test_every_tensor_of_an_indexer_that_learns_has_a_gradient(transformer: Build, arm: str, stage: float) -> None:
    gradient_of = gradients(transformer(**shape(arm)).double(), stage, auxiliary=True, lm=True)
    indexers = {name: gradient for name, gradient in gradient_of.items() if ".indexer." in name}
    assert len(indexers) == 8
    for name, gradient in gradient_of.items():
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().max() > 0, name


@pytest.mark.parametrize("stage", [0.0, 0.9])
def test_the_kl_indexer_learns_from_its_loss_alone_and_nothing_else_does(transformer: Build, stage: float) -> None:
    model = transformer(**shape("kl")).double()
    for name, gradient in gradients(model, stage, auxiliary=False, lm=True).items():
        assert (gradient is None or not gradient.any()) == (".indexer." in name), name
    for name, gradient in gradients(model, stage, auxiliary=True, lm=False).items():
        assert (gradient is not None and bool(gradient.any())) == (".indexer." in name), name


@pytest.mark.parametrize("budget", [{"kind": "fixed", "k": 4}, PUBLISHED])
def test_as_published_nothing_reaches_the_indexer(transformer: Build, budget: dict[str, Any]) -> None:
    mixer = gsa(indexer={"kind": "as_published", "width": 5}, budget=budget)
    model = transformer(mixer=mixer)
    gradient_of = gradients(model, 0.0, auxiliary=True, lm=True)
    assert not [name for name in gradient_of if ".indexer." in name]
    frozen = {name: tensor for name, tensor in model.state_dict().items() if ".indexer." in name}
    assert len(frozen) == 8
    assert not any(tensor.requires_grad for tensor in frozen.values())
    # its random draw equals the initial weights of an arm that learns
    torch.manual_seed(0)
    first = transformer(mixer=mixer).state_dict()
    torch.manual_seed(0)
    learned = transformer(mixer=gsa(indexer={"kind": "kl", "width": 5})).state_dict()
    assert all(torch.equal(first[name], tensor) for name, tensor in learned.items())


@pytest.mark.parametrize("stage", [0.0, 0.9])
def test_the_loss_is_the_divergence_from_attention(
    model_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, stage: float
) -> None:
    mixer, _ = one(model_spec, "learned", **gsa(indexer={"kind": "kl", "width": 5, "weight": 3.0}, gates="none"))
    monkeypatch.setattr(query_chunks, "ELEMENTS", 200)  # compute a few queries at a time
    mixer.selector.before_update(stage)
    x_1TD = torch.randn(1, 9, 24, dtype=torch.float64)
    with record_selections(mixer) as record:
        mixer(x_1TD, TokenBatch.of(torch.zeros(1, 9)))
    query_TNh, key_TKh, _ = mixer.query_key_value(x_1TD[0]).unflatten(-1, (-1, 6)).split((4, 2, 2), dim=1)
    index = mixer.selector.indexer
    (asked_1TJi, gate_1TJ), (key_1Ti,) = index.features(x_1TD)
    score_TS = torch.einsum(
        "tj,tjs->ts",
        gate_1TJ[0],
        (torch.einsum("tji,si->tjs", asked_1TJi[0], key_1Ti[0]) + index.bias_J[:, None]).sigmoid(),
    )
    expected = []
    for t in range(9):
        seen = torch.arange(t + 1)
        if stage == 0.9:
            seen = score_TS[t, : t + 1].topk(min(4, t + 1)).indices
        logit_Ns = torch.stack([key_TKh[seen, head // 2] @ query_TNh[t, head] / 6**0.5 for head in range(4)])
        p_s, q_s = logit_Ns.softmax(-1).mean(0), score_TS[t, seen].softmax(-1)
        expected.append(3.0 * (p_s * (p_s / q_s).log()).sum())
    assert record["selector"].loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-9)


@pytest.mark.parametrize("arm", ARMS)
def test_reports_its_choice_by_distance(transformer: Build, arm: str) -> None:
    model = transformer(**shape(arm)).double().eval()
    with torch.no_grad(), record_selections(model) as record:
        model(torch.randint(50, (2, 16)))
    for selection in record.values():
        assert selection.probs_NS.shape == (32, 6)  # bins: the first token; distances 0, 1, 2-3, 4-7, 8-15
        for rows_NS in (selection.probs_NS, selection.chosen_NS, selection.null_NS):
            torch.testing.assert_close(rows_NS.sum(-1).float(), torch.ones(32))
        # query 11 sees the first token and 11 others: 1 at 0, 1 at 1, 2 at 2-3, 4 at 4-7, 3 at 8-10
        torch.testing.assert_close(selection.null_NS[11].float(), torch.tensor([1.0, 1, 1, 2, 4, 3]) / 12)
        assert selection.token_N.tolist() == list(range(32))
        assert (selection.probs_NS[selection.null_NS.expand(32, -1) == 0] == 0).all()
        if arm == "window":
            expected_S = torch.tensor([0.0, 1, 1, 2, 0, 0]) / 4
            torch.testing.assert_close(selection.chosen_NS[11].float(), expected_S)
            torch.testing.assert_close(selection.probs_NS[11].float(), expected_S)


def test_padding_is_no_decision_and_has_no_loss(transformer: Build) -> None:
    model = transformer(**shape("kl"))
    sparse_stage(model)
    tokens = TokenBatch.of(torch.randint(50, (2, 8)))
    real_BT = torch.tensor([[True] * 8, [True] * 5 + [False] * 3])
    padded = dataclasses.replace(tokens, index_BT=tokens.index_BT.where(real_BT, -1))
    mixer, x_BTD = model.blocks[0].mixer, torch.randn(2, 8, 24)
    losses = []
    for input_BTD in (x_BTD, x_BTD + 5 * torch.randn(2, 8, 24) * ~real_BT.unsqueeze(-1)):
        with record_selections(mixer.train()) as record:
            mixer(input_BTD, padded)
        losses.append(record["selector"].loss)
        with record_selections(mixer.eval()) as record:
            mixer(input_BTD, padded)
        assert record["selector"].token_N.tolist() == [*range(8), *range(8, 13)]
    torch.testing.assert_close(losses[0], losses[1])


def collected_metrics(model: nn.Module, *inputs: Any) -> dict[str, float]:
    with torch.no_grad(), collect_metrics(model) as meter:
        model(*inputs)
    return {name: mean for (_, name, at), mean in meter.means().items() if at is None}


@torch.no_grad()
def test_measures_recall_sinks_and_gates(model_spec: Callable[..., Any]) -> None:
    x_1TD, tokens = torch.randn(1, 12, 24, dtype=torch.float64), TokenBatch.of(torch.zeros(1, 12))
    metrics_of = {}
    for arm in ("as_published", "window", "oracle"):
        mixer, _ = one(model_spec, "learned", **gsa(**ARMS[arm], gates="none"))
        torch.manual_seed(1)
        for parameter in mixer.query_key_value.parameters():
            parameter.data.normal_(0, 0.5)
        metrics_of[arm] = collected_metrics(mixer.eval(), x_1TD, tokens)
    query_TNh, key_TKh, _ = mixer.query_key_value(x_1TD[0]).unflatten(-1, (-1, 6)).split((4, 2, 2), dim=1)
    logit_NTS = torch.einsum("tnh,snh->nts", query_TNh, key_TKh.repeat_interleave(2, 1)) / 6**0.5
    mass_TS = logit_NTS.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf).softmax(-1).mean(0)
    recall = mass_TS[4:].topk(4).values.sum(-1).mean()
    assert metrics_of["oracle"]["recall"] == pytest.approx(float(recall), rel=1e-9)
    latest = torch.stack([mass_TS[t, t - 3 : t + 1].sum() for t in range(4, 12)]).mean()
    assert metrics_of["window"]["recall"] == pytest.approx(float(latest), rel=1e-9)
    assert metrics_of["as_published"]["recall"] < metrics_of["oracle"]["recall"]
    # with a window of four, only queries 1 to 3 see the first token
    near_NTS = logit_NTS[:, 1:4, :4].masked_fill(torch.ones(3, 4).triu(2).bool(), -torch.inf).softmax(-1)
    assert metrics_of["window"]["first_token_share"] == pytest.approx(
        float(near_NTS[:, :, 0].mean(0).sum()) / 11, rel=1e-9
    )
    assert metrics_of["window"]["k_mean"] == pytest.approx((1 + 2 + 3 + 9 * 4) / 12)
    dense, _ = one(model_spec, "learned", kind="attention", num_kv_heads=2)
    dense.load_state_dict(mixer.state_dict(), strict=False)
    metrics = collected_metrics(dense, x_1TD, tokens)
    assert metrics["first_token_share"] == pytest.approx(float(mass_TS[1:, 0].mean()), rel=1e-9)
    assert metrics["largest_activation"] == pytest.approx(float(dense(x_1TD, tokens).abs().max()))
    # the context's first token skipped the layer, so it is not there
    assert (
        collected_metrics(dense, x_1TD, tokens.select(torch.arange(12)[None]))["first_token_share"]
        == metrics["first_token_share"]
    )
    assert collected_metrics(dense, x_1TD[:, 1:], tokens.select(torch.arange(1, 12)[None]))["first_token_share"] == 0
    gated = collected_metrics(one(model_spec, "learned", **gsa(**ARMS["kl"]))[0].eval(), x_1TD, tokens)
    assert {"value_gate", "output_gate"} <= set(gated)


@torch.no_grad()
def test_a_sink_is_measured_in_portions_and_where_exponentials_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    query_BTNh, key_BTKh = torch.randn(3, 10, 4, 6), torch.randn(3, 10, 2, 6)
    query_BTNh[1, 5], key_BTKh[1, 3] = 300.0, 300.0
    position_BT = torch.arange(10).expand(3, -1)
    asked = AttentionInputs(query_BTNh, key_BTKh, (), (), position_BT, position_BT, None, None)
    mass_BTS = asked.mass(asked.visible())
    for elements in (10**6, 3 * 10 * 4 * 4):
        monkeypatch.setattr(query_chunks, "ELEMENTS", elements)
        torch.testing.assert_close(first_key_share(asked), mass_BTS[:, :, 0])
    assert mass_BTS[1, 5, 0] == 0


def test_an_attention_that_sees_both_ways_measures_its_sink(model_spec: Callable[..., Any]) -> None:
    model = model_spec(mixer={"num_heads": 4}, causal=False)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50)).double()
    metrics = collected_metrics(mixer, torch.zeros(1, 8, 24, dtype=torch.float64), TokenBatch.of(torch.zeros(1, 8)))
    assert metrics["first_token_share"] == pytest.approx(1 / 8)


@pytest.mark.parametrize(("gates", "names"), [("none", set()), ("value", {"value"}), ("output", {"output"})])
def test_gates_begin_half_open(transformer: Build, gates: str, names: set[str]) -> None:
    mixer = transformer(mixer=gsa(**ARMS["kl"], gates=gates), init_std=0.02).blocks[0].mixer
    assert {name.removesuffix("_gate") for name, _ in mixer.named_children() if "gate" in name} == names
    for name in names:
        gate = getattr(mixer, f"{name}_gate")
        assert gate.weight.shape[0] == (24 if name == "output" else 12)
        open_BTD = gate(torch.randn(100, 24))
        assert abs(open_BTD.mean() - 0.622) < 0.01 and open_BTD.std() < 0.05


class Largest(TorchDispatchMode):
    """Record the bytes of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.nbytes = max(self.nbytes, each.untyped_storage().nbytes())
        return made


@pytest.mark.parametrize("arm", ["as_published", "kl", "soft", "window", "kl_running"])
@pytest.mark.parametrize("asked", ["the prompt", "a token"])
def test_decoding_makes_no_tensor_that_grows_faster_than_the_text(
    model_spec: Callable[..., Any], arm: str, asked: str
) -> None:
    model = model_spec(mixer=gsa(**ARMS[arm]), context=2048)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50)).eval()
    sparse_stage(mixer)

    @torch.no_grad()
    def largest(length: int) -> int:
        cache = Cache()

        def read(count: int) -> int:
            tokens = TokenBatch.of(torch.zeros((1, count), dtype=torch.long), cache=cache)
            with Largest() as made:
                mixer(torch.randn(1, count, 24), tokens)
            cache.length += count
            return made.nbytes

        of_prompt = read(length - 1)
        return of_prompt if asked == "the prompt" else read(1)

    short, long = largest(512), largest(2048)
    assert long <= 4 * short * 1.01


@pytest.mark.parametrize("arm", ["as_published", "kl", "soft", "window", "kl_running"])
def test_memory_kept_grows_with_the_tokens(model_spec: Callable[..., Any], arm: str) -> None:
    model = model_spec(mixer=gsa(**ARMS[arm]), context=2048)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50))
    sparse_stage(mixer)

    def kept(length: int) -> int:
        tokens = TokenBatch.of(torch.zeros((1, length), dtype=torch.long))
        return count_kept_bytes(mixer.train(), torch.randn(1, length, 24).requires_grad_(), tokens)

    short, middle, long = kept(512), kept(1024), kept(2048)
    assert long - middle == pytest.approx(2 * (middle - short), rel=0.01)
    assert long == pytest.approx(4 * short, rel=0.02)


def test_the_warm_up_keeps_no_table_of_scores(model_spec: Callable[..., Any]) -> None:
    model = model_spec(mixer=gsa(**ARMS["kl"]), context=512)
    mixer = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, 50))
    largest = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal largest
        largest = max(largest, tensor.untyped_storage().nbytes())
        return tensor

    x_BTD = torch.randn(1, 512, 24, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), record_selections(mixer) as record:
        y_BTD = mixer(x_BTD, TokenBatch.of(torch.zeros((1, 512), dtype=torch.long)))
    (y_BTD.sum() + record["selector"].loss).backward()
    assert largest < 512 * 512 * 4


def test_its_flops_are_those_of_the_chosen_and_of_the_ranking(model_spec: Callable[..., Any]) -> None:
    heads, width, k, length = 4, 5, 4, 16
    a_key = 2 * heads * width + 2 * heads
    for arm, learning_flops in (("as_published", 0), ("kl", k * a_key)):
        options = gsa(**{**ARMS[arm], "indexer": {**ARMS[arm]["indexer"], "heads": heads}})
        mixer, _ = one(model_spec, **options)
        assert mixer.num_flops(length) == pytest.approx(4 * k * 24 + length * a_key / 3 + learning_flops)
    assert one(model_spec, **gsa(**ARMS["window"]))[0].num_flops(length) == 4 * k * 24


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        (gsa(indexer="window", budget={"kind": "fixed", "k": 17}), "k: 17 keys of a context of 16"),
        (gsa(indexer="window", budget={"kind": "fixed", "k": 0}), "greater than or equal to 1"),
        (gsa(indexer="window", budget=RUNNING), "budget: running goes by an indexer's scores, and window has none"),
        (gsa(indexer="kl", budget={**RUNNING, "k_min": 7}), "needs k_min <= k <= k_max, not 7, 4, 6"),
        (gsa(indexer="kl", budget={**RUNNING, "k_max": 17}), "k_max: 17 keys of a context of 16"),
        (gsa(indexer="kl", budget={**PUBLISHED, "non_causal": False}), "later tokens included"),
        (gsa(indexer="kl", num_heads=5), "5 heads do not divide a width of 24"),
    ],
)
def test_what_cannot_be_is_refused(model_spec: Callable[..., Any], mixer: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        model_spec(mixer=mixer)


def test_it_serves_no_model_that_sees_both_ways(model_spec: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="gsa sees only what came before"):
        model_spec(mixer=gsa(indexer="kl"), causal=False)


def selections(model: Transformer, token_BT: Tensor) -> list[Selection]:
    with torch.no_grad(), record_selections(model) as record:
        model(token_BT)
    return list(record.values())


@pytest.mark.parametrize("arm", ["kl_running", "soft_running"])
def test_how_many_keys_depends_on_what_came_before_alone(transformer: Build, arm: str) -> None:
    model = transformer(**shape(arm)).eval()
    token_BT = torch.randint(50, (3, 16))
    chosen_NS = selections(model, token_BT)[0].chosen_NS.view(3, 16, -1)
    longer = selections(model, token_BT[:1, :9])[0].chosen_NS
    torch.testing.assert_close(chosen_NS[0, :9], longer)
