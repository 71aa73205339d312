"""Test the recording of whole texts with tiny models of transformers."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig, OlmoeConfig, Qwen3MoeConfig

from speciate.recording.record_model import record_model
from speciate.recording.recorder import Recording, record_routing
from speciate.recording.router_call import RouterCall
from speciate.recording.sites import UnreadableModel, find_sites
from speciate.recording.text_batches import block_sizes
from speciate.recording.token_stream import token_streams
from speciate.selection.text import Text

SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONFIGS = {
    "mixtral": MixtralConfig(**SMALL, num_local_experts=4),
    "qwen3_moe": Qwen3MoeConfig(**SMALL, moe_intermediate_size=16, num_experts=6, num_experts_per_tok=3, head_dim=8),
    "olmoe": OlmoeConfig(**SMALL, num_experts=6, num_experts_per_tok=3),
}


class ByteTokenizer:
    """Take each byte for a token, as far as the tests' vocabulary goes."""

    def encode(self, text: str) -> list[int]:
        return [byte % 100 for byte in text.encode()]


TEXTS = [Text(f"document {number}", "a b " * number + "end", ["even", "odd"][number % 2]) for number in range(5)]


def tiny(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[family]).eval()


@pytest.mark.parametrize("family", CONFIGS)
def test_the_record_has_the_choices_of_each_document(family: str) -> None:
    model = tiny(family)
    record = record_model(model, ByteTokenizer(), TEXTS, block_length=8, batch_size=3)
    assert list(record.documents["document"]) == [text.document for text in TEXTS]
    assert list(record.documents["label"]) == [text.label for text in TEXTS]
    assert list(record.documents["num_tokens"]) == [len(text.text) for text in TEXTS]
    assert [selector.layer for selector in record.selectors] == [0, 1]
    # by hand: each block alone, and what transformers itself reports of its routers
    for row, text in enumerate(TEXTS):
        count = np.zeros(record.selectors[0].num_slots)
        ids = ByteTokenizer().encode(text.text)
        for start in range(0, len(ids), 8):
            with torch.no_grad():
                output = model(torch.tensor([ids[start : start + 8]]), output_router_logits=True)
            chosen = output.router_logits[0].topk(model.config.num_experts_per_tok, dim=-1).indices
            count += np.bincount(chosen.flatten(), minlength=len(count))
        np.testing.assert_allclose(
            record.selectors[0].tally.chosen_GS[row] * model.config.num_experts_per_tok, count, atol=1e-9
        )


def test_prompt_and_generation_are_rows_of_their_own() -> None:
    record = record_model(tiny("mixtral"), ByteTokenizer(), TEXTS, block_length=8, batch_size=3, generate=4)
    assert record.phases == ("prompt", "generation")
    prompts = record.of_phase("prompt")
    assert list(prompts.documents["num_tokens"]) == [min(len(text.text), 8) for text in TEXTS]
    # the last token that is generated is never read
    assert set(record.of_phase("generation").documents["num_tokens"]) == {3}


def test_recording_changes_no_bit_of_the_output_and_leaves_no_hook() -> None:
    model, ids = tiny("mixtral"), torch.arange(24).view(2, 12)
    with torch.no_grad():
        before = model(ids).logits
        with record_routing(model, shadows=2) as recording:
            during = model(ids).logits
    assert torch.equal(before, during)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert list(recording.build().documents["document"]) == ["text 0", "text 1"]


def test_a_dense_model_is_refused() -> None:
    dense = AutoModelForCausalLM.from_config(
        Qwen3MoeConfig(**SMALL, moe_intermediate_size=16, head_dim=8, mlp_only_layers=[0, 1])
    )
    with pytest.raises(UnreadableModel, match="has no router"):
        find_sites(dense)


