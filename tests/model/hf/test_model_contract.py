"""Test that every family does what transformers' models do, or refuses it by name.

The checks are those of that library's own ModelTesterMixin, which its package leaves out; each names the test there.
"""

import inspect
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.every_kind import VOCABULARY, Settings, model_settings
from tests.model.hf.families import EXACT, FAMILIES, LENGTH, SAMPLE, build, domains, ids, padded
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
from transformers.utils.generic import TransformersKwargs

from speciate.model.hf.auto_classes import SpeciateForCausalLM
from speciate.model.moe.top_k_router import TopK
from speciate.selection.selection import auxiliary_loss, record_selections, selectors

CHECKS: dict[str, Callable[[Settings], None]] = {}


def check(function: Callable[[Settings], None]) -> Callable[[Settings], None]:
    """Run this function on every family."""
    CHECKS[function.__name__] = function
    return function


def reads_ids(model: SpeciateForCausalLM) -> bool:
    return any(kind in str(model.config.model) for kind in ("'hash'", "'uniform_random'")) or (
        "'router': {'kind': 'oracle'" in str(model.config.model)
    )


@check
@torch.no_grad()
def save_load(settings: Settings) -> None:  # test_save_load, test_correct_missing_keys, test_determinism
    model = build(settings)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    with domains():
        torch.testing.assert_close(again.eval()(ids()).logits, model(ids()).logits, **EXACT)


@check
@torch.no_grad()
def missing_weights_are_drawn(settings: Settings) -> None:  # test_can_init_all_missing_weights
    expected = build(settings)
    model = SpeciateForCausalLM.from_pretrained(None, config=expected.config, state_dict={})
    state = expected.state_dict()
    for name, value in model.named_parameters():
        assert value.isfinite().all() and not value.is_meta
        spread, spread_of_new = value.std(correction=0), state[name].float().std(correction=0)
        if not name.endswith("predictor.down.weight"):  # `build` changes it
            torch.testing.assert_close(spread, spread_of_new, rtol=0.5, atol=1e-6)
    with domains():
        assert model.double().eval()(ids()).logits.isfinite().all()


@check
@torch.no_grad()
def resize_tokens(settings: Settings) -> None:  # test_resize_tokens_embeddings, test_resize_embeddings_untied
    for tied in (True, False):
        model = build(settings, tied_head=tied)
        with domains():
            before = model(ids()).logits
            embedding = model.resize_token_embeddings(VOCABULARY + 7, mean_resizing=tied)
            assert embedding.num_embeddings == VOCABULARY + 7 == model.config.vocab_size == model.model.vocabulary
            after = model(ids()).logits
            assert after.shape[-1] == VOCABULARY + 7
            torch.testing.assert_close(after[..., :VOCABULARY], before, **EXACT)
            added_BT = ids().clone()
            added_BT[:, 4] = VOCABULARY + 6
            assert model(added_BT).logits.isfinite().all()
            with tempfile.TemporaryDirectory() as folder:
                model.save_pretrained(folder)
                again = AutoModelForCausalLM.from_pretrained(folder).eval()
            torch.testing.assert_close(again(added_BT).logits, model(added_BT).logits, **EXACT)
            model.resize_token_embeddings(VOCABULARY - 3)
            few_BT = ids().clamp(max=VOCABULARY - 4)
            assert model(few_BT).logits.shape[-1] == VOCABULARY - 3
            assert model.resize_token_embeddings(pad_to_multiple_of=64).num_embeddings == 64
            with pytest.raises(IndexError):
                model.resize_token_embeddings(VOCABULARY - 3)(torch.tensor([VOCABULARY]))


@check
def get_set_embeddings(settings: Settings) -> None:  # test_model_get_set_embeddings
    model = build(settings, tied_head=False)
    new_in, new_out = torch.nn.Embedding(VOCABULARY, 24).double(), torch.nn.Linear(24, VOCABULARY, bias=False).double()
    model.set_input_embeddings(new_in)
    model.set_output_embeddings(new_out)
    assert model.get_input_embeddings() is new_in and model.get_output_embeddings() is new_out
    with domains():
        out = model(ids(), output_hidden_states=True)
    torch.testing.assert_close(out.hidden_states[-1] @ new_out.weight.T, out.logits, **EXACT)
    tied = build(settings)
    assert tied.get_output_embeddings() is None
    with pytest.raises(ValueError, match="tied_head: true"):
        tied.set_output_embeddings(new_out)


