"""Run the ten integration checks of moe-emergence on every way a run can start, and test the refused starts.

The checks: installation, warm-start parity, shapes, what the router reports, bounds of its losses, its gradient, noise
in training alone, greedy generation, padding, and that every expert can be reached.
"""

import math
import pathlib
import tarfile
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from speciate.config.components import component_module
from speciate.config.extends import merge
from speciate.config.run import RunSpec, canonical_json
from speciate.evaluation.sampling import Sampling, generate
from speciate.model.hf.pretrained import Pretrained
from speciate.model.moe.top_k_router import load_balancing_loss, z_loss
from speciate.model.token_batch import TokenBatch
from speciate.model.transformer import Transformer, count_parameters
from speciate.selection.selection import record_selections, selectors
from speciate.training.checkpoint.weights import save_weights
from speciate.training.prepare import initial_model

VOCABULARY, CONTEXT, EXPERTS, HIDDEN = 64, 40, 4, 48
MOE_LAYERS = [1, 2]
DENSE: dict[str, Any] = {"kind": "dense", "hidden": HIDDEN, "activation": "gelu_tanh"}
MOE: dict[str, Any] = {
    "kind": "moe",
    "num_experts": EXPERTS,
    "hidden": HIDDEN,
    "activation": "gelu_tanh",
    "router": {"kind": "learned", "noise_std": 0.1, "noise_until": 0.25},
    "balance": "auxiliary",
}
LLAMA: dict[str, Any] = {"norm": "rms", "position": "rotary", "biases": False}


def run_spec(ablation: str, ffn: dict[str, Any], start: Any = "scratch", llama: bool = False) -> RunSpec:
    """Make a spec of GPT-2's or Llama's shape; layers 1 and 2 of 3 have the feed-forward layer `ffn`, 0 a dense one."""
    form = {"activation": "swiglu"} if llama else {}
    block = {"mixer": {"kind": "attention", "num_heads": 4}, "ffn": {**DENSE, **form}, "depth": "every"}
    other = {"layers": MOE_LAYERS, "block": {**block, "ffn": {**ffn, **form}}}
    model = {"width": 32, "num_layers": 3, "context": CONTEXT, "init_std": 0.1, "block": block, "exceptions": [other]}
    model |= LLAMA if llama else {}
    rest = {"objective": "causal", "optimizer": "adamw", "schedule": "cosine"}
    return RunSpec.model_validate({"ablation": ablation, "seed": 3, "model": model, "start": start, **rest})


@dataclass
class Started:
    """A model before its first step, and the model it started from."""

    run: RunSpec
    model: Transformer
    dense: Transformer | None
    noise: float
    drop: float


def of_run(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path]:
    run = run_spec("dense", DENSE)
    torch.manual_seed(17)
    folder = tmp_path / "dense"
    folder.mkdir()
    (folder / "spec.json").write_text(canonical_json(run))
    save_weights(Transformer(run.model, VOCABULARY), folder / "model.safetensors")
    return {"kind": "run", "ablation": "dense"}, folder / "model.safetensors"


def of_gpt2(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path]:
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=CONTEXT, n_embd=32, n_layer=3, n_head=4, n_inner=HIDDEN,
        bos_token_id=0, eos_token_id=0, initializer_range=0.1,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    return {"kind": "folder", "path": str(tmp_path / "gpt2")}, tmp_path / "gpt2"


def llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=HIDDEN, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=CONTEXT, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
        initializer_range=0.1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def of_llama(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path]:
    llama().save_pretrained(tmp_path / "llama")
    return {"kind": "folder", "path": str(tmp_path / "llama")}, tmp_path / "llama"


def of_archive(tmp_path: pathlib.Path) -> tuple[Any, pathlib.Path]:
    """Write a GGUF file in an archive, as SmolLM2's comes in a wheel."""
    theirs, file = llama(), tmp_path / "tiny.gguf"
    writer, names = gguf.GGUFWriter(file, "llama"), gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
    writer.add_block_count(3)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    for name, weight in theirs.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(
                names.get_name(name, try_suffixes=(".weight",)) or "", np.ascontiguousarray(weight.numpy())
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with tarfile.open(tmp_path / "archive", "w") as archive:
        archive.add(file, "package/tiny.gguf")
    return {"kind": "archive"}, tmp_path / "archive"


ORIGINS = {"run": of_run, "gpt2": of_gpt2, "llama": of_llama, "archive": of_archive}
STARTS: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "scratch": ("scratch", {}, None),
    "dense, of a run": ("dense", {}, "run"),
    "upcycled, of a run": ("upcycle", {"noise": 0.001}, "run"),
    "dropped, of a run": ("upcycle", {"noise": 0.001, "drop": 0.5}, "run"),
    "upcycled, of GPT-2": ("upcycle", {"noise": 0.001}, "gpt2"),
    "upcycled, of Llama": ("upcycle", {"noise": 0.001}, "llama"),
    "dropped, of an archive": ("upcycle", {"drop": 0.25}, "archive"),
}


