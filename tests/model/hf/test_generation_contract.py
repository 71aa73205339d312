"""Test that every family generates as transformers' models do: with a cache and without, on from one, from embeddings.

The checks are those of that library's own GenerationTesterMixin, which its package leaves out; each names the test
there. The context of these models has 16 tokens.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.every_kind import VOCABULARY, Settings, model_settings
from tests.model.hf.families import EXACT, FAMILIES, SAMPLE, build, domains, ids, padded
from tests.model.hf.test_model_contract import reads_ids
from torch import Tensor

from speciate.model.hf.auto_classes import GenerationCache, SpeciateForCausalLM

PROMPT, NEW = 6, 5
CHECKS: dict[str, Callable[[Settings], None]] = {}
PLAIN = model_settings()


def check(function: Callable[[Settings], None]) -> Callable[[Settings], None]:
    """Run this function on every family."""
    CHECKS[function.__name__] = function
    return function


def generated(model: SpeciateForCausalLM, given: Tensor | None = None, *, rows: int = 2, **settings: Any) -> Any:
    """Generate NEW tokens after the prompt, greedily unless the settings say otherwise."""
    prompt = ids(2, PROMPT) if given is None and "inputs_embeds" not in settings else given
    with domains(rows):
        return model.generate(prompt, **{"max_new_tokens": NEW, "do_sample": False, **settings})


@check
def greedy(settings: Settings) -> None:  # test_greedy_generate, _dict_outputs, _dict_outputs_use_cache
    model = build(settings)
    asked = {"return_dict_in_generate": True, "output_logits": True, "output_hidden_states": True}
    cached = generated(model, **asked)
    whole = generated(model, **asked, use_cache=False)
    assert torch.equal(cached.sequences, whole.sequences)
    assert cached.past_key_values.get_seq_length() == PROMPT + NEW - 1 and whole.past_key_values is None
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(whole.logits), **EXACT)
    with domains():
        logits = model(cached.sequences).logits
    assert torch.equal(cached.sequences[:, PROMPT:], logits[:, PROMPT - 1 : -1].argmax(-1))
    torch.testing.assert_close(torch.stack(cached.logits, 1), logits[:, PROMPT - 1 : -1].float())
    assert [state.shape[1] for state in (steps[0] for steps in cached.hidden_states)] == [PROMPT] + [1] * (NEW - 1)


@check
def samples(settings: Settings) -> None:  # test_sample_generate, test_generate_methods_with_logits_to_keep
    model = build(settings)
    texts = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        texts.append(generated(model, rows=6, do_sample=True, num_return_sequences=3, use_cache=use_cache))
    assert texts[0].shape == (6, PROMPT + NEW) and torch.equal(*texts)
    torch.manual_seed(5)
    kept = generated(model, rows=6, do_sample=True, num_return_sequences=3, logits_to_keep=0)
    assert torch.equal(kept, texts[0])


@check
def beams(settings: Settings) -> None:  # test_beam_search_generate, _dict_outputs_use_cache
    model = build(settings)
    cached, whole = (generated(model, rows=6, num_beams=3, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(cached, whole)


@check
def from_embeddings(settings: Settings) -> None:  # test_generate_from_inputs_embeds
    model = build(settings)
    embeds_BTD = model.get_input_embeddings()(ids(2, PROMPT)).detach()
    if reads_ids(model):
        with pytest.raises(ValueError, match="inputs_embeds: router"):
            generated(model, inputs_embeds=embeds_BTD)
        return
    assert torch.equal(generated(model, inputs_embeds=embeds_BTD), generated(model)[:, PROMPT:])
    assert torch.equal(generated(model, ids(2, PROMPT), inputs_embeds=embeds_BTD), generated(model))


@check
def continued(settings: Settings) -> None:  # test_generate_continue_from_past_key_values
    model = build(settings)
    expected = generated(model)
    first = generated(model, max_new_tokens=2, return_dict_in_generate=True)
    kept = copy.deepcopy(first.past_key_values)
    again = generated(
        model,
        first.sequences,
        past_key_values=first.past_key_values,
        max_new_tokens=NEW - 2,
        return_dict_in_generate=True,
    )
    assert torch.equal(again.sequences, expected)
    assert again.past_key_values is first.past_key_values
    mask_BT = torch.ones_like(first.sequences)
    assert torch.equal(
        generated(model, first.sequences, past_key_values=kept, attention_mask=mask_BT, max_new_tokens=NEW - 2),
        expected,
    )
    assert torch.equal(generated(model, past_key_values=GenerationCache()), expected)
    # one prompt, read once, and continued by several beams
    with domains(1):
        prefix = model(ids(1, PROMPT - 1), use_cache=True).past_key_values
    prefix.batch_repeat_interleave(2)
    twice = generated(model, ids(1, PROMPT), past_key_values=prefix, num_beams=2)
    assert torch.equal(twice, generated(model, ids(1, PROMPT), num_beams=2))


@check
def left_padding(settings: Settings) -> None:  # test_left_padding_compatibility
    model = build(settings)
    whole_BT, mask_BT = padded(ids(2, PROMPT), 3, 0, 0)
    asked = {"return_dict_in_generate": True, "output_logits": True}
    alone = generated(model, ids(2, PROMPT)[:1], rows=1, **asked)
    for pad in (0, 17):
        whole_BT[0, :3] = pad
        both = generated(model, whole_BT, attention_mask=mask_BT, **asked)
        assert torch.equal(both.sequences[0, 3:], alone.sequences[0])
        torch.testing.assert_close(torch.stack(both.logits)[:, :1], torch.stack(alone.logits), **EXACT)
    # continued, the mask is still needed, and is checked
    more = {"past_key_values": both.past_key_values, "max_new_tokens": 1}
    longer_BS = torch.cat([mask_BT, mask_BT.new_ones((2, NEW))], dim=1)
    with pytest.raises(ValueError, match=r"attention_mask: (is needed|differs)"):
        generated(model, both.sequences, attention_mask=torch.ones_like(longer_BS), **more)
    generated(model, both.sequences, attention_mask=longer_BS, **more)


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


@torch.no_grad()
def test_a_cache_can_be_cut_and_its_rows_chosen() -> None:
    model = build(PLAIN)
    whole = model(ids()).logits
    past = model(ids()[:, :7]).past_key_values
    past.crop(-3)
    assert past.get_seq_length() == 4
    torch.testing.assert_close(model(ids()[:, 4:], past_key_values=past).logits, whole[:, 4:], **EXACT)
    past.crop(5)
    past.batch_select_indices(torch.tensor([1]))
    torch.testing.assert_close(model(ids()[1:, 5:], past_key_values=past).logits, whole[1:, 5:], **EXACT)
    with pytest.raises(ValueError, match="past_key_values: holds 1 rows, and there are 2"):
        model(ids()[:, :1], past_key_values=past)


@torch.no_grad()
def test_positions_and_masks_that_do_not_go_on_from_a_cache_are_refused() -> None:
    model = build(PLAIN)
    past = model(ids()[:, :4]).past_key_values
    with pytest.raises(ValueError, match="position_ids: must go on after those in past_key_values"):
        model(ids()[:, 4:5], past_key_values=past, position_ids=torch.tensor([[0]]))
    with pytest.raises(ValueError, match="input_ids: there are no new tokens; to go on from past_key_values"):
        model.generate(ids()[:, 4:6], past_key_values=past, max_new_tokens=1, do_sample=False)
    with pytest.raises(ValueError, match="attention_mask: differs from that of the tokens in past_key_values"):
        model(ids()[:, 4:5], past_key_values=past, attention_mask=torch.tensor([[0, 1, 1, 1, 1]] * 2))


@torch.no_grad()
def test_what_cannot_generate_says_so() -> None:
    choice = {"kind": "expert", "non_causal": True}
    ffn = {"kind": "moe", "num_experts": 4, "hidden": 20, "router": "learned", "balance": "none", "choice": choice}
    model = build(model_settings(ffn=ffn))
    assert model(ids()).past_key_values is None
    with pytest.raises(ValueError, match="choice: expert: chooses among the tokens of a whole block"):
        model.generate(ids(), max_new_tokens=2)
    with pytest.raises(ValueError, match="assisted generation is not supported with stateful models"):
        build(PLAIN).generate(ids(1), max_new_tokens=2, prompt_lookup_num_tokens=2)
    with pytest.raises(ValueError, match="output_attentions: is not supported"):
        build(PLAIN).generate(ids(), max_new_tokens=2, output_attentions=True, return_dict_in_generate=True)
    with pytest.raises(ValueError, match="not used by the model: \\['temprature'\\]"):
        build(PLAIN).generate(ids(), max_new_tokens=2, temprature=1.0)
    assert build(PLAIN).config.vocab_size == VOCABULARY
