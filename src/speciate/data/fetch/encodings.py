"""Decode UTF-8, and recognise other encodings, of which some are UTF-8 too and would become another text.

The Russian word `привет` in UTF-16 is the bytes `?.@.8.2.5.B.`, with a control character for each dot, which is also
ASCII. So text is refused where every other byte is a control character, as in UTF-16, or three of four, as in UTF-32.
"""

import re

from speciate.data.reading_errors import ReadingError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some programs write in front of UTF-8; it is no text."""
MARKS = {
    b"\xff\xfe\0\0": "UTF-32LE",
    b"\0\0\xfe\xff": "UTF-32BE",
    b"\xff\xfe": "UTF-16LE",
    b"\xfe\xff": "UTF-16BE",
}
CONTROLS = bytes({*range(0x1B)} - {*b"\t\n\v\f\r"})
"""Control characters that no text has often: white space, escapes and the separators of records are not among them."""
HIGH_BYTES = CONTROLS + b"\t\n\v\f\r"
"""High bytes of the smaller scripts in UTF-16: Latin has 0, Cyrillic 4, Devanagari 9, which is also a tab."""
HAS_CONTROLS = re.compile(b"[" + re.escape(CONTROLS) + b"\x1b]")
TEXT_HAS_CONTROLS = re.compile("[" + re.escape(CONTROLS.decode()) + "\x1b]")
ISO_2022 = (b"\x1b$@", b"\x1b$A", b"\x1b$B", b"\x1b$(C", b"\x1b$(D", b"\x1b$)A", b"\x1b$)C", b"\x1b$)G")
"""What switches to a character set of two bytes in text of 7 bits, such as ISO-2022-JP."""


def decode_utf8(data: bytes, where: str) -> str:
    """Decode `data` as UTF-8. Raise ReadingError with `where` if it is not UTF-8, or is in another encoding too."""
    problem = other_encoding(data)
    if problem:
        raise ReadingError(f"{where} {problem}")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ReadingError(f"{where} is not UTF-8: byte {data[error.start]:#04x} at offset {error.start}") from None


def other_encoding_of(text: str) -> str | None:
    """Return in words which encoding a text is in that was decoded as UTF-8 by mistake; None where it is UTF-8."""
    return other_encoding(text.encode()) if TEXT_HAS_CONTROLS.search(text) else None


def other_encoding(data: bytes) -> str | None:
    """Return in words which encoding `data` is in, if it is one that is not UTF-8 or only looks like it; else None."""
    for mark, name in MARKS.items():
        if data.startswith(mark):
            return f"is {name}, not UTF-8: {_advice(name)}"
    unmarked = _unmarked_encoding(data)
    return f"looks like {unmarked}, not UTF-8: {_advice(unmarked)}" if unmarked else None


def _unmarked_encoding(data: bytes) -> str | None:
    if not HAS_CONTROLS.search(data):
        return None
    if b"\x1b$" in data and any(escape in data for escape in ISO_2022):
        return "ISO-2022-JP"
    if not 0 < len(data) - len(data.translate(None, CONTROLS)) < len(data):
        return None
    first, second, third, fourth = (data[offset : len(data) // 4 * 4 : 4] for offset in range(4))
    if _share(third + fourth, CONTROLS) > 0.95 and _are_halves(second, first):
        return "UTF-32LE"
    if _share(first + second, CONTROLS) > 0.95 and _are_halves(third, fourth):
        return "UTF-32BE"
    even, odd = (data[offset : len(data) // 2 * 2 : 2] for offset in range(2))
    if _are_halves(odd, even):
        return "UTF-16LE"
    return "UTF-16BE" if _are_halves(even, odd) else None


def _share(data: bytes, of: bytes) -> float:
    """Return the share of `data` that consists of the bytes `of`."""
    return (len(data) - len(data.translate(None, of))) / len(data) if data else 0.0


def _are_halves(high: bytes, low: bytes) -> bool:
    """Tell whether these are the high and the low bytes of text in one of the smaller scripts.

    High bytes repeat: they are control characters, or also white space but not white space alone. The low bytes of some
    scripts are control characters too, so many of those need almost all of the others.
    """
    controls, low_controls = _share(high, CONTROLS), _share(low, CONTROLS)
    if controls >= 0.7 and low_controls <= 0.3:
        return True
    return controls > 0 and _share(high, HIGH_BYTES) >= 0.9 and low_controls <= 0.75


def _advice(name: str) -> str:
    return f"convert it, for example with `iconv -f {name} -t UTF-8`"
