"""Test that text in another encoding than UTF-8 is recognised, above all where its bytes are UTF-8 too."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.data.fetch.encodings import decode_utf8, other_encoding, other_encoding_of
from speciate.data.reading_errors import ReadingError

SAMPLES = {
    "English": "The quick brown fox jumps over the lazy dog.\nIt’s late.\n",
    "Russian": "Привет, мир! Съешь же ещё этих мягких булок.\n",
    "Russian in capitals": "ПРИВЕТ",
    "Greek": "Καλημέρα κόσμε, τι κάνεις;",
    "Hindi": "नमस्ते दुनिया",
    "Arabic": "مرحبا بالعالم",
    "code": "def f(x):\n\treturn x + 1\r\n",
    "one letter": "a",
}


@pytest.mark.parametrize("text", SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_refused_with_and_without_a_mark(text: str, encoding: str) -> None:
    name = encoding.upper().replace("F-", "F").replace("-LE", "LE").replace("-BE", "BE").replace("UTF", "UTF-")
    mark = codecs.lookup(encoding).incrementalencoder().encode("\ufeff")
    with pytest.raises(ReadingError, match=rf"^source s: file f is {name}, not UTF-8: convert it, for example with `i"):
        decode_utf8(mark + text.encode(encoding), "source s: file f")
    with pytest.raises(ReadingError, match=r"^source s: file f (looks like UTF-|is not UTF-8: byte 0x)"):
        decode_utf8(text.encode(encoding), "source s: file f")
    if text.isascii() and len(text) > 1:
        assert f"looks like {name}, not" in str(other_encoding(text.encode(encoding)))


def test_text_that_became_another_is_recognised() -> None:
    text = "привет мир".encode("utf-16-le").decode()
    assert "".join(letter for letter in text if letter >= " ") == "?@825B <8@"
    assert "looks like UTF-16LE, not UTF-8" in str(other_encoding_of(text))
    with pytest.raises(ReadingError, match="looks like ISO-2022-JP, not UTF-8"):
        decode_utf8("こんにちは".encode("iso-2022-jp"), "w")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "a\x00b\x1b = 1",
        "\x1b[31mred\x1b[0m\x1b(B",
        "one\x00two\x00three\x00",
        "\x01\x02\x03\x04",
        "1\x1f2\x1f3\x1e4",
        "1\t2\t3\n4\t5\t6\n",
        "\ufeffmarked",
        *SAMPLES.values(),
    ],
)
def test_utf8_with_odd_characters_stays(text: str) -> None:
    assert decode_utf8(text.encode(), "w") == text
    assert other_encoding_of(text) is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cc"))))
def test_text_without_control_characters_is_never_suspected(text: str) -> None:
    assert decode_utf8(text.encode(), "w") == text
