"""Test loading somebody's model: a transformers folder, a folder that this package exported, and a run of ours."""

import pathlib
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.recording.tiny import tiny_config
from tests.tools.test_generate import write_run
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from speciate.cli import execute
from speciate.recording.load_model import load_model
from speciate.recording.record_model import record_model
from speciate.recording.text_batches import pieces
from speciate.selection.record_builder import RecordBuilder
from speciate.selection.text import Text

WORDS = ["[UNK]", "the", "cat", "sat", "on", "mat"]
TEXTS = [Text("a", "the cat sat on the mat", "x"), Text("b", "the mat", "y")]


@pytest.fixture
def mixtral(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write a tiny Mixtral with a tokenizer of six words."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_config("mixtral")).save_pretrained(tmp_path / "mixtral")
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "mixtral")
    return tmp_path / "mixtral"


def test_a_transformers_folder_is_recorded_with_the_texts_of_its_tokens(mixtral: pathlib.Path) -> None:
    loaded = load_model(str(mixtral))
    record = record_model(loaded.model, loaded.tokenizer, TEXTS, source=loaded.source)
    assert record.source == str(mixtral)
    assert list(record.documents["num_tokens"]) == [6, 2]
    assert record.sample is not None
    assert [record.sample.pieces[int(token)] for token in record.sample.token_P] == [
        "the",
        "cat",
        "sat",
        "on",
        "the",
        "mat",
        "the",
        "mat",
    ]
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert next(load_model(str(mixtral), dtype="bfloat16").model.parameters()).dtype == torch.bfloat16


def test_a_run_and_its_exported_folder_have_the_same_routing(tmp_path: pathlib.Path) -> None:
    run = write_run(tmp_path / "results")
    execute(["export", "--run", str(run), "--output", str(tmp_path / "exported")])
    shutil.copytree(next((tmp_path / "results/data/fit").iterdir()), run / "tokenizer")
    records = []
    for name in (run, tmp_path / "exported"):
        loaded = load_model(str(name))
        records.append(record_model(loaded.model, loaded.tokenizer, TEXTS, block_length=24))
    for one, other in zip(records[0].selectors, records[1].selectors, strict=True):
        assert one.path.endswith("ffn.router")
        assert (one.num_slots, one.num_chosen) == (4, 2)
        np.testing.assert_array_equal(one.tally.chosen_GS, other.tally.chosen_GS)
        np.testing.assert_allclose(one.tally.probs_GS, other.tally.probs_GS, rtol=1e-5)
    assert records[0].sample.pieces == records[1].sample.pieces
    sample = records[0].sample
    text = "".join(sample.pieces[int(token)] for token in sample.token_P[sample.document_P == 0])
    assert text == TEXTS[0].text


def test_what_is_no_model_is_named(tmp_path: pathlib.Path, mixtral: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds neither a model's config.json nor a run's spec.json"):
        load_model(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"--dtype: float8 is none of auto, float32, float16, bfloat16"):
        load_model(str(mixtral), dtype="float8")
    weights = load_file(mixtral / "model.safetensors")
    gate = weights.pop("model.layers.0.block_sparse_moe.gate.weight")
    save_file(weights, mixtral / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"mixtral: the weights lack model.layers.0.\S*gate.weight and 0 more; they wo"
    ):
        load_model(str(mixtral))
    save_file({**weights, "model.layers.0.block_sparse_moe.gate.weight": gate}, mixtral / "model.safetensors")
    (mixtral / "tokenizer.json").unlink()
    (mixtral / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"mixtral: has no tokenizer that can be read: "):
        load_model(str(mixtral))
    (mixtral / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"mixtral: the weights cannot be loaded: "):
        load_model(str(mixtral))
    (mixtral / "config.json").write_text('{"model_type": "vitpose_backbone"}')
    with pytest.raises(ValueError, match=r"vitpose_backbone: transformers has no language model of this type"):
        load_model(str(mixtral))
    (mixtral / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"mixtral: is no model that transformers can read: "):
        load_model(str(mixtral))


def test_a_piece_keeps_the_space_that_it_begins_with() -> None:
    """SentencePiece's tokens lose theirs when they are decoded one by one."""
    words = Tokenizer(models.WordLevel({"\u2581the": 0, "s": 1}, unk_token="s"))
    assert pieces(words, [0, 1]) == {0: " the", 1: "s"}


def test_memory_is_bounded_by_the_builder_and_not_by_the_texts(
    mixtral: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are read as they are needed: when the first is counted, no more than a batch has been taken."""
    loaded, taken, counted = load_model(str(mixtral)), [], []

    def texts() -> object:
        for number in range(20):
            taken.append(number)
            yield Text(str(number), "the cat sat on the mat")

    add = RecordBuilder.add

    def counting(self: RecordBuilder, *args: object, **kwargs: object) -> None:
        counted.append(len(taken))
        add(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(RecordBuilder, "add", counting)
    record_model(loaded.model, loaded.tokenizer, texts(), batch_size=4)  # type: ignore[arg-type]
    assert counted[0] == 4
    assert len(taken) == 20
