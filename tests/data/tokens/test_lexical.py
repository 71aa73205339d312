import io
import keyword
import tokenize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.data.tokens import lexical

CODE = '''# a comment: ñ
@decorator
async def f(x, *, y=0x1F):
    """Doc — string."""
    s = f"{x!r:>{y}} {'in' + "ner"} é" + b'\\x00'.decode()
    return (x
            + 1.5e-3j) \\
        or None  # 日本
'''


def letters(text: str) -> str:
    types, accepted = lexical.character_types(text)
    assert accepted
    return "".join("_knNsoc"[kind] for kind in types)


def test_types_by_hand() -> None:
    assert letters("if x1 > 20:  # so") == "kk_nn_o_NNo__cccc"
    assert letters("a='b c'\n") == "nosssss_"
    assert letters('def f():\n\t"""x\n y"""\n') == "kkk_nooo__ssssssssss_"
    assert letters("x = f'{y}' 'z'") == "n_o_ssssss_sss"


def test_types_of_characters_follow_tokenize() -> None:
    """Compare with a direct reading of `tokenize`: each token's text at its line and column."""
    types, accepted = lexical.character_types(CODE)
    assert accepted
    lines = CODE.splitlines(keepends=True)
    expected = np.zeros(len(CODE), np.uint8)
    depth, start = 0, (0, 0)
    for item in tokenize.generate_tokens(io.StringIO(CODE).readline):
        name = tokenize.tok_name[item.type]
        if name == "FSTRING_START":
            start, depth = (item.start, depth + 1) if not depth else (start, depth + 1)
            continue
        begin = sum(map(len, lines[: item.start[0] - 1])) + item.start[1]
        end = sum(map(len, lines[: item.end[0] - 1])) + item.end[1]
        if name == "FSTRING_END":
            depth -= 1
            expected[sum(map(len, lines[: start[0] - 1])) + start[1] : end] = 4
        elif not depth:
            kind = {"NUMBER": 3, "STRING": 4, "OP": 5, "COMMENT": 6}.get(name, 0)
            if name == "NAME":
                kind = 1 if keyword.iskeyword(item.string) else 2
            expected[begin:end] = kind
    assert types.tolist() == expected.tolist()
    assert set(types.tolist()) == set(range(7))


@pytest.mark.parametrize(
    "code",
    [
        "print 'x'\n?",
        "x = (1,\n",
        '"""open',
        "if x:\n        a\n    b\n",
        "a = 'b\nc = 1\n",
        "\x00",
        "x\ry = '''\n'''\n",
    ],
)
def test_code_that_tokenize_rejects_is_reported_and_the_rest_is_other(code: str) -> None:
    types, accepted = lexical.character_types("y = 1\n" + code)
    assert not accepted
    assert types.shape == (len(code) + 6,)
    assert types[:5].tolist() in ([2, 0, 5, 0, 3], [0] * 5)  # a null byte is refused before the first token


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from(list("ab1_ .=()[]{}'\"#\n\r\t\\\f:@!$f🙂é\x00\ufeff")), max_size=60))
def test_nothing_makes_it_fail(text: str) -> None:
    types, _ = lexical.character_types(text)
    assert types.shape == (len(text),)
    sizes = [len(character.encode()) for character in text]
    by_token, _ = lexical.token_types(text, np.array(sizes, np.int64))
    assert by_token.tolist() == types.tolist()  # one token per character


def test_a_token_takes_the_type_that_covers_most_of_its_bytes() -> None:
    text = "x = 'é'  # c"  # n_o_s s(2 bytes) s__cccc...
    cut = [2, 1, 2, 1, 1, 2, 1, 2, 1]
    assert sum(cut) == len(text.encode())
    #        'x '    '='   " '"   é/1  é/2   "' "  ' '  '# '  'c'
    expected = ["name", "operator", "string", "string", "string", "string", "other", "comment", "comment"]
    types, accepted = lexical.token_types(text, np.array(cut))
    assert accepted
    assert [lexical.TYPES[kind] for kind in types] == expected


def test_ties_and_white_space() -> None:
    types, _ = lexical.token_types("a(1)\n   b", np.array([2, 2, 5]))
    assert [lexical.TYPES[kind] for kind in types] == ["name", "number", "other"]


def test_no_tokens() -> None:
    types, accepted = lexical.token_types("", np.zeros(0, np.int64))
    assert types.shape == (0,)
    assert accepted
