"""Provide small tokenizers in the forms that models are published with, each as the text of its tokenizer.json."""

import functools
import json
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = [
    "The naïve café is open at noon. " * 4,
    "def f(x):\n    return x + 1  # más\n" * 3,
    "the theory of the thing: thin, thick, this and that; lower, lowest, newer, newest\n\n" * 2,
]
ODD = ["", " ", "  two  spaces ", "日本語 🙂", "tab\tand\nline\r\n", "a<s>b</s>c", "\u0301 alone", "x" * 300]


@functools.cache  # training again may give other pieces
def llama() -> str:
    """Build SentencePiece's BPE with byte fallback: words begin with `▁`, unknown characters are spelled in bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    description = json.loads(tokenizer.to_str())
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces = first + sorted(description["model"]["vocab"], key=description["model"]["vocab"].__getitem__)
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    description["model"] |= {"vocab": vocabulary, "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    description["added_tokens"] = [added(index, token) for index, token in enumerate(first[:3])]
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer.to_str()


@functools.cache
def t5() -> str:
    """Build SentencePiece's unigram model; the special tokens are ordinary entries."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=90, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9, pad_token="<pad>", pad_id=0)
    return tokenizer.to_str()


def unlimited_t5() -> str:
    """Return `t5` without its truncation and padding, as the stage `fit` writes it."""
    tokenizer = Tokenizer.from_str(t5())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.to_str()


@functools.cache
def bert() -> str:
    """Build WordPiece: lower case, accents removed, white space dropped."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer.to_str()


@functools.cache
def byte_level(**changes: Any) -> str:
    """Build one like Llama 3's and Qwen's: a custom split pattern, bytes as symbols, special and plain added tokens."""
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+")
    cut = pre_tokenizers.Split(pattern, "isolated")
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=changes.get("add_prefix_space", False), use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cut, spelt])
    tokenizer.decoder = decoders.ByteLevel()
    if "normalizer" in changes:
        tokenizer.normalizer = changes["normalizer"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    tokenizer.add_tokens([AddedToken("naïve café", normalized=False, lstrip=changes.get("lstrip", False))])
    return tokenizer.to_str()


@functools.cache
def silent(unknown: str | None = None) -> str:
    """Build a BPE of characters, not of bytes: it has no token for what its training text lacks."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["</s>", *([unknown] if unknown else [])]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    )
    return tokenizer.to_str()


def added(index: int, token: str) -> dict[str, Any]:
    """Return a special token as tokenizer.json lists it."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": token, **flags, "special": True}