@check
@torch.no_grad()
def inputs_embeds(settings: Settings) -> None:  # test_inputs_embeds_matches_input_ids
    model = build(settings)
    embeds_BTD = model.get_input_embeddings()(ids())
    with domains():
        if reads_ids(model):
            with pytest.raises(ValueError, match=r"inputs_embeds: router .* looks at the ids of tokens"):
                model(inputs_embeds=embeds_BTD)
            return
        torch.testing.assert_close(model(inputs_embeds=embeds_BTD).logits, model(ids()).logits, **EXACT)
        for wrong in ({}, {"input_ids": ids(), "inputs_embeds": embeds_BTD}):
            with pytest.raises(ValueError, match="exactly one of input_ids or inputs_embeds"):
                model(**wrong)


@check
def hidden_states(settings: Settings) -> None:  # test_hidden_states_output, test_retain_grad_hidden_states_attentions
    model = build(settings)
    with domains():
        out = model(ids(), output_hidden_states=True)
        model.config.output_hidden_states = True
        again = model(ids())
        assert model(ids(), output_hidden_states=False).hidden_states is None
    assert len(out.hidden_states) == model.config.num_hidden_layers + 1 == len(again.hidden_states)
    assert all(state.shape == (2, LENGTH, model.config.hidden_size) for state in out.hidden_states)
    torch.testing.assert_close(out.hidden_states[0], model.get_input_embeddings()(ids()), **EXACT)  # rotary positions
    torch.testing.assert_close(model.model.head(out.hidden_states[-1]), out.logits, **EXACT)
    for state in out.hidden_states:
        state.retain_grad()
    out.logits.sum().backward()
    assert all(state.grad is not None and state.grad.abs().sum() > 0 for state in out.hidden_states)


@check
@torch.no_grad()
def attentions_are_refused(settings: Settings) -> None:  # test_attention_outputs
    with pytest.raises(ValueError, match="output_attentions: is not supported"), domains():
        build(settings)(ids(), output_attentions=True)


@check
@torch.no_grad()
def outputs_equivalence(settings: Settings) -> None:  # test_model_outputs_equivalence
    model = build(settings)
    asked = {"labels": ids(), "output_hidden_states": True}
    with domains():
        named, plain = model(ids(), **asked), model(ids(), **asked, return_dict=False)
        assert isinstance(plain, tuple)
        for value, other in zip(named.to_tuple(), plain, strict=True):
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other)
        for kept, columns in ((2, [-2, -1]), (torch.tensor([1, 3]), [1, 3])):
            torch.testing.assert_close(model(ids(), logits_to_keep=kept).logits, named.logits[:, columns], **EXACT)


@check
@torch.no_grad()
def batching_equivalence(settings: Settings) -> None:  # test_batching_equivalence
    model = build(settings)
    with domains(2):
        both = model(ids()).logits
    for row in range(2):
        with domains(1):
            torch.testing.assert_close(model(ids()[row : row + 1]).logits[0], both[row], **EXACT)


@check
def padding(settings: Settings) -> None:  # test_left_padding_compatibility, in training mode too
    model = build(settings)
    with domains(1):
        alone = model(ids()[:1]).logits[0].detach()
    for before, after in ((5, 0), (0, 5), (2, 3)):
        for training in (False, True):
            model.train(training)
            results = []
            for pad in (0, 17):
                state = {name: value.clone() for name, value in model.state_dict().items()}
                whole_BT, mask_BT = padded(ids(), before, after, pad)
                torch.manual_seed(0)
                with domains():
                    label_BT = whole_BT.where(mask_BT == 1, -100)
                    label_BT[0, before] = -100  # padding predicts it
                    out = model(whole_BT, attention_mask=mask_BT, labels=label_BT)
                results.append((out.logits[0, before : before + LENGTH], out.logits[1], out.loss))
                model.load_state_dict(state)  # training moves thresholds
            for result, other in zip(*results, strict=True):
                torch.testing.assert_close(result, other, **EXACT)
            if not training:
                torch.testing.assert_close(results[0][0], alone, **EXACT)


