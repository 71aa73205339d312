import collections
import pathlib

import pytest

from speciate.config.components import options_of
from speciate.data.tokens.tokenizer import bpe


def build(texts: list[str], entries: int, archive: pathlib.Path | None = None) -> bpe.Tokenizer:
    return bpe.build(options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=entries), iter(texts), archive)


def test_merges_are_the_most_frequent_pairs() -> None:
    """Compare the first merges with the definition, counted by hand on words split at spaces."""
    text = "low low low low low lower lower newest newest newest newest newest newest widest widest widest"
    words = collections.Counter(tuple("Ġ" + word if index else word) for index, word in enumerate(text.split(" ")))
    merges = []
    for _ in range(4):
        pairs: collections.Counter[tuple[str, str]] = collections.Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:], strict=False):
                pairs[pair] += count
        best = max(pairs.values())
        merges.append({pair for pair, count in pairs.items() if count == best})
        first, second = (
            build([text], 257 + len(merges)).to_str().split('"merges":')[1].split('["')[-1].split('"')[0:3:2]
        )
        assert (first, second) in merges[-1]
        merged = collections.Counter()
        for word, count in words.items():
            symbols, index = [], 0
            while index < len(word):
                joined = word[index : index + 2] == (first, second)
                symbols.append(first + second if joined else word[index])
                index += 1 + joined
            merged[tuple(symbols)] += count
        words = merged


def test_too_little_text_is_an_error_that_says_how_little() -> None:
    with pytest.raises(ValueError, match=r"tokenizer.entries: the training text gives only \d+ of 4096 entries"):
        build(["hello"], 4096)


def test_an_archive_is_refused() -> None:
    with pytest.raises(ValueError, match="does not take an archive"):
        build(["hello"], 260, pathlib.Path("archive"))


def test_the_smallest_vocabulary_has_every_byte() -> None:
    assert build([], 257).get_vocab_size() == 257
