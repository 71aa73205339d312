import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.tokens.tokenizer import published

from speciate.config.components import options_of
from speciate.data.tokens.fitted import FittedTokenizer, read_tokenizer
from speciate.data.tokens.manifest import END_OF_TEXT, read_manifest
from speciate.data.tokens.tokenizer import bpe

TRAINING = [
    "def f(x):\n    return x + 1  # más\n",
    "The naïve café is open. " * 5,
    "x = 12 * 13 = 156\n\n\n",
    "日本語 🙂",
]


def fitted(entries: int = 300) -> FittedTokenizer:
    options = options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=entries)
    return FittedTokenizer(bpe.build(options, iter(TRAINING), None).to_str(), "bpe")


FITTED = fitted()
LLAMA = FittedTokenizer(published.llama(), "pretrained", "</s>")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=60), max_size=4))
def test_any_text_comes_back_and_its_bytes_add_up(texts: list[str]) -> None:
    ids, lengths = FITTED.encode(texts)
    assert len(ids) == lengths.sum()
    for text, part in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]) if texts else [], strict=True):
        assert FITTED.decode(part) == text
        assert FITTED.token_bytes[part].sum() == len(text.encode())


def test_each_id_stands_for_its_own_bytes() -> None:
    for text in TRAINING:
        ids, _ = FITTED.encode([text])
        offset, raw = 0, text.encode()
        for index in ids:
            size = int(FITTED.token_bytes[index])
            alone = FITTED.tokenizer.id_to_token(int(index))
            assert len(alone) == size
            assert FITTED.decode(np.array([index])) == raw[offset : offset + size].decode(errors="replace")
            offset += size


def test_a_text_that_spells_the_special_token_does_not_mean_it() -> None:
    text = f"before {END_OF_TEXT} after"
    ids, _ = FITTED.encode([text])
    assert FITTED.manifest.end_of_text not in ids
    assert FITTED.decode(ids) == text


def test_only_the_special_token_stands_for_no_bytes() -> None:
    assert np.flatnonzero(FITTED.token_bytes == 0).tolist() == [FITTED.manifest.end_of_text]
    assert FITTED.tokenizer.id_to_token(FITTED.manifest.end_of_text) == END_OF_TEXT
    assert FITTED.token_bytes.dtype == np.int32
    assert FITTED.manifest.vocabulary == 300


@pytest.mark.parametrize(("vocabulary", "dtype"), [(4096, np.uint16), (65536, np.uint16), (65537, np.uint32)])
def test_ids_take_the_smallest_type_that_holds_them(vocabulary: int, dtype: type) -> None:
    assert FITTED.manifest.model_copy(update={"vocabulary": vocabulary}).dtype == dtype


def write(folder: pathlib.Path) -> None:
    for name, content in FITTED.files().items():
        (folder / name).write_bytes(content)


def test_it_is_read_back_from_its_folder(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    again = read_tokenizer(tmp_path)
    assert again.manifest == FITTED.manifest == read_manifest(tmp_path)
    assert (np.load(tmp_path / "token_bytes.npy") == FITTED.token_bytes).all()
    assert again.encode(TRAINING)[0].tolist() == FITTED.encode(TRAINING)[0].tolist()


def test_files_that_do_not_belong_together_are_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path)
    (tmp_path / "tokenizer.json").write_text(fitted(310).text)
    with pytest.raises(ValueError, match=r"tokenizer.json: is not the tokenizer"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer.json: cannot be read"):
        read_tokenizer(tmp_path)
    write(tmp_path)
    manifest = FITTED.manifest.model_copy(update={"end_of_text": 5})
    (tmp_path / "tokenizer_manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(ValueError, match=r"tokenizer.json: does not match tokenizer_manifest.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer_manifest.json").write_text('{"kind": "bpe"}')
    with pytest.raises(ValueError, match=r"tokenizer_manifest.json: vocabulary: is missing"):
        read_tokenizer(tmp_path)


def test_an_entry_that_stands_for_no_bytes_is_refused() -> None:
    broken = json.loads(FITTED.text)
    broken["model"]["vocab"] = {**broken["model"]["vocab"], "<pad>日": 300}
    with pytest.raises(ValueError, match=r"id 300 .* is not a byte-level token"):
        FittedTokenizer(json.dumps(broken), "bpe")
    broken["model"]["vocab"] = {**json.loads(FITTED.text)["model"]["vocab"], "ab": 400}
    with pytest.raises(ValueError, match="without gaps"):
        FittedTokenizer(json.dumps(broken), "bpe")


def test_what_ends_a_text_must_be_a_special_token() -> None:
    with pytest.raises(ValueError, match=r"</s> is not one of its special tokens: <\|endoftext\|>$"):
        FittedTokenizer(FITTED.text, "bpe", "</s>")
    with pytest.raises(ValueError, match="a is not one of its special tokens"):
        FittedTokenizer(FITTED.text, "bpe", "a")
    plain = json.dumps(json.loads(FITTED.text) | {"added_tokens": []})
    with pytest.raises(ValueError, match="special tokens: none"):
        FittedTokenizer(plain, "bpe")


@pytest.mark.parametrize(
    ("text", "end"), [(published.llama(), "</s>"), (published.t5(), "</s>"), (published.bert(), "[SEP]")]
)
def test_one_that_is_not_byte_level_is_read_back_as_well(tmp_path: pathlib.Path, text: str, end: str) -> None:
    tokenizer = FittedTokenizer(text, "pretrained", end)
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_bytes(content)
    again = read_tokenizer(tmp_path)
    assert again.manifest == tokenizer.manifest
    assert not again.manifest.lossless
    assert again.manifest.end_token == end
    assert again.tokenizer.id_to_token(again.manifest.end_of_text) == end


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_byte_fallback_brings_any_text_back(text: str) -> None:
    ids, _ = LLAMA.encode([text])
    assert LLAMA.decode(ids) == text
    assert LLAMA.manifest.end_of_text not in ids


PROGRAM = """
import pathlib, sys
from speciate.data.tokens.tokenizer import bpe
from speciate.config.components import options_of
folder = pathlib.Path(sys.argv[1])
texts = [file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py"))]
tokenizer = bpe.build(options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=1000), iter(texts), None)
sys.stdout.write(tokenizer.to_str())
"""


def test_fitting_depends_on_neither_hash_seed_nor_threads() -> None:
    source = pathlib.Path(__file__).parents[3] / "src"
    outputs = set()
    for hash_seed, threads in [("0", "1"), ("1", "2"), ("12345", "4")]:
        environment = os.environ | {
            "PYTHONHASHSEED": hash_seed,
            "RAYON_NUM_THREADS": threads,
            "TOKENIZERS_PARALLELISM": "true",
            "PYTHONPATH": str(source),
        }
        command = [sys.executable, "-c", PROGRAM, str(source)]
        outputs.add(subprocess.run(command, env=environment, capture_output=True, check=True).stdout)
    assert len(outputs) == 1
    assert len(json.loads(outputs.pop())["model"]["vocab"]) == 1000