@check
def training(settings: Settings) -> None:  # test_training, test_training_gradient_checkpointing(_use_reentrant_false)
    gradients = []
    for recompute in (False, True):
        model = build(settings).train()
        if recompute:
            model.activation_checkpointing_enable()
            assert model.is_activation_checkpointing and all(block.recompute for block in model.model.blocks)
        torch.manual_seed(3)
        with domains():
            out = model(ids(), labels=ids(), output_router_logits=bool(selectors(model.model)))
        assert out.past_key_values is None
        out.loss.backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], **EXACT)
    with domains(), pytest.raises(ValueError, match="use_cache: a block that is recomputed"):
        model(ids(), use_cache=True)
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing and not any(block.recompute for block in model.model.blocks)
    for options, message in (({"use_reentrant": True}, "use_reentrant: is not supported"), ({"debug": True}, "debug")):
        with pytest.raises(ValueError, match=message):
            model.activation_checkpointing_enable(options)
    with pytest.raises(ValueError, match="offload: is not supported"):
        model.activation_checkpointing_enable(offload=True)
    model.activation_checkpointing_enable(every_n_layers=2)
    assert [block.recompute for block in model.model.blocks] == [True, False]


@check
def loss_counts_the_items_of_the_whole_batch(settings: Settings) -> None:  # test_causal_lm_can_accept_training_kwargs
    model = build(settings)
    labels_BT = ids().clone()
    labels_BT[0, :6] = -100
    with domains():
        logits = model(ids()).logits
        out = model(ids(), labels=labels_BT, num_items_in_batch=torch.tensor(40))
        shifted_BT = torch.nn.functional.pad(labels_BT, (0, 1), value=-100)[:, 1:].contiguous()
        given = model(ids(), shift_labels=shifted_BT)
    nll = -logits[:, :-1].float().log_softmax(-1).gather(-1, labels_BT[:, 1:, None].clamp(min=0)).squeeze(-1)
    told = labels_BT[:, 1:] != -100
    torch.testing.assert_close(out.loss, (nll * told).sum() / 40)
    torch.testing.assert_close(given.loss, (nll * told).sum() / told.sum())


@check
@torch.no_grad()
def packed_texts(settings: Settings) -> None:  # test_flash_attention_2_padding_matches_padding_free_with_position_ids
    model = build(settings)
    lengths = (4, 2, 3)
    position_ids = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    with domains():
        packed = model(ids(), position_ids=position_ids)
        assert packed.past_key_values is None
        texts = ids().split(lengths, dim=1)
        torch.testing.assert_close(packed.logits, torch.cat([model(text).logits for text in texts], dim=1), **EXACT)
        with pytest.raises(ValueError, match="position_ids: start again within a row; a cache holds one text"):
            model(ids(), position_ids=position_ids, use_cache=True)
        with pytest.raises(ValueError, match="position_ids: start again within a row; packed texts need"):
            model(ids(), position_ids=position_ids, attention_mask=torch.ones_like(ids()))
        with pytest.raises(ValueError, match="position_ids: 0 to 16 are not within 0 to 15"):
            model(ids(), position_ids=torch.arange(LENGTH) * 2)


@check
def router_logits(settings: Settings) -> None:
    model = build(settings)
    routers = [module for module in model.modules() if isinstance(module, TopK)]
    with domains():
        if not selectors(model.model):
            with pytest.raises(ValueError, match="output_router_logits: no layer of this model has a router"):
                model(ids(), output_router_logits=True)
            return
        plain = model(ids(), labels=ids())
        assert plain.router_logits is None and plain.aux_loss is None
        with record_selections(model.model) as record:
            out = model(ids(), labels=ids(), output_router_logits=True)
    assert [logits.shape for logits in out.router_logits] == [(2 * LENGTH, router.num_slots) for router in routers]
    torch.testing.assert_close(out.aux_loss, auxiliary_loss(record), **EXACT)
    torch.testing.assert_close(out.loss, plain.loss + out.aux_loss)
    chosen = {path: selection for path, selection in record.items() if path.endswith(("ffn.router", "mixer.router"))}
    for path, logits_NS in zip(record_paths(model), out.router_logits, strict=True):
        if path in chosen:
            ran_N = chosen[path].token_N
            assert logits_NS[ran_N].isnan().sum() == 0
    model.config.output_router_logits, model.config.router_aux_loss_coef = True, 3.0
    with domains():
        torch.testing.assert_close(model(ids(), labels=ids()).loss, plain.loss + 3 * out.aux_loss)


