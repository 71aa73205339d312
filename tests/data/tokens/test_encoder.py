import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.tokens.tokenizer import published

from speciate.config.components import options_of
from speciate.data.tokens import encoder as module
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.manifest import END_OF_TEXT
from speciate.data.tokens.tokenizer import bpe

BPE = options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=320)
FITTED = FittedTokenizer(bpe.build(BPE, published.TEXTS, None).to_str(), "bpe")
PUBLISHED = FittedTokenizer(published.byte_level(), "pretrained", "<|end|>")
PIECES = [
    "a",
    "B",
    "1",
    "'s",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "é",
    "e\u0301",
    "日本",
    "🙂",
    "\u200d",
    "\xa0",
    "\u3000",
    "\x00",
]
PIECES += [
    "<|end|>",
    "<|begin|>",
    END_OF_TEXT,
    "naïve café",
    "the ",
    "_",
    "..",
    "½",
    "١",
    "ſ",
    "\u2028",
    "\ufeff",
    "'LL",
]
CHARACTERS = "".join(chr(code) for code in range(0x20000) if not 0xD800 <= code < 0xE000)
ODD = [
    "",
    *published.ODD,
    " " * 5000 + "x" + "\n" * 5000,
    "\t \n\r" * 1000,
    "x" * 100_000,
    "ab 12 " * 20_000,
    "\u0301\u0302" * 50,
    "مرحبا ١٢٣ " * 30,
    "👩‍👩‍👧‍👦" * 20,
    "".join(map(chr, range(32))),
    *(CHARACTERS[start : start + 8192] for start in range(0, len(CHARACTERS), 8192)),
]


def same(encoder: Encoder, texts: list[str]) -> None:
    """Compare every document; a run compares only a sample."""
    fitted = encoder.fitted
    assert encoder.name.startswith("fastokens ")
    assert encoder.reason is None
    ids, lengths = encoder.encode(texts, range(len(texts)))
    expected, expected_lengths = fitted.encode(texts)
    assert ids.dtype == expected.dtype == np.uint16
    assert lengths.dtype == np.int64
    assert lengths.tolist() == expected_lengths.tolist()
    assert ids.tolist() == expected.tolist()


ENCODERS = [Encoder(FITTED), Encoder(PUBLISHED)]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_ids_are_those_of_tokenizers_on_odd_texts(encoder: Encoder) -> None:
    same(encoder, ODD)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text(max_size=40), max_size=4))
def test_ids_are_those_of_tokenizers_on_any_text(texts: list[str]) -> None:
    for encoder in ENCODERS:
        same(encoder, texts)


def test_a_text_that_spells_a_special_token_does_not_mean_it() -> None:
    for fitted, token in ((FITTED, END_OF_TEXT), (PUBLISHED, "<|end|>"), (PUBLISHED, "<|begin|>")):
        ids, _ = Encoder(fitted).encode([f"a {token} b"], ["d"])
        assert fitted.tokenizer.token_to_id(token) not in ids
        assert fitted.decode(ids) == f"a {token} b"


@pytest.mark.parametrize("text", [published.llama(), published.t5(), published.bert()])
def test_a_tokenizer_that_is_not_byte_level_is_served_by_tokenizers_and_it_says_so(text: str) -> None:
    fitted = FittedTokenizer(text, "pretrained", "[SEP]" if "[SEP]" in text else "</s>")
    encoder = Encoder(fitted)
    assert encoder.name.startswith("tokenizers ")
    assert encoder.reason == f"the tokenizer is not byte-level: {fitted.why_not_lossless}"
    assert encoder.encode(published.TEXTS, [1, 2, 3])[0].tolist() == fitted.encode(published.TEXTS)[0].tolist()
    assert encoder.documents_checked == 0


def test_a_tokenizer_that_cannot_be_loaded_is_served_by_tokenizers_and_it_says_so() -> None:
    description = json.loads(FITTED.text)
    description["model"]["dropout"] = "much"
    fitted = FittedTokenizer(FITTED.text, "bpe")
    fitted.text = json.dumps(description)
    encoder = Encoder(fitted)
    assert encoder.name.startswith("tokenizers ")
    assert encoder.reason is not None
    assert encoder.reason.startswith("fastokens cannot load the tokenizer: ")
    assert encoder.encode(published.TEXTS, [1, 2, 3])[0].tolist() == FITTED.encode(published.TEXTS)[0].tolist()


class Wrong:
    """Stand in for a faulty tokenizer library that gets one token of one text wrong, or fails."""

    def __init__(self, right: object, place: int) -> None:
        self.right, self.place = right, place

    def encode_batch_flat(self, texts: list[str], split_special_tokens: bool) -> tuple[bytes, bytes]:
        if self.place < 0:
            raise RuntimeError("match limit")
        flat, offsets = self.right.encode_batch_flat(texts, split_special_tokens=split_special_tokens)
        ids = np.frombuffer(flat, "<u4").copy()
        ids[self.place] += 1
        return ids.tobytes(), offsets


def test_a_difference_is_an_error_that_names_the_document() -> None:
    encoder = Encoder(FITTED)
    lengths = FITTED.encode(published.TEXTS)[1]
    encoder._fast = Wrong(encoder._fast, int(lengths[0]) + 3)
    with pytest.raises(
        ValueError, match=r"^document code/b: fastokens [0-9.]+ and tokenizers [0-9.]+ encode it differently"
    ):
        encoder.encode(published.TEXTS, ["code/a", "code/b", "code/c"])
    encoder = Encoder(FITTED)
    encoder._fast = Wrong(encoder._fast, int(lengths[0]) + 3)
    with pytest.raises(ValueError, match="from token 3 on"):
        encoder.encode(published.TEXTS, ["a", "b", "c"])


def test_a_failure_is_an_error_that_names_the_documents() -> None:
    encoder = Encoder(FITTED)
    encoder._fast = Wrong(encoder._fast, -1)
    with pytest.raises(ValueError, match=r"^documents a to c: fastokens [0-9.]+ fails: match limit$"):
        encoder.encode(published.TEXTS, ["a", "b", "c"])


def test_the_sample_is_spread_over_the_documents_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE_CHARACTERS", 100)
    monkeypatch.setattr(module, "SAMPLE_SHARE", 1 / 10)
    encoder = Encoder(FITTED)
    checked: list[int] = []
    for name in range(400):
        before = encoder.documents_checked
        encoder.encode(["0123456789"], [name])
        checked += [name] * (encoder.documents_checked - before)
    assert checked[:10] == list(range(10))  # the first 100 characters, then every tenth document
    assert set(np.diff(checked[12:]).tolist()) == {10}
    encoder.encode(["y" * 10_000], ["long"])
    assert encoder.documents_checked == len(checked)  # a document longer than the sample is not in it
