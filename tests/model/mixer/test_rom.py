"""Test Routing Mamba against Mamba and its definition, decoded token by token, and what each arm promises."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from speciate.config.components import component_module, options_of
from speciate.model.cache import Cache
from speciate.model.moe.top_k_router import TopK
from speciate.model.token_batch import BuildContext, TokenBatch
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.selection import record_selections, selectors

Spec = Callable[..., Any]
WIDTH, INNER, VOCABULARY = 24, 48, 50
DENSE = {"kind": "dense", "hidden": 40}
ROM = {"kind": "rom", "state": 3, "router": "learned", "balance": "none", "z_weight": 0.0}
ARMS = ["shared", "independent", "as_published"]


def block(**options: Any) -> dict[str, Any]:
    return {"mixer": {**ROM, **options}, "ffn": DENSE, "depth": "every"}


def decoder(model_spec: Spec, options: dict[str, Any], **changes: Any) -> Transformer:
    settings = {"block": block(**options), "init_std": 0.3, "embedding_std": 0.3, "position": "rotary", **changes}
    return Transformer(model_spec(**settings), VOCABULARY).double().eval()


def mixer_of(model_spec: Spec, mixer: dict[str, Any], biases: bool = True) -> Any:
    model = model_spec(block={"mixer": mixer, "ffn": DENSE, "depth": "every"}, biases=biases)
    built = component_module(model.block.mixer).Mixer(model.block.mixer, BuildContext(model, 0, VOCABULARY)).double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(0.0, 0.3)
    return built


def tokens(num_blocks: int = 2, length: int = 9) -> TokenBatch:
    return TokenBatch.of(torch.zeros(num_blocks, length, dtype=torch.long))


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize("routed", ARMS)
def test_one_expert_is_mamba(model_spec: Spec, routed: str, biases: bool) -> None:
    rom = mixer_of(model_spec, {**ROM, "num_experts": 1, "routed": routed}, biases)
    mamba = mixer_of(model_spec, {"kind": "mamba", "state": 3}, biases)

    def of_mamba(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name RoM's weights, or their gradients, as Mamba names them."""
        if routed == "as_published":
            return {name.replace("experts.0.", ""): value for name, value in weights.items() if "router" not in name}
        renamed = {name: value for name, value in weights.items() if ".space." in name}
        for kind in ("weight", "bias") if biases else ("weight",):
            both = [weights[f"mamba.{part}.{kind}"][0] for part in ("input", "gate")]
            renamed[f"mamba.input.{kind}"] = torch.cat(both, dim=-1).t() if kind == "weight" else torch.cat(both)
            renamed[f"mamba.out.{kind}"] = weights[f"mamba.out.{kind}"][0].t()
        return renamed

    mamba.load_state_dict(of_mamba({name: value.detach() for name, value in rom.named_parameters()}))
    x_BTD = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    gradient_BTD = torch.randn_like(x_BTD)
    found = []
    for mixer in (rom, mamba):
        own_BTD = x_BTD.clone().requires_grad_()
        y_BTD = mixer(own_BTD, tokens())
        y_BTD.backward(gradient_BTD)
        found.append((y_BTD, own_BTD.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    gradients = of_mamba({n: p.grad for n, p in rom.named_parameters() if p.grad is not None})
    for name, parameter in mamba.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("routed", ["shared", "independent"])
def test_a_projection_is_the_sum_over_a_tokens_own_experts(model_spec: Spec, routed: str, top_k: int) -> None:
    mixer = mixer_of(model_spec, {**ROM, "top_k": top_k, "routed": routed})
    x_BTD = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    routers = {name: path for path, name in mixer.router.items()} if routed == "independent" else {}

    def projected(part: str, linears: Any, x_BTE: Tensor) -> Tensor:
        scorer = (mixer.router[part] if routers else mixer.router).scorer
        rows = []
        for token_D, x_E in zip(x_BTD.flatten(0, 1), x_BTE.flatten(0, 1), strict=True):
            probs_S = (scorer.weight @ token_D).softmax(-1)
            best_K = probs_S.argsort(descending=True)[:top_k]
            share = probs_S[best_K].sum()
            mixed = [probs_S[e] / share * (x_E @ linears.weight[e] + linears.bias[e]) for e in best_K.tolist()]
            rows.append(torch.stack(mixed).sum(0))
        return torch.stack(rows).view(2, 9, -1)

    u_BTI = projected("input", mixer.mamba.input, x_BTD)
    gate_BTI = projected("gate", mixer.mamba.gate, x_BTD)
    y_BTI, _ = mixer.mamba.space(u_BTI, tokens(), None)
    expected_BTD = projected("output", mixer.mamba.out, y_BTI * F.silu(gate_BTI))
    torch.testing.assert_close(mixer(x_BTD, tokens()), expected_BTD, rtol=1e-11, atol=1e-11)


def test_as_published_every_block_runs_on_every_token(model_spec: Spec) -> None:
    mixer = mixer_of(model_spec, {**ROM, "top_k": 2, "routed": "as_published"})
    x_BTD = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    seen: list[torch.Size] = []
    for expert in mixer.mamba.experts:
        expert.register_forward_hook(lambda module, args, output: seen.append(args[0].shape))
    y_BTD = mixer(x_BTD, tokens())
    assert seen == [x_BTD.shape] * 4
    probs_BTS = (x_BTD @ mixer.router.scorer.weight.T).softmax(-1)
    second_BT1 = probs_BTS.sort(-1).values[..., -2:-1]
    share_BTS = F.normalize(probs_BTS * (probs_BTS >= second_BT1), p=1, dim=-1)
    each = torch.stack([expert(x_BTD, tokens(), None)[0] for expert in mixer.mamba.experts], dim=-1)
    torch.testing.assert_close(y_BTD, (each * share_BTS.unsqueeze(2)).sum(-1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("routed", "top_k"), [(routed, top_k) for routed in ARMS for top_k in (1, 2)])
def test_the_language_modelling_loss_teaches_every_router(model_spec: Spec, routed: str, top_k: int) -> None:
    model = decoder(model_spec, {"routed": routed, "top_k": top_k}).train()
    options = options_of("training/objective", "causal")(kind="causal")
    component_module(options).Objective(options)(model, torch.randint(VOCABULARY, (4, 16))).backward()
    found = selectors(model)
    assert len(found) == (6 if routed == "independent" else 2)
    for router in found.values():
        assert isinstance(router, TopK)
        gradient = router.scorer.weight.grad
        # as published, the single weight is renormalised to 1, so the loss has no gradient for the router
        assert bool(gradient.any()) == (routed != "as_published" or top_k == 2)


def test_a_frozen_router_teaches_and_learns_nothing(model_spec: Spec) -> None:
    mixer = mixer_of(model_spec, {**ROM, "router": "frozen"})
    mixer.router.scorer.weight.normal_()
    x_BTD = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    mixer(x_BTD, tokens()).square().sum().backward()
    assert not list(mixer.router.parameters())
    assert all(parameter.grad is not None for parameter in mixer.parameters())


@pytest.mark.parametrize("routed", ARMS)
def test_one_decision_a_router_is_reported(model_spec: Spec, routed: str) -> None:
    model = decoder(model_spec, {"routed": routed, "top_k": 2, "balance": "auxiliary"})
    with record_selections(model) as record:
        model(torch.randint(VOCABULARY, (2, 9)))
    parts = [f".{name}" for name in ("input", "gate", "output")] if routed == "independent" else [""]
    assert list(record) == [f"blocks.{layer}.mixer.router{part}" for layer in range(2) for part in parts]
    for selection in record.values():
        assert torch.equal(selection.token_N, torch.arange(18))
        assert selection.probs_NS.shape == selection.chosen_NS.shape == (18, 4)
        torch.testing.assert_close(selection.null_NS, torch.full((1, 4), 0.25, dtype=torch.float64))
        assert selection.loss > 0


@pytest.mark.parametrize("parts", [[1] * 11, [4, 1, 6]])
@pytest.mark.parametrize("routed", ARMS)
def test_with_a_cache_equals_the_full_forward(model_spec: Spec, routed: str, parts: list[int]) -> None:
    model = decoder(model_spec, {"routed": routed, "top_k": 2})
    token_BT = torch.randint(VOCABULARY, (3, 11))
    cache = Cache()
    read = [model.head(model.read(TokenBatch.of(part_BT, cache=cache))) for part_BT in token_BT.split(parts, dim=1)]
    torch.testing.assert_close(torch.cat(read, dim=1), model(token_BT), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("routed", ARMS)
def test_documents_are_computed_as_if_they_were_alone(model_spec: Spec, routed: str) -> None:
    model = decoder(model_spec, {"routed": routed, "top_k": 2}, separate_documents=True)
    token_BT = torch.randint(VOCABULARY, (1, 16))
    packed_BTV = model(token_BT, torch.tensor([[3] * 5 + [8] + [1] * 10]))
    for part in (slice(0, 5), slice(5, 6), slice(6, 16)):
        torch.testing.assert_close(packed_BTV[:, part], model(token_BT[:, part]), rtol=0, atol=1e-11)


def test_a_token_uses_its_own_experts_alone(model_spec: Spec) -> None:
    def counts(mixer: dict[str, Any]) -> tuple[int, int]:
        return count_parameters(mixer_of(model_spec, mixer))

    total, active = counts({"kind": "mamba", "state": 3})
    assert total == active
    router = 4 * WIDTH
    projections = 2 * (WIDTH + 1) * INNER + (INNER + 1) * WIDTH
    for top_k in (1, 2, 4):
        own = {**ROM, "top_k": top_k}
        assert counts(own) == (total + router + 3 * projections, total + router + (top_k - 1) * projections)
        assert counts({**own, "routed": "independent"})[1] == total + 3 * router + (top_k - 1) * projections
        assert counts({**own, "routed": "as_published"}) == (4 * total + router,) * 2


def test_arms_of_one_seed_begin_with_the_same_values(model_spec: Spec) -> None:
    weights: dict[str, dict[str, Tensor]] = {}
    for arm, options in {
        "shared": {},
        "frozen": {"router": "frozen"},
        "independent": {"routed": "independent"},
    }.items():
        torch.manual_seed(7)
        weights[arm] = decoder(model_spec, options).state_dict()
    torch.manual_seed(7)
    mamba = {"mixer": {"kind": "mamba", "state": 3}, "ffn": DENSE, "depth": "every"}
    dense = decoder(model_spec, {}, block=mamba).state_dict()
    assert weights["shared"].keys() == weights["frozen"].keys()
    for name, value in weights["shared"].items():
        assert torch.equal(value, weights["frozen"][name]), name
        if ".router." not in name:
            assert torch.equal(value, weights["independent"][name]), name
        if ".space." in name:
            assert torch.equal(value, dense[name]), name


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"state": 0}, {}, "state: input should be greater than or equal to 1, not 0"),
        ({"top_k": 5}, {}, "top_k: cannot choose 5 of 4 experts"),
        ({"num_experts": 0}, {}, "num_experts: input should be greater than or equal to 1, not 0"),
        ({"expand": 1.3}, {}, "expand: 1.3 times a width of 24 is no whole number of channels"),
        ({"step_rank": 49}, {}, "step_rank: 49 is more than 48 channels"),
        ({"router": "hash", "top_k": 2}, {}, "router hash names one expert for each token"),
        ({"router": "frozen", "balance": "auxiliary"}, {}, "auxiliary acts by the gradient, which cannot move router"),
        ({"routed": "all"}, {}, "routed: input should be 'shared', 'independent' or 'as_published', not 'all'"),
        ({}, {"causal": False}, "rom sees only what came before; it cannot serve causal: false"),
    ],
)
def test_impossible_ones_are_refused(
    model_spec: Spec, options: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="validation error for Model") as caught:
        model_spec(block=block(**options), **changes)
    assert message in str(caught.value)