def test_the_auxiliary_loss_is_that_of_mixtral() -> None:
    """Compare with transformers' function on the router logits, with padding before and after a text."""
    balance = {"kind": "auxiliary", "weight": 0.5, "scope": "micro_batch"}
    ffn = {"kind": "moe", "num_experts": 4, "hidden": 20, "top_k": 2, "router": "learned", "balance": balance}
    model = build(model_settings(ffn=ffn | {"z_weight": 0.0}, num_layers=1))
    for training, after in itertools.product((False, True), (0, 4)):
        whole_BT, mask_BT = padded(ids(), 4 - after, after, 0)
        out = model.train(training)(whole_BT, attention_mask=mask_BT, output_router_logits=True)
        # theirs counts each of a token's k experts as one, ours as 1/k
        theirs = load_balancing_loss_func(out.router_logits, 4, 2, mask_BT) / 2
        torch.testing.assert_close(out.aux_loss.float(), 0.5 * theirs)


def record_paths(model: SpeciateForCausalLM) -> list[str]:
    return [path for path, module in model.model.named_modules() if isinstance(module, TopK)]


PLAIN = model_settings()
FEW = {"kind": "fixed", "k": 3}
MOE = {"kind": "moe", "num_experts": 4, "hidden": 20, "balance": "none"}


def test_the_signature_is_that_of_their_models() -> None:  # test_forward_signature
    names = list(inspect.signature(SpeciateForCausalLM.forward).parameters)
    assert names[:5] == ["self", "input_ids", "attention_mask", "position_ids", "past_key_values"]
    generated = inspect.signature(SpeciateForCausalLM.prepare_inputs_for_generation).parameters
    assert "inputs_embeds" in generated  # transformers looks for it there


@pytest.mark.parametrize("name", [*sorted(TransformersKwargs.__optional_keys__), "num_items", "ignored"])
def test_no_argument_vanishes(name: str) -> None:
    known = set(inspect.signature(SpeciateForCausalLM.forward).parameters) | {"num_items_in_batch"}
    if name in known:
        return
    with pytest.raises(TypeError, match=rf"forward\(\) got an unexpected keyword argument '{name}'"):
        build(PLAIN)(ids(), **{name: 1})


def test_a_misspelt_argument_is_named() -> None:
    for name, meant in (("atention_mask", "attention_mask"), ("num_items_in_bacth", "num_items_in_batch")):
        with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
            build(PLAIN)(ids(), **{name: 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attention_mask": torch.ones(2, 1, 9, 9)}, r"attention_mask: must be .* = \(2, 9\), not \(2, 1, 9, 9\)"),
        ({"attention_mask": torch.ones(2, 8)}, r"attention_mask: must be .* = \(2, 9\), not \(2, 8\)"),
        (
            {"attention_mask": torch.tensor([[1] * 9, [1, 1, 0, 0, 1, 1, 1, 1, 1]])},
            "has padding between a row's tokens",
        ),
        ({"labels": ids(), "logits_to_keep": 1}, "logits_to_keep: must be 0 with labels"),
        ({"past_key_values": DynamicCache()}, "past_key_values: must be the cache that .*, not a DynamicCache"),
        ({"position_ids": torch.arange(9) - 1}, "position_ids: -1 to 7 are not within 0 to 15"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(PLAIN)(ids(), **arguments)


@torch.no_grad()
@pytest.mark.parametrize(
    "block",
    [
        {"mixer": {"kind": "gsa", "num_heads": 4, "indexer": {"kind": "kl", "warmup": 0.5}, "budget": FEW}},
        {"ffn": MOE | {"router": {"kind": "learned", "noise_std": 0.5, "noise_until": 0.5}}},
    ],
)
def test_warm_up_and_annealed_noise_are_over(block: dict[str, Any]) -> None:
    model = build(model_settings(**block))
    torch.testing.assert_close(model.train()(ids()).logits, model.eval()(ids()).logits, **EXACT)


@torch.no_grad()
def test_half_precision() -> None:  # test_model_... in bfloat16
    for name in SAMPLE:
        model = build(FAMILIES[name])
        with tempfile.TemporaryDirectory() as folder, domains():
            model.save_pretrained(folder)
            half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
            assert half.dtype == torch.bfloat16
            assert half(ids()).logits.isfinite().all(), name


@pytest.mark.parametrize("check_of_all", CHECKS)
@pytest.mark.parametrize("name", SAMPLE)
def test_a_family(name: str, check_of_all: str) -> None:
    CHECKS[check_of_all](FAMILIES[name])


@pytest.mark.slow
@pytest.mark.parametrize("check_of_all", CHECKS)
def test_every_family(check_of_all: str) -> None:
    for name, settings in FAMILIES.items():
        try:
            CHECKS[check_of_all](settings)
        except BaseException as error:
            raise AssertionError(f"{name}: {error}") from error
