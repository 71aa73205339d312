"""Test which tokenizers are taken for byte-level, against what they do to texts."""

import json
from typing import Any

import numpy as np
import pytest
from tests.data.tokens.test_encoder import ODD, PIECES
from tests.data.tokens.tokenizer import published, shapes
from tokenizers import Tokenizer, normalizers
from tokenizers import pre_tokenizers as pre

from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.lossless import ALPHABET, BYTE_OF_SYMBOL, missing_bytes, why_not_lossless

TEXTS = [
    *ODD,
    *PIECES,
    *published.TEXTS,
    "a <think> b</think>c<think>",
    "<｜User｜>hi <｜end▁of▁sentence｜><|begin_of_text|> >>TITLE<<",
    "  two   three    four\n        eight\n\t\t",
    "1234567 ab12 ²³½ 2² 12 123 1234 12345 ۱۲۳۴",
    "a,b.c!!..«»x“ ”—-–  ... 日本。、",
]


def reference(text: str) -> Tokenizer:
    """Return the library's own tokenizer, which takes special tokens in a text for text."""
    tokenizer = Tokenizer.from_str(text)
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("name", shapes.MAKERS)
def test_the_shapes_of_published_models_are_byte_level_and_encoded_fast(name: str) -> None:
    text = shapes.shape(name)
    fitted = FittedTokenizer(text, "pretrained", shapes.END)
    assert fitted.manifest.lossless
    assert fitted.why_not_lossless is None
    encoder = Encoder(fitted)
    assert encoder.reason is None
    assert encoder.name.startswith("fastokens ")
    ids, lengths = encoder.encode(TEXTS, range(len(TEXTS)))
    own = reference(text)
    for written, part in zip(TEXTS, np.split(ids, np.cumsum(lengths)[:-1]), strict=True):
        assert part.tolist() == own.encode(written, add_special_tokens=False).ids, written[:40]


@pytest.mark.parametrize("name", [name for name in shapes.MAKERS if name != "smollm_2"])
def test_their_tokens_bring_every_text_back(name: str) -> None:
    fitted = FittedTokenizer(shapes.shape(name), "pretrained", shapes.END)
    assert not fitted.missing_bytes
    for text in TEXTS:
        text = normalizers.NFC().normalize_str(text)
        ids, _ = fitted.encode([text])
        assert fitted.decode(ids) == text
        assert fitted.token_bytes[ids].sum() == len(text.encode())


def test_a_vocabulary_without_an_initial_alphabet_lacks_the_bytes_that_its_text_lacked() -> None:
    fitted = FittedTokenizer(shapes.shape("smollm_2"), "pretrained", shapes.END)
    seen = set("".join([*published.TEXTS, "In 1984 he had 1234567 things; 日本語 text, Ünïcödé ½ ²"]).encode())
    assert fitted.missing_bytes == set(range(256)) - seen
    text = "the thing is 1984 日本"
    ids, _ = fitted.encode([text])
    assert fitted.decode(ids) == text
    assert fitted.token_bytes[ids].sum() == len(text.encode())
    lost = "the \x04thing"
    assert fitted.decode(fitted.encode([lost])[0]) == "the thing"


def test_symbols_stand_for_bytes_as_the_library_writes_them() -> None:
    assert set(BYTE_OF_SYMBOL) == ALPHABET
    step = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    characters = "".join(map(chr, [*range(0x800), 0x65E5, 0x1F642, 0x40000, 0xF0000, 0x10FFFF]))
    symbols = "".join(part for part, _ in step.pre_tokenize_str(characters))
    assert bytes(BYTE_OF_SYMBOL[symbol] for symbol in symbols) == characters.encode()


def changed(pre_tokenizer: Any = None, normalizer: Any = None, **model: Any) -> dict[str, Any]:
    """Return a byte-level tokenizer with other steps."""
    tokenizer = Tokenizer.from_str(shapes.shape("qwen"))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    description = json.loads(tokenizer.to_str())
    description["model"] |= model
    return description


BYTES = pre.ByteLevel(add_prefix_space=False)


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        (
            changed(pre.Sequence([pre.WhitespaceSplit(), BYTES])),
            "its pre-tokenizer WhitespaceSplit may change the text",
        ),
        (changed(pre.Sequence([pre.Split(" ", "removed"), BYTES])), "its pre-tokenizer Split may change the text"),
        (changed(pre.Sequence([pre.Punctuation("removed"), BYTES])), "its pre-tokenizer Punctuation may change"),
        (changed(pre.Metaspace()), "write bytes as symbols 0 times instead of once"),
        (changed(pre.Sequence([BYTES, BYTES])), "write bytes as symbols 2 times instead of once"),
        (changed(BYTES, normalizers.ByteLevel()), "write bytes as symbols 2 times instead of once"),
        (changed(pre.ByteLevel(add_prefix_space=True)), "its pre-tokenizer ByteLevel adds a space before the text"),
        (changed(BYTES, normalizers.NFKC()), "its normalizer NFKC may change the text"),
        (
            changed(BYTES, normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])),
            "normalizer Lowercase may",
        ),
        (changed(BYTES, end_of_word_suffix="</w>"), "its model has the end_of_word_suffix '</w>'"),
        (json.loads(published.bert()), "its model is WordPiece"),
        (json.loads(published.t5()), "its model is Unigram"),
        (json.loads(published.llama()), "write bytes as symbols 0 times instead of once"),
        (
            json.loads(published.byte_level(lstrip=True)),
            "its added token 'naïve café' takes in the white space around it",
        ),
    ],
)
def test_what_changes_the_text_is_not_byte_level_and_it_says_why(description: dict[str, Any], reason: str) -> None:
    assert reason in (why_not_lossless(description) or "")


@pytest.mark.parametrize("steps", [pre.Split("the", "isolated"), pre.Digits(), pre.Punctuation(), pre.UnicodeScripts()])
def test_a_cut_before_or_after_the_bytes_keeps_them(steps: Any) -> None:
    for sequence in ([steps, BYTES], [BYTES, steps]):
        description = changed(pre.Sequence(sequence))
        assert why_not_lossless(description) is None
        tokenizer = reference(json.dumps(description))
        for text in published.TEXTS:
            assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_bytes_may_be_written_by_the_normalizer() -> None:
    description = changed(
        pre.Split("Ġ", "merged_with_next"), normalizers.Sequence([normalizers.NFC(), normalizers.ByteLevel()])
    )
    assert why_not_lossless(description) is None
    assert missing_bytes(description) == set()
    fitted = FittedTokenizer(json.dumps(description), "pretrained", shapes.END)
    encoder = Encoder(fitted)
    assert (encoder.reason or "").startswith("fastokens cannot load the tokenizer: ")
    for text in published.TEXTS:
        ids, _ = encoder.encode([text], ["d"])
        assert fitted.token_bytes[ids].sum() == len(text.encode())


def test_fastokens_is_not_used_where_it_gives_other_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    import fastokens

    other = FittedTokenizer(shapes.shape("starcoder"), "pretrained", shapes.END)
    load = fastokens.Tokenizer.from_json_str
    monkeypatch.setattr(fastokens.Tokenizer, "from_json_str", lambda text: load(shapes.shape("gpt_neox")))
    encoder = Encoder(other)
    assert (encoder.reason or "").startswith("fastokens gives other ids for ")
    assert encoder.encode(TEXTS, TEXTS)[0].tolist() == other.encode(TEXTS)[0].tolist()
