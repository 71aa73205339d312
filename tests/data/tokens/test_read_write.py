import json
import pathlib

import numpy as np
import pytest
from tests.data.tokens.tokenizer import published, shapes

from speciate.config.components import options_of
from speciate.data.documents import Document, write_documents
from speciate.data.tokens import lexical, read
from speciate.data.tokens import write as encoding
from speciate.data.tokens.encoder import Encoder
from speciate.data.tokens.fitted import FittedTokenizer
from speciate.data.tokens.tokenizer import bpe

TEXTS = ["def f(x):\n    return 'é' + x  # c\n", "", "?broken", "x = [1, 2]\n" * 40]


def tokenizer(entries: int = 280) -> FittedTokenizer:
    options = options_of("data/tokens/tokenizer", "bpe")(kind="bpe", entries=entries)
    return FittedTokenizer(bpe.build(options, TEXTS, None).to_str(), "bpe")


def write(
    folder: pathlib.Path,
    language: str | None,
    fitted: FittedTokenizer,
    texts: list[str] = TEXTS,
) -> dict[str, object]:
    rows = [Document(f"id{index}", "code", f"group{index % 2}", text) for index, text in enumerate(texts)]
    write_documents(folder / "source.parquet", rows)
    targets = encoding.Targets(*(folder / f"probe.{part}" for part in ("tokens.npy", "documents.parquet", "types.npy")))
    return encoding.write_encoded(folder / "source.parquet", Encoder(fitted), targets, language)


def test_documents_lie_end_to_end(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, "python", fitted)
    split = read.read_encoded(tmp_path, "probe", fitted.manifest)
    assert split.tokens_N.dtype == np.uint16
    rows = split.documents.to_pylist()
    assert [row["id"] for row in rows] == ["id0", "id1", "id2", "id3"]
    assert [row["group"] for row in rows] == ["group0", "group1", "group0", "group1"]
    assert [row["bytes"] for row in rows] == [row["surface"] for row in rows] == [len(text.encode()) for text in TEXTS]
    assert rows[0]["start"] == 0
    assert [row["start"] for row in rows[1:]] == [row["stop"] for row in rows[:-1]]
    assert rows[-1]["stop"] == len(split.tokens_N) == counts["tokens"]
    for row, text in zip(rows, TEXTS, strict=True):
        assert fitted.decode(split.tokens_N[row["start"] : row["stop"]]) == text
    assert split.starts_D.tolist() == [row["start"] for row in rows]
    assert split.lengths_D.tolist() == [row["stop"] - row["start"] for row in rows]


def test_row_groups_do_not_show(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = tokenizer()
    texts = ["", *TEXTS, "", *TEXTS, ""]
    counts = write(tmp_path, "python", fitted, texts)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.suffix == ".npy"}
    rows = read.read_encoded(tmp_path, "probe", fitted.manifest).documents
    monkeypatch.setattr("speciate.data.documents.ROW_GROUP_DOCUMENTS", 2)
    assert write(tmp_path, "python", fitted, texts) == counts
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert read.read_encoded(tmp_path, "probe", fitted.manifest).documents.equals(rows)


def test_counts(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, None, fitted)
    lengths = read.read_encoded(tmp_path, "probe", fitted.manifest).lengths_D.tolist()
    assert counts["documents"] == 4
    assert counts["bytes"] == sum(len(text.encode()) for text in TEXTS)
    octaves = [max(length, 1).bit_length() - 1 for length in lengths]
    assert counts["by_octave"] == [octaves.count(octave) for octave in range(max(octaves) + 1)]


def test_a_split_without_documents(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, "python", fitted, [])
    assert counts["documents"] == counts["tokens"] == counts["bytes"] == counts["documents_refused"] == 0
    assert counts["by_octave"] == []
    split = read.read_encoded(tmp_path, "probe", fitted.manifest)
    assert (len(split.tokens_N), len(split.documents)) == (0, 0)
    assert split.tokens_N.dtype == np.uint16
    assert split.starts_D.tolist() == split.lengths_D.tolist() == []
    assert np.load(tmp_path / "probe.types.npy").shape == (0,)


