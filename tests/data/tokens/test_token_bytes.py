import json

import numpy as np
import pytest
from tests.data.tokens.tokenizer import published
from tokenizers import Tokenizer, normalizers

from speciate.data.tokens.token_bytes import special_tokens, token_bytes


def sizes(text: str) -> tuple[dict[str, int], bool]:
    tokenizer = Tokenizer.from_str(text)
    table, lossless = token_bytes(tokenizer)
    assert table.dtype == np.int32
    assert len(table) == tokenizer.get_vocab_size()
    return {token: int(table[index]) for token, index in tokenizer.get_vocab().items()}, lossless


def test_byte_level_tokens_are_as_long_as_their_symbols() -> None:
    size_of, lossless = sizes(published.byte_level())
    assert lossless
    assert size_of["Ã"] == 1
    assert size_of["Ġthe"] == 4
    assert size_of["naïve café"] == 12  # an added token that is not special is also recognised in texts
    assert size_of["<|begin|>"] == size_of["<|end|>"] == 0


@pytest.mark.parametrize(
    ("text", "lossless"),
    [
        (published.byte_level(), True),
        (published.byte_level(normalizer=normalizers.NFC()), True),
        (published.byte_level(normalizer=normalizers.NFKC()), False),
        (published.byte_level(normalizer=normalizers.Lowercase()), False),
        (published.byte_level(add_prefix_space=True), False),
        (published.byte_level(lstrip=True), False),
        (published.llama(), False),
        (published.t5(), False),
        (published.bert(), False),
    ],
)
def test_what_keeps_every_byte(text: str, lossless: bool) -> None:
    assert sizes(text)[1] is lossless


def test_elsewhere_a_token_is_as_long_as_its_spelling() -> None:
    llama, _ = sizes(published.llama())
    assert llama["▁the"] == 4
    assert llama["<0x0A>"] == llama["<0xE6>"] == 1
    assert (llama["<unk>"], llama["<s>"], llama["</s>"]) == (1, 0, 0)
    t5, _ = sizes(published.t5())
    assert (t5["<unk>"], t5["<pad>"], t5["</s>"], t5["▁"]) == (1, 0, 0, 1)
    bert, _ = sizes(published.bert())
    assert (bert["the"], bert["##e"], bert["[UNK]"], bert["[SEP]"]) == (4, 1, 1, 0)


def test_a_word_that_ends_in_white_space() -> None:
    description = json.loads(published.llama())
    description["model"] |= {"end_of_word_suffix": "</w>", "merges": []}
    description["model"]["vocab"]["low</w>"] = len(description["model"]["vocab"])
    assert sizes(json.dumps(description))[0]["low</w>"] == 4


@pytest.mark.parametrize("text", [published.llama(), published.t5(), published.bert()])
def test_every_token_that_text_becomes_has_bytes(text: str) -> None:
    tokenizer = Tokenizer.from_str(text)
    tokenizer.no_padding()
    table, _ = token_bytes(tokenizer)
    for written in [*published.TEXTS, "plain words 日本 🙂"]:
        assert (table[tokenizer.encode(written, add_special_tokens=False).ids] > 0).all()


def test_special_tokens_in_the_order_of_their_ids() -> None:
    assert special_tokens(Tokenizer.from_str(published.byte_level())) == ["<|begin|>", "<|end|>"]
    assert special_tokens(Tokenizer.from_str(published.llama())) == ["<unk>", "<s>", "</s>"]
