"""Test each option of how a run computes against the plain path."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speciate.config.components import component_module
from speciate.config.run import RunSpec
from speciate.model.block import Block
from speciate.model.transformer import Transformer
from speciate.selection.selection import record_selections, selectors
from speciate.training import loop
from speciate.training.checkpoint.state import State
from speciate.training.context import TrainContext
from speciate.training.numerics import precision as arithmetic

VOCABULARY, LENGTH = 64, 16
BIAS = {"kind": "bias", "rate": 0.01}
DENSE = {"kind": "dense", "hidden": 16}
MakeRun = Callable[..., RunSpec]
# dynamo looks at .grad of a non-leaf tensor, and hides the warning only from the log
compiling = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


def prepared(spec: RunSpec, backend: str = "aot_eager") -> tuple[TrainContext, State]:
    """Set up a run of the small spec on random blocks as its spec says, without an observer."""
    torch.manual_seed(spec.seed)
    model = Transformer(spec.model, VOCABULARY)
    optimizer = component_module(spec.optimizer).build(spec.optimizer, model)
    arithmetic.prepare_blocks(spec.training, model, backend)

    def tokens(step: int) -> Tensor:
        return torch.randint(VOCABULARY, (4, LENGTH), generator=torch.Generator().manual_seed(step))

    objective = component_module(spec.objective).Objective(spec.objective)
    context = TrainContext(spec=spec, objective=objective, lr_factor=lambda step: 1.0, tokens=tokens, observer=None)  # type: ignore[arg-type]
    return context, State(0, model, optimizer, [], {})


def trained(spec: RunSpec, num_steps: int = 4, backend: str = "aot_eager") -> tuple[State, list[dict[str, float]]]:
    context, state = prepared(spec, backend)
    rows = []
    for _ in range(num_steps):
        rows.append(loop.train_step(context, state))
        state.step += 1
    return state, rows


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


@pytest.mark.parametrize(
    "change",
    [{}, {"ffn": {"top_k": 2, "balance": BIAS}}, {"ffn": DENSE}],
    ids=["auxiliary", "bias", "dense"],
)
def test_recomputed_activations_change_no_bit(run_spec: MakeRun, change: dict[str, Any]) -> None:
    results = []
    for again in (False, True):
        training = {"activation_checkpointing": again, "grad_accumulation": 2}
        results.append(trained(run_spec(model={"block": change}, training=training)))  # with noise in the router
    assert results[0][1] == results[1][1]
    assert_same_bits(results[0][0].model, results[1][0].model)


def test_a_recomputed_block_runs_twice_and_is_recorded_and_counted_once(run_spec: MakeRun) -> None:
    context, state = prepared(
        run_spec(training={"activation_checkpointing": True}, model={"block": {"ffn": {"balance": BIAS}}})
    )
    calls: list[str] = []
    for path, selector in selectors(state.model).items():
        selector.register_forward_hook(lambda module, args, output, path=path: calls.append(path))
    with record_selections(state.model) as record:  # open while the backward pass recomputes
        context.objective(state.model, context.tokens(0)).backward()
    paths = ["blocks.0.ffn.router", "blocks.1.ffn.router"]
    assert sorted(calls) == sorted(paths * 2)
    assert list(record) == paths
    for selector in selectors(state.model).values():
        assert selector.balance.load_S.sum() == 4 * LENGTH


def test_recomputation_keeps_less(run_spec: MakeRun) -> None:
    kept = []
    for again in (False, True):
        context, state = prepared(run_spec(training={"activation_checkpointing": again}))
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            context.objective(state.model, context.tokens(0))
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


def test_observing_recomputes_nothing(run_spec: MakeRun) -> None:
    context, state = prepared(run_spec(training={"activation_checkpointing": True}))
    with torch.no_grad(), record_selections(state.model) as record:
        state.model.hidden(context.tokens(0))
    assert len(record) == 2


@pytest.mark.parametrize("change", [{}, {"ffn": DENSE}], ids=["moe", "dense"])
def test_bfloat16_is_close_and_keeps_float32_where_it_counts(run_spec: MakeRun, change: dict[str, Any]) -> None:
    gradients, rows = [], []
    for precision in ("float32", "bfloat16"):
        block = change or {"ffn": {"router": {"noise_std": 0.0}}}
        context, state = prepared(
            run_spec(model={"block": block}, training={"precision": precision, "max_grad_norm": 1e9})
        )
        seen: set[torch.dtype] = set()
        for module in state.model.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(lambda module, args, output, seen=seen: seen.add(output.dtype))
        kept: dict[str, Tensor] = {}
        step = state.optimizer.step

        def stepping(step: Any = step, model: nn.Module = state.model, kept: dict[str, Tensor] = kept) -> None:
            kept.update({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
            step()

        state.optimizer.step = stepping  # type: ignore[method-assign]
        rows.append(loop.train_step(context, state))
        assert seen == {getattr(torch, precision)}
        for parameter in state.model.parameters():
            assert parameter.dtype == torch.float32
        for gradient in kept.values():
            assert gradient.dtype == torch.float32
        gradients.append(torch.cat([gradient.flatten() for gradient in kept.values()]))
    assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=5e-3)
    assert rows[0] != rows[1]
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.99
    assert 0.97 < gradients[1].norm() / gradients[0].norm() < 1.03


def test_routing_and_loss_are_float32_under_autocast(run_spec: MakeRun) -> None:
    spec = run_spec(training={"precision": "bfloat16"})
    context, state = prepared(spec)
    token_BT = context.tokens(0)
    state.model.eval()
    with torch.no_grad(), arithmetic.autocast(spec.training, torch.device("cpu")):
        with record_selections(state.model) as record:
            loss = context.objective(state.model, token_BT)
        logit_BTV = state.model(token_BT)
    assert logit_BTV.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    # apart from the rounding of the logits, the loss is what float32 computes from them
    expected = F.cross_entropy(logit_BTV[:, :-1].float().flatten(0, 1), token_BT[:, 1:].flatten())
    # chunked products may round single logits to the other bfloat16 neighbour: 1/256 of .1, averaged over 60 losses; a
    # loss rounded to bfloat16 would be off by 1/200 or more
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-3)
    for selection in record.values():
        assert selection.probs_NS.dtype == selection.loss.dtype == torch.float32


@compiling
@pytest.mark.parametrize("change", [{}, {"ffn": DENSE}], ids=["moe", "dense"])
@pytest.mark.parametrize("again", [False, True])
def test_compiled_parts_keep_selectors_seen_and_the_numbers(
    run_spec: MakeRun, change: dict[str, Any], again: bool
) -> None:
    results, counted = [], []
    for compiled in (False, True):
        torch.compiler.reset()
        training = {"compile": compiled, "activation_checkpointing": again}
        context, state = prepared(run_spec(model={"block": change}, training=training))
        with record_selections(state.model) as record:
            context.objective(state.model, context.tokens(0)).backward()
        state.optimizer.zero_grad()
        counted.append({path: selection.chosen_NS.sum(0).tolist() for path, selection in record.items()})
        results.append([loop.train_step(context, state)["loss"] for _ in range(2)])
        with arithmetic.uncompiled(context.spec.training), torch.no_grad(), record_selections(state.model) as record:
            state.model.hidden(context.tokens(0)[:3])  # another shape, for which there is no graph
        assert len(record) == (0 if change else 2)
        names = {name for name, _ in state.model.named_parameters()}
        assert not any("_orig_mod" in name for name in names)
    assert counted[0] == counted[1]
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_no_selector_is_inside_what_is_compiled(run_spec: MakeRun) -> None:
    for change in ({}, {"ffn": DENSE}):
        _, state = prepared(run_spec(model={"block": change}))
        for block in state.model.blocks:
            assert isinstance(block, Block)
            parts = arithmetic.compilable_modules(block)
            assert parts == ([block.depth] if change else [block.mixer])


@compiling
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.slow
def test_compiled_by_inductor_the_loss_is_close(run_spec: MakeRun) -> None:
    rows = []
    for compiled in (False, True):
        torch.compiler.reset()
        spec = run_spec(model={"block": {"ffn": DENSE}}, training={"compile": compiled})
        rows.append([row["loss"] for row in trained(spec, backend="inductor")[1]])
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)


def test_deterministic_algorithms_are_on_for_the_run_alone(run_spec: MakeRun) -> None:
    plain = trained(run_spec())
    spec = run_spec(training={"deterministic": True})
    with arithmetic.determinism(spec.training):
        assert torch.are_deterministic_algorithms_enabled()
        strict = trained(spec)
    assert not torch.are_deterministic_algorithms_enabled()
    with arithmetic.determinism(run_spec().training):
        assert not torch.are_deterministic_algorithms_enabled()
    assert plain[1] == strict[1]
    assert_same_bits(plain[0].model, strict[0].model)


def test_gradient_norms_of_each_selector_when_asked(run_spec: MakeRun) -> None:
    assert set(trained(run_spec(), 1)[1][0]) == {"loss", "auxiliary", "grad_norm", "lr"}
    context, state = prepared(run_spec(telemetry={"gradient_norms": True}))
    routers = [block.ffn.router.scorer.weight for block in state.model.blocks]
    kept: list[float] = []
    for weight in routers:  # before clipping
        weight.register_post_accumulate_grad_hook(lambda weight: kept.append(float(weight.grad.square().sum().sqrt())))
    row = loop.train_step(context, state)
    assert [row[f"grad_norm/blocks.{layer}.ffn.router"] for layer in (1, 0)] == pytest.approx(kept)
    assert all(norm > 0 for norm in kept)


def test_a_router_that_learns_nothing_has_no_gradient_norm(run_spec: MakeRun) -> None:
    spec = run_spec(
        telemetry={"gradient_norms": True}, model={"block": {"ffn": {"router": "frozen", "balance": "none"}}}
    )
    assert set(trained(spec, 1)[1][0]) == {"loss", "auxiliary", "grad_norm", "lr"}


@pytest.mark.parametrize(
    ("instructions", "units", "expected"),
    [
        ("AVX512", {"avx512_bf16": True}, "bfloat16"),
        ("AVX512", {"amx_bf16": True}, "bfloat16"),
        ("AVX512", {"avx512_bf16": False}, "float32"),
        ("AVX512", {}, "float32"),
        # held to older instructions, as `make replication` does
        ("AVX2", {"avx512_bf16": True}, "float32"),
    ],
)
def test_native_precision_is_bfloat16_where_the_processor_multiplies_it(
    run_spec: MakeRun, monkeypatch: pytest.MonkeyPatch, instructions: str, units: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    settings = run_spec(training={"precision": "native"}).training
    assert arithmetic.computed_in(settings, torch.device("cpu")) == expected
    with arithmetic.autocast(settings, torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, expected)
    for precision in ("float32", "bfloat16"):
        assert (
            arithmetic.computed_in(run_spec(training={"precision": precision}).training, torch.device("cpu"))
            == precision
        )