@pytest.fixture(params=STARTS)
def started(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Started:
    """Build a model of 3 layers, 4 experts in two of them, by each start."""
    torch.manual_seed(5)
    kind, options, name = STARTS[request.param]
    origin, path = ORIGINS[name](tmp_path) if name else (None, None)
    start = {"kind": kind, **options, **({"origin": origin} if origin else {})}
    run = run_spec("experts", MOE, start, llama=name in ("llama", "archive"))
    model = initial_model(run, VOCABULARY, path).eval()
    dense = None
    if path is not None:
        given: Pretrained = component_module(run.start.origin).load_model(run.start.origin, path)  # type: ignore[attr-defined]
        dense = Transformer(given.model, VOCABULARY).eval()
        dense.load_state_dict(given.weights)
    return Started(run, model, dense, options.get("noise", 0.001), options.get("drop", 0.0))


def tokens(num_blocks: int = 4, length: int = CONTEXT) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, (num_blocks, length))


def test_1_experts_are_where_they_should_be(started: Started) -> None:
    assert list(selectors(started.model)) == [f"blocks.{layer}.ffn.router" for layer in MOE_LAYERS]
    expert = 32 * HIDDEN + HIDDEN + HIDDEN * 32 + 32
    expert = 3 * 32 * HIDDEN if not started.run.model.biases else expert
    inputs = 1 if started.run.model.biases else 2
    for layer in MOE_LAYERS:
        ffn: Any = started.model.blocks[layer].ffn
        assert sum(weight.numel() for weight in ffn.parameters()) == EXPERTS * expert + EXPERTS * 32
        assert ffn.experts.in_weight.shape == (EXPERTS, 32, HIDDEN * inputs)
        for one in range(EXPERTS):
            for other in range(one):
                assert not torch.equal(ffn.experts.in_weight[one], ffn.experts.in_weight[other])
    if started.dense is not None:
        added = len(MOE_LAYERS) * (EXPERTS - 1) * expert + len(MOE_LAYERS) * EXPERTS * 32
        assert count_parameters(started.model)[0] == count_parameters(started.dense)[0] + added


@torch.no_grad()
def test_2_it_begins_where_the_dense_model_was(started: Started) -> None:
    if started.dense is None:
        again = initial_model(started.run, VOCABULARY)
        assert all(map(torch.equal, again.state_dict().values(), started.model.state_dict().values()))
        return
    theirs = dict(started.dense.named_parameters())
    for name, weight in started.model.named_parameters():
        if not name.startswith(tuple(f"blocks.{layer}.ffn." for layer in MOE_LAYERS)):
            assert torch.equal(weight, theirs[name]), name
    if started.run.start.kind == "dense":
        scratch = initial_model(run_spec("experts", MOE), VOCABULARY)
        for layer in MOE_LAYERS:  # nothing is inherited: these are the weights that the seed gave
            for ours, drawn in zip(
                started.model.blocks[layer].ffn.parameters(), scratch.blocks[layer].ffn.parameters(), strict=True
            ):
                assert torch.equal(ours, drawn)
        return
    x_BTD = torch.randn(2, CONTEXT, 32)
    for layer in MOE_LAYERS:
        mine, dense = started.model.blocks[layer].ffn, started.dense.blocks[layer].ffn
        y_BTD, expected = mine(x_BTD, TokenBatch.of(tokens(2))), dense(x_BTD, TokenBatch.of(tokens(2)))
        change = float((y_BTD - expected).abs().mean() / expected.abs().mean())
        # the bar of moe-emergence; redrawn units make it another model, but still a related one
        assert 0 < change < 0.02 if not started.drop else 0.1 < change < 2
        weight = mine.router(x_BTD.flatten(0, 1), TokenBatch.of(tokens(2))).weight_NK
        assert torch.equal(weight, torch.ones_like(weight))


@torch.no_grad()
def test_3_logits_have_their_shape(started: Started) -> None:
    logits = started.model(tokens(2, 11))
    assert logits.shape == (2, 11, VOCABULARY)
    assert bool(logits.isfinite().all())


