"""Provide small byte-level tokenizers in the shapes of published models, each as the text of its tokenizer.json."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tests.data.tokens.tokenizer.published import TEXTS
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors, trainers
from tokenizers import pre_tokenizers as pre

END = "<|endoftext|>"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK = (
    r"[\r\n]",
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-Ֆ]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
)
DEEPSEEK_3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"


def cut(*patterns: str) -> list[Any]:
    """Return a step for each pattern that cuts a text at what it matches."""
    return [pre.Split(Regex(pattern), "isolated") for pattern in patterns]


def spelled(use_regex: bool = False) -> Any:
    """Return the step that writes each byte as a symbol."""
    return pre.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def build(
    steps: Sequence[Any],
    normalizer: Any = None,
    special: Sequence[str] = (END,),
    plain: Sequence[AddedToken] = (),
    *,
    alphabet: bool = True,
    **model: Any,
) -> Tokenizer:
    """Train a tokenizer; without an `alphabet`, its vocabulary lacks every byte that the training text lacks."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = steps[0] if len(steps) == 1 else pre.Sequence(list(steps))
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    symbols = sorted(pre.ByteLevel.alphabet()) if alphabet else []
    texts = [*TEXTS, "In 1984 he had 1234567 things; 日本語 text, Ünïcödé ½ ²"]
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=symbols, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(list(plain))
    return tokenizer


def exact(*tokens: str) -> list[AddedToken]:
    """Return added tokens that are not special, matched before normalisation."""
    return [AddedToken(token, normalized=False, special=False) for token in tokens]


def _llama_3() -> Tokenizer:
    tokenizer = build([*cut(LLAMA_3), spelled()], special=[END, "<|begin_of_text|>"], ignore_merges=True)
    begin = ("<|begin_of_text|>", tokenizer.token_to_id("<|begin_of_text|>"))
    template = processors.TemplateProcessing(single="<|begin_of_text|> $A", special_tokens=[begin])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return tokenizer


def _gpt_neox() -> Tokenizer:
    spaces = [AddedToken(" " * length, normalized=True, special=False) for length in range(2, 25)]
    return build([spelled(use_regex=True)], normalizers.NFC(), [END, "<|padding|>"], spaces)


def _falcon() -> Tokenizer:
    steps = [pre.Punctuation("contiguous"), spelled(use_regex=True), pre.Digits(individual_digits=False)]
    return build([*steps, *cut("[0-9][0-9][0-9]")], special=[END, ">>TITLE<<", ">>ABSTRACT<<"])


def _deepseek() -> Tokenizer:
    steps = [*cut(*DEEPSEEK), pre.Digits(individual_digits=True), spelled()]
    special = ["<｜end▁of▁sentence｜>", END]
    return build(steps, normalizers.Sequence([]), special, exact("<｜User｜>", "<think>", "</think>"))


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "llama_3": _llama_3,
    "qwen": lambda: build([*cut(QWEN), spelled()], normalizers.NFC(), plain=exact("<think>", "</think>")),
    "gpt_neox": _gpt_neox,
    "falcon": _falcon,
    "starcoder": lambda: build([pre.Digits(individual_digits=True), spelled(use_regex=True)], special=[END, "<fim>"]),
    "smollm_2": lambda: build([pre.Digits(individual_digits=True), spelled(use_regex=True)], alphabet=False),
    "deepseek": _deepseek,
    "deepseek_3": lambda: build([*cut(*DEEPSEEK_3), spelled()], normalizers.Sequence([])),
    "bloom": lambda: build([*cut(BLOOM), spelled()], special=["<unk>", "<s>", END], unk_token="<unk>"),
    "opt": lambda: build([spelled(use_regex=True)], special=["<s>", END, "<unk>"]),
    "nested": lambda: build([pre.Sequence([pre.Sequence([*cut(QWEN)]), spelled()])]),
}


@functools.cache  # training again may give other pieces
def shape(name: str) -> str:
    """Return the tokenizer.json of a shape."""
    return MAKERS[name]().to_str()