def test_a_sink_is_given_each_decision_with_its_text_and_phase() -> None:
    from tests.recording.families import Decisions

    sink = Decisions()
    record_model(tiny("mixtral"), ByteTokenizer(), TEXTS[:2], block_length=8, generate=3, sinks=[sink])
    for parts in sink.parts.values():
        assert [(part["phase"], list(part["document_N"])) for part in parts] == [
            ("prompt", ["document 0"] * 3),
            *[("generation", ["document 0"])] * 2,
            ("prompt", ["document 1"] * 7),
            *[("generation", ["document 1"])] * 2,
        ]
        assert [int(part["position_N"][-1]) for part in parts] == [2, 3, 4, 6, 7, 8]


def test_blocks_fit_into_the_context_and_batches_into_memory() -> None:
    model = tiny("mixtral")
    model.config.max_position_embeddings = 16
    long = [Text("long", "abcdefgh" * 5)]
    record = record_model(model, ByteTokenizer(), long, block_length=100)
    assert [note.text for note in record.notes] == [
        "The texts were read in blocks of 16 tokens, which is what the model's context has room for, and not 100."
    ]
    assert block_sizes(model, None, None) == (16, 512)
    assert block_sizes(model, 4, None, room=13) == (3, 2730)
    assert block_sizes(model, 4, 5) == (4, 5)
    assert record_model(model, ByteTokenizer(), long).notes == ()
    with pytest.raises(ValueError, match=r"--generate: the model's context of 16 tokens has no room for 16 more"):
        record_model(model, ByteTokenizer(), long, generate=16)
    with pytest.raises(ValueError, match=r"--batch-size: must be at least 1, not 0"):
        record_model(model, ByteTokenizer(), long, batch_size=0)
    # by hand: blocks of 16, 16 and 8 tokens
    with torch.no_grad():
        counts = [
            record_model(model, ByteTokenizer(), [Text("part", long[0].text[start : start + 16])])
            for start in (0, 16, 32)
        ]
    expected = sum(part.selectors[1].tally.chosen_GS[0] for part in counts)
    np.testing.assert_allclose(record.selectors[1].tally.chosen_GS[0], expected)


def test_a_training_loop_is_recorded_once_a_step_though_blocks_are_computed_again() -> None:
    model = tiny("mixtral").train()
    model.activation_checkpointing_enable()
    ids = torch.arange(24).view(2, 12)
    with record_routing(model) as recording:
        for _ in range(2):
            model(ids, labels=ids).loss.backward()
        recording.active = False
        model(ids)
    documents = recording.build().documents
    assert list(documents["document"]) == ["text 0", "text 1", "text 2", "text 3"]
    assert set(documents["num_tokens"]) == {12}
    assert all(parameter.grad is not None for parameter in model.model.layers[0].mlp.gate.parameters())


def test_positions_go_on_over_the_blocks_of_a_text() -> None:
    record = record_model(tiny("mixtral"), ByteTokenizer(), TEXTS[4:], block_length=8)
    assert record.sample is not None
    assert list(record.sample.position_P) == list(range(len(TEXTS[4].text)))
    assert list(record.sample.token_P) == ByteTokenizer().encode(TEXTS[4].text)


def test_logits_of_one_token_are_not_taken_for_probabilities() -> None:
    """A token that is generated is a call of its own; its logits may be positive and sum to one by chance."""
    site = find_sites(tiny("mixtral"))[0]
    recording = Recording([site], "it")
    slot_NK = torch.tensor([[0, 1]])
    first = RouterCall(slot_NK.expand(2, 2), None, torch.tensor([[1.0, 2.0, 0.0, -1.0], [0.5, 1.0, -2.0, 0.0]]))
    chance = RouterCall(slot_NK, None, torch.tensor([[0.5, 0.3, 0.1, 0.1]]))
    for call in (first, chance):
        count = len(call.slot_NK)
        tokens = {"input_ids": torch.zeros(1, count, dtype=torch.long)}
        recording.begin(token_streams(tiny("mixtral"), (), tokens))
        recording.emit(site, call)
        recording.end()
    expected = chance.logits_NS.softmax(-1).sum(0) + first.logits_NS.softmax(-1).sum(0)
    np.testing.assert_allclose(recording.build().selectors[0].tally.probs_GS.sum(0), expected, rtol=1e-5)
