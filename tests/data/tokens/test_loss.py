"""Test how much text a tokenizer loses, against counts made by hand."""

import json
from typing import Any

import pytest
from tests.data.tokens.tokenizer import published, shapes
from tokenizers import Tokenizer, models, normalizers
from tokenizers import pre_tokenizers as pre

from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.loss import Loss, characters_with, loses_only_unknown, lost_characters

JAPANESE = "日本語の文章です。"


def lost(text: str, written: str) -> str:
    fitted = FittedTokenizer(text, "pretrained", "[SEP]" if "[SEP]" in text else "</s>")
    return lost_characters(fitted.tokenizer, written, fitted.unknown_id)


def test_a_bpe_without_an_unknown_token_drops_what_it_cannot_spell() -> None:
    text = published.silent()
    assert Tokenizer.from_str(text).encode(JAPANESE).ids == []
    assert lost(text, JAPANESE) == JAPANESE
    assert lost(text, f"the {JAPANESE} thing") == JAPANESE
    assert lost(text, "the thing, that newest thing") == ""
    assert not loses_only_unknown(json.loads(text))


@pytest.mark.parametrize("fuse_unk", [False, True])
def test_an_unknown_token_loses_what_it_stands_for(fuse_unk: bool) -> None:
    tokenizer = Tokenizer.from_str(published.silent("<unk>"))
    tokenizer.model.fuse_unk = fuse_unk
    text = tokenizer.to_str()
    tokens = Tokenizer.from_str(text).encode(JAPANESE).tokens
    assert tokens.count("<unk>") == (2 if fuse_unk else len(JAPANESE))  # the full stop is a piece of its own
    assert lost(text, f"the {JAPANESE} thing") == JAPANESE
    assert loses_only_unknown(json.loads(text))


def test_byte_fallback_loses_nothing_unless_its_bytes_are_incomplete() -> None:
    description = json.loads(published.llama())
    assert lost(published.llama(), f"the\t{JAPANESE} 🙂\u200d\x04") == ""
    assert loses_only_unknown(description)
    description["model"]["vocab"]["<0xE9>"] = description["model"]["vocab"].pop("<0xE6>")
    description["model"]["unk_token"] = None
    assert not loses_only_unknown(description)


def test_wordpiece_loses_words_that_it_cannot_spell_and_those_that_are_too_long() -> None:
    description = json.loads(published.bert())
    description["model"]["max_input_chars_per_word"] = 10
    text = json.dumps(description)
    assert lost(text, "the theory") == ""
    assert lost(text, f"the {'the' * 4} thé") == "the" * 4
    assert lost(text, "the 日本 thing") == "日本"
    assert lost(text, "the\x04 thing\u200b") == "\x04\u200b"  # its normalizer drops control characters
    assert not loses_only_unknown(description)


def test_unigram_loses_what_it_does_not_know() -> None:
    assert lost(published.unlimited_t5(), f"the {JAPANESE} thing") == JAPANESE
    assert loses_only_unknown(json.loads(published.t5()))


def test_folding_and_composing_characters_loses_none() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "e": 1, "é": 2, "ガ": 3, "fi": 4, "</s>": 5}, "<unk>"))
    tokenizer.pre_tokenizer = pre.WhitespaceSplit()
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    text = tokenizer.to_str()
    assert lost(text, "E É e\u0301 ガ ｶﾞ ﬁ") == ""
    assert lost(text, "e\u0301 x e\u0301\u0301") == "xe\u0301\u0301"
    accents = Tokenizer.from_str(text)
    accents.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    assert lost(accents.to_str(), "é e e\u0301") == ""
    assert lost(accents.to_str(), "e\u0946 \u0301") == "\u0946\u0301"  # a vowel sign composes with nothing


@pytest.mark.parametrize(
    ("normalizer", "pre_tokenizer", "dropped"),
    [
        (normalizers.Replace("h", ""), None, "hh"),
        (normalizers.Strip(), None, ""),
        (None, pre.CharDelimiterSplit("h"), "hh"),
        (None, pre.Split("h", "removed"), "hh"),
        (None, pre.Punctuation("removed"), "!"),
    ],
)
def test_what_steps_drop_is_lost(normalizer: Any, pre_tokenizer: Any, dropped: str) -> None:
    tokenizer = Tokenizer.from_str(published.llama())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    assert lost(tokenizer.to_str(), "the thing!") == dropped
    assert not loses_only_unknown(json.loads(tokenizer.to_str()))


def test_a_byte_level_tokenizer_loses_characters_that_have_a_missing_byte() -> None:
    fitted = FittedTokenizer(shapes.shape("smollm_2"), "pretrained", shapes.END)
    assert fitted.loses_only_unknown
    assert characters_with("the thing 日本\x04\U00040000", fitted.missing_bytes) == "\x04\U00040000"


def test_losses_add_up_and_say_what_they_are() -> None:
    first = Loss(documents=20, bytes=1000, documents_with_loss=2, lost_characters=100, lost_bytes=300)
    total = first + Loss(documents=1, bytes=400, documents_with_loss=1, lost_characters=150, lost_bytes=450)
    assert not first.most
    assert total.most
    assert total.describe() == ("the tokenizer loses 250 characters (750 of 1,400 bytes, 53.57%) in 3 of 21 documents")
    assert not Loss(bytes=2, lost_bytes=1).most
