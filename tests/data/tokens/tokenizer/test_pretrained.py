import json
import pathlib
from typing import Any

import pytest
from tests.data.tokens.tokenizer import published, shapes
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from speciate.config.components import component_module, options_of
from speciate.data.fetch.passages import write_passages
from speciate.data.passage import Passage
from speciate.data.shard import Shard
from speciate.data.tokens.fitted import FittedTokenizer, switch_off
from speciate.data.tokens.token_bytes import special_tokens
from speciate.data.tokens.tokenizer import pretrained

SHAPES = {
    "llama": (published.llama, "</s>"),
    "t5": (published.t5, "</s>"),
    "bert": (published.bert, "[SEP]"),
    "byte_level": (published.byte_level, "<|end|>"),
}


def options(path: pathlib.Path, **settings: Any) -> Any:
    archive = {"kind": "tokenizer_files", "path": str(path)}
    return options_of("data/tokens/tokenizer", "pretrained")(kind="pretrained", archive=archive, **settings)


def fetched(
    folder: pathlib.Path, text: str, config: dict[str, Any] | None, **settings: Any
) -> tuple[Any, pathlib.Path]:
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "tokenizer.json").write_text(text)
    if config is not None:
        (folder / "mine" / "tokenizer_config.json").write_text(json.dumps(config))
    fetched_options = options(folder / "mine", **settings)
    component_module(fetched_options.archive).fetch(fetched_options.archive, "tokenizer", folder / "archive", Shard())
    return fetched_options, folder / "archive"


def fit(tokenizer_options: Any, archive: pathlib.Path) -> FittedTokenizer:
    """Fit the tokenizer as the stage does."""
    built = pretrained.build(tokenizer_options, [], archive)
    switched_off = switch_off(built)
    end = pretrained.end_of_text(tokenizer_options, built, archive)
    return FittedTokenizer(built.to_str(), "pretrained", end, switched_off)


@pytest.mark.parametrize("shape", SHAPES)
def test_ids_are_those_that_transformers_gives(tmp_path: pathlib.Path, shape: str) -> None:
    make, end = SHAPES[shape]
    fitted = fit(*fetched(tmp_path, make(), {"eos_token": end}))
    reference = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(make()))
    reference.backend_tokenizer.no_truncation()
    reference.backend_tokenizer.no_padding()
    assert (fitted.manifest.end_token, fitted.manifest.lossless) == (end, shape == "byte_level")
    assert fitted.manifest.vocabulary == len(reference)
    assert fitted.manifest.end_of_text == reference.convert_tokens_to_ids(end)
    for text in [*published.TEXTS, *(odd for odd in published.ODD if "<s>" not in odd)]:
        assert fitted.encode([text])[0].tolist() == reference(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("shape", ["llama", "byte_level"])
def test_texts_come_back(tmp_path: pathlib.Path, shape: str) -> None:
    make, end = SHAPES[shape]
    fitted = fit(*fetched(tmp_path, make(), {"eos_token": end}))
    for text in [*published.TEXTS, *published.ODD]:
        assert fitted.decode(fitted.encode([text])[0]) == text


@pytest.mark.parametrize("shape", SHAPES)
def test_text_never_becomes_a_special_token(tmp_path: pathlib.Path, shape: str) -> None:
    make, end = SHAPES[shape]
    fitted = fit(*fetched(tmp_path, make(), {"eos_token": end}))
    unknown = json.loads(fitted.text)["model"].get("unk_token", "<unk>")
    special_ids = {
        fitted.tokenizer.token_to_id(token) for token in special_tokens(fitted.tokenizer) if token != unknown
    }
    text = "<pad> a<s>b </s> </s>[SEP] <|begin|> <|end|>"
    assert not special_ids & set(fitted.encode([text])[0].tolist())


def test_a_unigram_model_is_otherwise_untouched(tmp_path: pathlib.Path) -> None:
    """Ids are unchanged, unknown tokens included, except where a special token is spelled out."""
    bare = Tokenizer.from_str(published.t5())
    bare.no_padding()
    bare.no_truncation()
    fitted = fit(*fetched(tmp_path, published.t5(), {"eos_token": "</s>"}))
    for text in [*published.TEXTS, "日本語 the 日 thing", "x#y%z"]:
        assert fitted.encode([text])[0].tolist() == bare.encode(text, add_special_tokens=False).ids
    assert bare.token_to_id("</s>") in bare.encode("the </s> the").ids


def test_truncation_and_padding_are_off(tmp_path: pathlib.Path) -> None:
    fitted = fit(*fetched(tmp_path, published.t5(), {"eos_token": "</s>"}))
    assert len(fitted.encode(["the " * 50])[0]) >= 50
    assert fitted.encode(["the"])[1].tolist() != [9]
    assert fitted.manifest.switched_off == ["truncation to 4 tokens", "padding with <pad>"]


def test_dropout_is_off(tmp_path: pathlib.Path) -> None:
    """With BPE-dropout every encoding is another one; the ids are those of the tokenizer without it."""
    description = json.loads(published.byte_level())
    description["model"]["dropout"] = 0.5
    fitted = fit(*fetched(tmp_path, json.dumps(description), {"eos_token": "<|end|>"}))
    own = Tokenizer.from_str(published.byte_level())
    for _ in range(3):
        for text in published.TEXTS:
            assert fitted.encode([text])[0].tolist() == own.encode(text).ids
    assert json.loads(fitted.text)["model"]["dropout"] is None
    assert fitted.manifest.switched_off == ["dropout 0.5"]


def test_nothing_is_put_around_a_text(tmp_path: pathlib.Path) -> None:
    """Whoever loads the tokenizer that a run was trained with gets the tokens of the training text, and no others."""
    fitted = fit(*fetched(tmp_path, shapes.shape("llama_3"), {"eos_token": shapes.END}))
    assert fitted.manifest.switched_off == ["the post-processor, which adds <|begin_of_text|>"]
    exported = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(fitted.text))
    assert Tokenizer.from_str(shapes.shape("llama_3")).encode("the").tokens[0] == "<|begin_of_text|>"
    assert exported("the thing")["input_ids"] == fitted.encode(["the thing"])[0].tolist()