@pytest.mark.parametrize("mixer", [{"kind": "mamba"}, *({**ROM, "routed": routed} for routed in ARMS)], ids=str)
def test_it_trains_with_blocks_recomputed_and_in_bfloat16(model_spec: Spec, mixer: dict[str, Any]) -> None:
    settings = {"mixer": mixer, "ffn": DENSE, "depth": "every"}
    options = options_of("training/objective", "causal")(kind="causal")
    objective = component_module(options).Objective(options)
    token_BT = torch.randint(VOCABULARY, (4, 16))
    gradients: dict[str, dict[str, Tensor]] = {}
    for way in ("plain", "recomputed", "bfloat16"):
        torch.manual_seed(3)
        model = Transformer(model_spec(block=settings, separate_documents=True, init_std=0.2), VOCABULARY)
        for each in model.blocks:
            each.recompute = way == "recomputed"
        document_BT = (torch.arange(16) > 6).long().expand(4, -1)
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "bfloat16"):
            loss = objective(model, token_BT, document_BT)
        loss.backward()
        gradients[way] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert all(
            gradient.isfinite().all() and gradient.dtype == torch.float32 for gradient in gradients[way].values()
        )
    assert gradients["plain"].keys() == gradients["recomputed"].keys() == gradients["bfloat16"].keys()
    for name, gradient in gradients["plain"].items():
        assert torch.equal(gradients["recomputed"][name], gradient), name
    of_rate = "blocks.0.mixer.mamba.{}space.log_rate".format(
        "experts.0." if mixer.get("routed") == "as_published" else ""
    )
    torch.testing.assert_close(gradients["bfloat16"][of_rate], gradients["plain"][of_rate], rtol=0.3, atol=1e-4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = objective(model, token_BT, document_BT)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
