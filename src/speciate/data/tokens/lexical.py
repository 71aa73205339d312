"""Label every token of Python code with its lexical type: keyword, name, number, string, operator, comment, or other.

The types come from Python's own `tokenize`. A BPE token takes the type that covers most of its bytes; white space
between Python's tokens is `other`. On a tie any type wins over `other`, and the earlier type in `TYPES` over the later.
If `tokenize` rejects the code (a template, a broken test file), the rest of the document is `other`, and the result
reports it.

The types must not depend on Python's version, but `tokenize` was rewritten in 3.12. It looks inside f-strings; here an
f-string is a string from its first quote to its last. It passes `?`, `$` and `!` as operators; here they are rejected,
as before 3.12. It takes a lone carriage return for a line's end or fails on it; here carriage returns and null bytes
are rejected from the start.

C characters, U bytes in UTF-8, N tokens.
"""

import io
import keyword
import re
import token as python_token
import tokenize

import numpy as np
import numpy.typing as npt

from speciate.config.contracts.statistics import TOKEN_TYPES

TYPES = TOKEN_TYPES
OTHER, KEYWORD, NAME, NUMBER, STRING, OPERATOR, COMMENT = range(len(TYPES))

_TYPE_OF = {
    python_token.NUMBER: NUMBER,
    python_token.STRING: STRING,
    python_token.OP: OPERATOR,
    python_token.COMMENT: COMMENT,
}
_REFUSED = re.compile(r"\x00|\r(?!\n)")
# Python 3.12 and 3.14 split f-strings and t-strings into several tokens; 3.11 has none of these types.
_STRING_STARTS = {code for code, name in python_token.tok_name.items() if name in ("FSTRING_START", "TSTRING_START")}
_STRING_ENDS = {code for code, name in python_token.tok_name.items() if name in ("FSTRING_END", "TSTRING_END")}


def character_types(text: str) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return the type of each character of `text`, uint8 (C,), and whether `tokenize` accepted the whole text."""
    types_C = np.zeros(len(text), np.uint8)
    if _REFUSED.search(text):
        return types_C, False
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    open_strings: list[int] = []
    try:
        for item in tokenize.generate_tokens(io.StringIO(text).readline):
            stray = item.type == python_token.OP and item.string in ("?", "$", "!") and not open_strings
            if stray or item.type == python_token.ERRORTOKEN:
                return types_C, False
            if item.type in _STRING_STARTS:
                open_strings.append(starts[item.start[0] - 1] + item.start[1])
            elif item.type in _STRING_ENDS:
                types_C[open_strings.pop() : starts[item.end[0] - 1] + item.end[1]] = STRING
            elif not open_strings and (kind := _type_of(item)) != OTHER:
                start = starts[item.start[0] - 1] + item.start[1]
                assert text.startswith(item.string, start), (item, start)
                types_C[start : start + len(item.string)] = kind
    except (tokenize.TokenError, SyntaxError):
        return types_C, False
    return types_C, True


def token_types(text: str, bytes_N: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.uint8], bool]:
    """Return the type of each token of `text`, uint8 (N,), and whether `tokenize` accepted the whole text.

    Args:
        text: a document's whole text.
        bytes_N: the number of bytes (at least 1) of each of its tokens, in order; the numbers sum to U. A token may
            hold part of a character, so bytes are counted, not characters.
    """
    types_C, accepted = character_types(text)
    code_points_C = np.frombuffer(text.encode("utf-32-le"), "<u4")
    width_C = 1 + (code_points_C >= 0x80) + (code_points_C >= 0x800) + (code_points_C >= 0x10000)
    types_U = np.repeat(types_C, width_C)
    token_U = np.repeat(np.arange(len(bytes_N)), bytes_N)
    assert len(types_U) == len(token_U), (len(types_U), len(token_U))
    cells = np.bincount(token_U * len(TYPES) + types_U, minlength=len(bytes_N) * len(TYPES))
    covered = cells.reshape(len(bytes_N), len(TYPES))
    # argmax takes the first of equal values, so `other` is moved to the end
    return ((np.roll(covered, -1, axis=1).argmax(axis=1) + 1) % len(TYPES)).astype(np.uint8), accepted


def _type_of(item: tokenize.TokenInfo) -> int:
    if item.type == python_token.NAME:
        return KEYWORD if keyword.iskeyword(item.string) else NAME
    return _TYPE_OF.get(item.type, OTHER)