@pytest.mark.parametrize("name", ["qwen", "deepseek"])
def test_added_tokens_that_are_not_special_are_ordinary_vocabulary(tmp_path: pathlib.Path, name: str) -> None:
    fitted = fit(*fetched(tmp_path, shapes.shape(name), {"eos_token": shapes.END}))
    reference = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(shapes.shape(name)))
    think = fitted.tokenizer.token_to_id("<think>")
    ids = fitted.encode(["a <think>b"])[0]
    assert (ids == think).sum() == 1
    assert ids.tolist() == reference("a <think>b", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert fitted.token_bytes[think] == len("<think>")
    assert fitted.token_bytes[ids].sum() == len("a <think>b")
    description = json.loads(shapes.shape(name))
    for token in description["added_tokens"]:
        token["special"] = True
    special = fit(*fetched(tmp_path, json.dumps(description), {"eos_token": shapes.END}))
    ids = special.encode(["a <think>b"])[0]
    assert think not in ids
    assert special.decode(ids) == "a <think>b"


@pytest.mark.parametrize("eos", ["</s>", {"content": "</s>", "lstrip": False, "__type": "AddedToken"}])
def test_the_end_of_a_text_is_detected(tmp_path: pathlib.Path, eos: object) -> None:
    assert fit(*fetched(tmp_path, published.llama(), {"eos_token": eos})).manifest.end_token == "</s>"


def test_the_end_of_a_text_can_be_named(tmp_path: pathlib.Path) -> None:
    arguments = fetched(tmp_path, published.byte_level(), {"eos_token": "<|end|>"}, end_of_text="<|begin|>")
    assert fit(*arguments).manifest.end_token == "<|begin|>"


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (None, {}, "tokenizer_config.json names none; the special tokens are: <unk>, <s>, </s>$"),
        ({}, {}, "tokenizer_config.json names none"),
        ({"eos_token": None}, {}, "tokenizer_config.json names none"),
        ({"eos_token": "<end>"}, {}, "<end> is not a special token; the special tokens are: <unk>, <s>, </s>$"),
        ({"eos_token": "</s>"}, {"end_of_text": "▁the"}, "▁the is not a special token"),
    ],
)
def test_without_an_end_of_text_token_the_special_tokens_are_listed(
    tmp_path: pathlib.Path, config: dict[str, Any] | None, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=r"^tokenizer.end_of_text: " + message):
        fit(*fetched(tmp_path, published.llama(), config, **settings))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "tokenizer.json cannot be loaded: Exception: EOF"),
        ("{}", "tokenizer.json cannot be loaded: Exception: Model missing"),
        ("[]", "tokenizer.json cannot be loaded: Exception: "),
        ('{"model": {"type": "Telepathy"}}', "tokenizer.json cannot be loaded: Exception: "),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^tokenizer.archive: " + message):
        pretrained.build(
            *(lambda tokenizer_options, archive: (tokenizer_options, [], archive))(*fetched(tmp_path, text, None))
        )


def test_a_broken_config_is_refused(tmp_path: pathlib.Path) -> None:
    tokenizer_options, archive = fetched(tmp_path, published.llama(), None)
    built = pretrained.build(tokenizer_options, [], archive)
    for config in ("{", "[]"):
        files = {"tokenizer.json": published.llama(), "tokenizer_config.json": config}
        write_passages(archive, [Passage(name, name, text) for name, text in files.items()], {})
        with pytest.raises(ValueError, match=r"^tokenizer.archive: tokenizer_config.json cannot be read"):
            pretrained.end_of_text(tokenizer_options, built, archive)


def test_it_needs_its_archive(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="needs the archive"):
        pretrained.build(options(tmp_path), [], None)
    write_passages(tmp_path / "archive", [Passage("vocab.txt", "vocab.txt", "the")], {})
    with pytest.raises(ValueError, match=r"tokenizer.archive: must hold tokenizer.json, not vocab.txt"):
        pretrained.build(options(tmp_path), [], tmp_path / "archive")