@torch.no_grad()
def test_4_what_the_routers_report_is_consistent(started: Started) -> None:
    with record_selections(started.model) as record:
        started.model.hidden(tokens(2))
    for path, selection in record.items():
        count = 2 * CONTEXT
        assert selection.probs_NS.shape == selection.chosen_NS.shape == (count, EXPERTS)
        torch.testing.assert_close(selection.probs_NS.sum(-1), torch.ones(count))
        assert torch.equal(selection.chosen_NS.argmax(-1), selection.probs_NS.argmax(-1))
        assert torch.equal(selection.chosen_NS.sum(-1), torch.ones(count))
        router: Any = started.model.get_submodule(path)
        x_ND = torch.randn(7, 32)
        scores = router.scorer(x_ND, torch.zeros(7, dtype=torch.long))
        assert torch.equal(scores.noisy_NS, scores.probs_NS)
        torch.testing.assert_close(scores.probs_NS, (x_ND @ router.scorer.weight.T).softmax(-1))


@torch.no_grad()
def test_5_losses_are_within_their_bounds(started: Started) -> None:
    with record_selections(started.model) as record:
        loss = component_module(started.run.objective).Objective(started.run.objective)(started.model, tokens(2))
    assert math.isfinite(float(loss))
    for path, selection in record.items():
        assert 0 <= float(load_balancing_loss(selection.probs_NS, selection.chosen_NS)) <= EXPERTS + 1e-3
        x_ND = torch.randn(7, 32)
        scores = started.model.get_submodule(path).scorer(x_ND, torch.zeros(7, dtype=torch.long))  # type: ignore[operator]
        assert float(z_loss(scores.logits_NS)) >= 0


def test_6_the_language_models_loss_moves_every_router(started: Started) -> None:
    objective = component_module(started.run.objective).Objective(started.run.objective)
    objective(started.model, tokens()).backward()
    for path in selectors(started.model):
        gradient = started.model.get_parameter(f"{path}.scorer.weight").grad
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) > 0


@torch.no_grad()
def test_7_there_is_noise_in_training_alone(started: Started) -> None:
    x_ND, id_N = torch.randn(9, 32), torch.zeros(9, dtype=torch.long)
    for selector in selectors(started.model).values():
        scorer: Any = selector.scorer
        scorer.train()
        one, two = scorer(x_ND, id_N), scorer(x_ND, id_N)
        assert torch.equal(one.logits_NS, two.logits_NS)
        assert torch.equal(one.probs_NS, two.probs_NS)
        assert not torch.equal(one.noisy_NS, two.noisy_NS)
        scorer.before_update(0.3)
        assert torch.equal(scorer(x_ND, id_N).noisy_NS, one.probs_NS)


@torch.no_grad()
def test_8_it_generates(started: Started) -> None:
    prompt_T = tokens(1, 5)[0]
    generated = list(generate(started.model, prompt_T, Sampling(temperature=0), 12, generator=torch.Generator()))
    text_T = torch.cat([prompt_T, torch.tensor(generated)])
    assert generated == started.model(text_T[None])[0, 4:-1].argmax(-1).tolist()