def test_types_belong_to_their_tokens(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    counts = write(tmp_path, "python", fitted)
    types = np.load(tmp_path / "probe.types.npy")
    tokens = np.load(tmp_path / "probe.tokens.npy")
    assert types.dtype == np.uint8
    assert len(types) == len(tokens)
    assert counts["documents_refused"] == 1
    assert counts["tokens_by_type"] == {name: int((types == index).sum()) for index, name in enumerate(lexical.TYPES)}
    ids, lengths = fitted.encode(TEXTS[:1])
    expected, _ = lexical.token_types(TEXTS[0], fitted.token_bytes[ids])
    assert types[: lengths[0]].tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 4


def test_without_a_language_every_type_is_other(tmp_path: pathlib.Path) -> None:
    counts = write(tmp_path, None, tokenizer())
    assert not np.load(tmp_path / "probe.types.npy").any()
    assert counts["documents_refused"] == 0


@pytest.mark.parametrize(
    ("text", "end"), [(published.llama(), "</s>"), (published.unlimited_t5(), "</s>"), (published.bert(), "[SEP]")]
)
def test_a_tokenizer_that_drops_bytes(tmp_path: pathlib.Path, text: str, end: str) -> None:
    fitted = FittedTokenizer(text, "pretrained", end)
    counts = write(tmp_path, None, fitted)
    rows = read.read_encoded(tmp_path, "probe", fitted.manifest).documents
    assert rows["bytes"].to_pylist() == [len(source_text.encode()) for source_text in TEXTS]
    assert rows["bytes"].to_pylist() != rows["surface"].to_pylist()
    assert counts["tokens"] == len(fitted.encode(TEXTS)[0])
    tokens = np.load(tmp_path / "probe.tokens.npy")
    for row in rows.to_pylist():
        assert row["surface"] == fitted.token_bytes[tokens[row["start"] : row["stop"]]].sum()
    with pytest.raises(
        ValueError, match=r"^language: lexical types of python need a tokenizer whose tokens keep every"
    ):
        write(tmp_path, "python", fitted)


def test_a_document_that_is_not_recovered_from_its_tokens_is_named(tmp_path: pathlib.Path) -> None:
    """A tokenizer that composes characters is lossless only on composed text."""
    from tokenizers import normalizers

    fitted = FittedTokenizer(published.byte_level(normalizer=normalizers.NFC()), "pretrained", "<|end|>")
    assert write(tmp_path, None, fitted, ["caf\u00e9", ""])["documents"] == 2
    with pytest.raises(ValueError, match=r"^document id2: its tokens stand for 5 bytes, but it has 6$"):
        write(tmp_path, None, fitted, ["a", "", "cafe\u0301", "b"])


def test_a_text_that_becomes_the_end_of_one_is_refused(tmp_path: pathlib.Path) -> None:
    """T5's model has </s> as an ordinary entry; `pretrained` makes it unreachable, but a bare tokenizer does not."""
    fitted = FittedTokenizer(published.unlimited_t5(), "pretrained", "</s>")
    with pytest.raises(
        ValueError, match=r"^document id2: its text is encoded with </s>, the token that ends a document$"
    ):
        write(tmp_path, None, fitted, ["the", "", "the </s> the", "the"])


def test_another_tokenizer_is_refused(tmp_path: pathlib.Path) -> None:
    write(tmp_path, None, tokenizer())
    with pytest.raises(ValueError, match=r"probe.documents.parquet: was encoded with another tokenizer"):
        read.read_encoded(tmp_path, "probe", tokenizer(283).manifest)


def test_equal_input_gives_equal_bytes(tmp_path: pathlib.Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, "python", tokenizer())
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_files_that_do_not_belong_together_are_refused(tmp_path: pathlib.Path) -> None:
    fitted = tokenizer()
    write(tmp_path, None, fitted)
    np.save(tmp_path / "probe.tokens.npy", np.zeros(7, np.uint16))
    with pytest.raises(ValueError, match=r"probe.tokens.npy: has 7 tokens of type uint16, but probe.documents.parquet"):
        read.read_encoded(tmp_path, "probe", fitted.manifest)
    (tmp_path / "probe.documents.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"probe.documents.parquet: cannot be read"):
        read.read_encoded(tmp_path, "probe", fitted.manifest)
    (tmp_path / "probe.documents.parquet").unlink()
    with pytest.raises(ValueError, match=r"probe.documents.parquet: cannot be read"):
        read.read_encoded(tmp_path, "probe", fitted.manifest)


def test_lost_text_is_counted(tmp_path: pathlib.Path) -> None:
    fitted = FittedTokenizer(published.silent(), "pretrained", "</s>")
    counts = write(tmp_path, None, fitted, ["the thing", "日本 the", "this 🙂 and é 語", ""])
    assert (counts["documents"], counts["documents_with_loss"]) == (4, 2)
    assert counts["lost_characters"] == 4  # é is in the tokenizer's training text
    assert counts["lost_bytes"] == 3 + 3 + 4 + 3
    assert counts["bytes"] == len("the thing日本 thethis 🙂 and é 語".encode())


def test_a_document_of_which_nothing_is_left_is_refused(tmp_path: pathlib.Path) -> None:
    fitted = FittedTokenizer(published.silent(), "pretrained", "</s>")
    message = r"^domains.code: document id1: the tokenizer has no token for any of its 3 characters \('日本語'\): "
    with pytest.raises(ValueError, match=message):
        write(tmp_path, None, fitted, ["the", "日本 語", "this"])
    assert write(tmp_path, None, fitted, ["", "  ", "日本 the"])["documents_with_loss"] == 1


@pytest.mark.parametrize("unknown", ["<unk>", "</s>"])
def test_an_unknown_token_that_the_vocabulary_lacks_or_that_ends_documents_is_an_error(
    tmp_path: pathlib.Path, unknown: str
) -> None:
    description = json.loads(published.silent())
    description["model"]["unk_token"] = unknown
    fitted = FittedTokenizer(json.dumps(description), "pretrained", "</s>")
    message = {
        "<unk>": r"^document id1: tokenizers [0-9.]+ cannot encode it: .*<unk>",
        "</s>": r"^document id1: its text is encoded with </s>, the token that ends a document, and which the "
        "tokenizer writes for what it cannot spell$",
    }
    with pytest.raises(ValueError, match=message[unknown]):
        write(tmp_path, None, fitted, ["the", "the 日本", "this"])


def test_code_that_lost_a_byte_has_no_lexical_types(tmp_path: pathlib.Path) -> None:
    fitted = FittedTokenizer(shapes.shape("smollm_2"), "pretrained", shapes.END)
    assert {4} <= fitted.missing_bytes
    code = "def f(x):\n    return x + 1\n"
    counts = write(tmp_path, "python", fitted, [code, code.replace("x + 1", "x + 1 # \x04"), code])
    assert (counts["documents_with_loss"], counts["lost_characters"], counts["documents_refused"]) == (1, 1, 1)
    rows = read.read_encoded(tmp_path, "probe", fitted.manifest).documents.to_pylist()
    types = np.load(tmp_path / "probe.types.npy")
    assert [types[row["start"] : row["stop"]].any() for row in rows] == [True, False, True]
    assert [row["bytes"] - row["surface"] for row in rows] == [0, 1, 0]


def test_a_special_token_in_a_text_is_refused(tmp_path: pathlib.Path) -> None:
    """Llama 3's model takes a whole word from its vocabulary before it merges; a special token may be such an entry."""
    description = json.loads(shapes.shape("llama_3"))
    index = description["model"]["vocab"]["<s>"] = len(description["model"]["vocab"])
    description["post_processor"] = None
    description["added_tokens"] = [token | {"id": token["id"] + 1} for token in description["added_tokens"]]
    description["pre_tokenizer"] = description["pre_tokenizer"]["pretokenizers"][1]
    description["added_tokens"].insert(0, published.added(index, "<s>"))
    fitted = FittedTokenizer(json.dumps(description), "pretrained", shapes.END)
    with pytest.raises(ValueError, match=r"^document id1: its text is encoded with <s>, a special token$"):
        write(tmp_path, None, fitted, ["the <s>", "<s>"])