@torch.no_grad()
def test_9_padding_changes_nothing(started: Started) -> None:
    token_BT = tokens(1, 12)
    padded_BT = torch.cat([torch.zeros((1, 6), dtype=torch.long), token_BT], dim=1)
    position_BT = torch.tensor([[*[0] * 6, *range(12)]])
    real_BT = torch.tensor([[False] * 6 + [True] * 12])
    x_BTD = started.model.read(TokenBatch.of(padded_BT, position_BT=position_BT, real_BT=real_BT))
    torch.testing.assert_close(started.model.head(x_BTD[:, 6:]), started.model(token_BT), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_10_every_expert_can_be_reached(started: Started) -> None:
    with record_selections(started.model) as record:
        started.model.hidden(tokens(64))
    for selection in record.values():
        assert bool((selection.chosen_NS.sum(0) > 0).all())


def upcycled(tmp_path: pathlib.Path, **options: Any) -> tuple[Transformer, Transformer]:
    """Return the upcycled model and the dense one that it started from."""
    origin, path = of_run(tmp_path)
    dense = Transformer(run_spec("dense", DENSE).model, VOCABULARY)
    dense.load_state_dict(component_weights(origin, path))
    run = run_spec("experts", MOE, {"kind": "upcycle", "origin": origin, **options})
    return initial_model(run, VOCABULARY, path), dense


def component_weights(origin: dict[str, Any], path: pathlib.Path) -> dict[str, torch.Tensor]:
    from speciate.config.components import options_of

    options = options_of("training/init/origin", origin["kind"]).model_validate(origin)
    weights: dict[str, torch.Tensor] = component_module(options).load_model(options, path).weights
    return weights


@torch.no_grad()
@pytest.mark.parametrize("top_k", [1, 2])
def test_copies_without_noise_compute_what_the_dense_model_does(tmp_path: pathlib.Path, top_k: int) -> None:
    origin, path = of_run(tmp_path)
    start = {"kind": "upcycle", "origin": origin, "noise": 0.0}
    model = initial_model(run_spec("experts", {**MOE, "top_k": top_k}, start), VOCABULARY, path).eval()
    dense = Transformer(run_spec("dense", DENSE).model, VOCABULARY).eval()
    dense.load_state_dict(component_weights(origin, path))
    token_BT = tokens(2)
    torch.testing.assert_close(model(token_BT), dense(token_BT), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_shared_experts_are_copies_too(tmp_path: pathlib.Path, drop: float) -> None:
    origin, path = of_run(tmp_path)
    start = {"kind": "upcycle", "origin": origin, "noise": 0.0, "drop": drop}
    model = initial_model(run_spec("experts", {**MOE, "num_shared": 2}, start), VOCABULARY, path).eval()
    dense = Transformer(run_spec("dense", DENSE).model, VOCABULARY).eval()
    dense.load_state_dict(component_weights(origin, path))
    for layer in MOE_LAYERS:
        mine, theirs = model.blocks[layer].ffn.shared, dense.blocks[layer].ffn
        for expert in range(2):
            assert torch.equal(mine.in_weight[expert], theirs.up.weight.T)
            torch.testing.assert_close(3 * mine.out_weight[expert], theirs.out.weight.T)
            torch.testing.assert_close(3 * mine.out_bias[expert], theirs.out.bias)
    if not drop:
        token_BT = tokens(2)
        torch.testing.assert_close(model(token_BT), dense(token_BT), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_noise_has_the_scale_that_was_asked_for(tmp_path: pathlib.Path) -> None:
    model, dense = upcycled(tmp_path, noise=0.1)
    for layer in MOE_LAYERS:
        experts: Any = model.blocks[layer].ffn.experts
        up: Any = dense.blocks[layer].ffn.up
        noise = (experts.in_weight - up.weight.T) / up.weight.std()
        assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
        assert float(noise.mean()) == pytest.approx(0.0, abs=0.005)
        correlation = torch.corrcoef(noise.flatten(1))
        assert float((correlation - torch.eye(EXPERTS)).abs().max()) < 0.1


@torch.no_grad()
@pytest.mark.parametrize("drop", [0.25, 0.5, 1.0])
def test_a_share_of_each_experts_units_is_drawn_anew(tmp_path: pathlib.Path, drop: float) -> None:
    model, dense = upcycled(tmp_path, noise=0.0, drop=drop)
    for layer in MOE_LAYERS:
        experts: Any = model.blocks[layer].ffn.experts
        old: Any = dense.blocks[layer].ffn
        kept_EF = (experts.in_weight == old.up.weight.T).all(1)
        assert kept_EF.sum(1).tolist() == [HIDDEN - round(drop * HIDDEN)] * EXPERTS
        # a redrawn unit is new on both its sides, and no other unit is; the output's bias belongs to no unit
        assert torch.equal(kept_EF, (experts.out_weight == old.out.weight.T).all(-1))
        assert torch.equal(experts.out_bias, old.out.bias.expand(EXPERTS, -1))
        if drop < 1:
            assert len({tuple(row) for row in kept_EF.tolist()}) == EXPERTS
        fresh = experts.in_weight.transpose(1, 2)[~kept_EF]
        assert float(fresh.std()) == pytest.approx(float(old.up.weight.std()), rel=0.1)


@torch.no_grad()
def test_both_halves_of_a_gated_unit_are_drawn_anew(tmp_path: pathlib.Path) -> None:
    origin, path = of_llama(tmp_path)
    run = run_spec("experts", MOE, {"kind": "upcycle", "origin": origin, "noise": 0.0, "drop": 0.5}, llama=True)
    model = initial_model(run, VOCABULARY, path)
    old = component_weights(origin, path)
    for layer in MOE_LAYERS:
        experts: Any = model.blocks[layer].ffn.experts
        kept_EG = (experts.in_weight == old[f"blocks.{layer}.ffn.up.weight"].T).all(1)
        kept_EF = (experts.out_weight == old[f"blocks.{layer}.ffn.out.weight"].T).all(-1)
        assert torch.equal(kept_EG, torch.cat([kept_EF, kept_EF], dim=1))
        assert kept_EF.sum(1).tolist() == [HIDDEN // 2] * EXPERTS


def test_the_seed_decides_the_noise_and_no_other_draw(tmp_path: pathlib.Path) -> None:
    origin, path = of_run(tmp_path)
    run = run_spec("experts", MOE, {"kind": "upcycle", "origin": origin, "drop": 0.5})
    one, two = initial_model(run, VOCABULARY, path), initial_model(run, VOCABULARY, path)
    after = torch.rand(1)
    initial_model(run.model_copy(update={"start": run_spec("experts", MOE).start}), VOCABULARY)
    assert torch.equal(after, torch.rand(1))  # the training draws the same noise as the same run from scratch
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    other = initial_model(run.model_copy(update={"seed": 4}), VOCABULARY, path)
    name = "blocks.1.ffn.experts.in_weight"
    assert not torch.equal(other.get_parameter(name), one.get_parameter(name))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no experts": ({"model": {"exceptions": []}}, "start: upcycle: the model has no experts; use start: dense"),
    "norm": ({"model": {"norm": "rms"}}, "cannot start from dense seed 3: model.norm is 'rms' here, 'layer' there"),
    "width": ({"model": {"width": 16}}, "cannot start from dense seed 3: model.width is 16 here, 32 there"),
    "epsilon": ({"model": {"norm_epsilon": 1e-6}}, "model.norm_epsilon is 1e-06 here, 1e-05 there"),
    "other": ({"start": {"origin": {"ablation": "gone"}}}, "is the run of dense, not of gone"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_start_that_does_not_fit_is_refused(tmp_path: pathlib.Path, case: str) -> None:
    change, message = BAD[case]
    origin, path = of_run(tmp_path)
    good = run_spec("experts", MOE, {"kind": "upcycle", "origin": origin}).model_dump(mode="json")
    with pytest.raises(ValueError, match=message):
        initial_model(RunSpec.model_validate(merge(good, change)), VOCABULARY, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": HIDDEN // 2}, "layer 1: ffn.hidden is 24 here, 48 in dense seed 3"),
        ({"activation": "gelu"}, "layer 1: ffn.activation is 'gelu' here, 'gelu_tanh' in dense seed 3"),
    ],
)
def test_experts_of_another_size_are_refused(tmp_path: pathlib.Path, change: dict[str, Any], message: str) -> None:
    origin, path = of_run(tmp_path)
    with pytest.raises(ValueError, match=message):
        initial_model(run_spec("experts", {**MOE, **change}, {"kind": "upcycle", "origin": origin}), VOCABULARY, path)


def test_a_start_without_a_path_and_a_path_without_a_start_are_refused(tmp_path: pathlib.Path) -> None:
    origin, path = of_run(tmp_path)
    with pytest.raises(ValueError, match=r"experts: start: dense needs a model to start from \(--start\)"):
        initial_model(run_spec("experts", MOE, {"kind": "dense", "origin": origin}), VOCABULARY)
    with pytest.raises(ValueError, match="experts: starts from scratch, so leave --start out"):
        initial_model(run_spec("experts", MOE), VOCABULARY, path)


def test_another_vocabulary_is_refused_by_the_first_weight_that_tells(tmp_path: pathlib.Path) -> None:
    origin, path = of_run(tmp_path)
    message = r"dense seed 3: token_embedding.weight is \(64, 32\) there, \(50, 32\) here"
    with pytest.raises(ValueError, match=message):
        initial_model(run_spec("experts", MOE, {"kind": "dense", "origin": origin}), 50, path)


def test_a_model_with_experts_is_no_dense_start(tmp_path: pathlib.Path) -> None:
    _, path = of_run(tmp_path)
    run = run_spec("dense", MOE)
    path.with_name("spec.json").write_text(canonical_json(run))
    save_weights(Transformer(run.model, VOCABULARY), path)
    start = {"kind": "dense", "origin": {"kind": "run", "ablation": "dense"}}
    with pytest.raises(ValueError, match="must start from a dense model, and layer 1 of dense seed 3 is moe"):
        initial_model(run_spec("experts", MOE, start), VOCABULARY, path)
