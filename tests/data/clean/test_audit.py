"""Test that formatting artefacts are found, named and counted."""

from speciate.data.clean.audit import Audit


def audited(texts: list[str]) -> Audit:
    audit = Audit()
    for text in texts:
        audit.add(text)
    return audit


def test_ends_and_characters_that_nobody_sees() -> None:
    written = audited(
        [" a", "b\n", "\tc\t", "", "x\u200by\u200b\u00ad", "\ufeffz\x00", "\u00a0w", "\x85\ufffd"]
    ).as_json()
    assert (written["documents"], written["leading_space"], written["trailing_space"]) == (8, 4, 2)
    assert written["unseen"] == {
        "U+0000 CONTROL": 1,
        "U+0085 CONTROL": 1,
        "U+00A0 NO-BREAK SPACE": 1,
        "U+00AD SOFT HYPHEN": 1,
        "U+200B ZERO WIDTH SPACE": 2,
        "U+FEFF ZERO WIDTH NO-BREAK SPACE": 1,
        "U+FFFD REPLACEMENT CHARACTER": 1,
    }
    assert written["unseen_documents"]["U+200B ZERO WIDTH SPACE"] == 1


def test_a_fixed_beginning_and_end_are_found_whole() -> None:
    texts = [f"Problem: what is {n} + {n}?\nSolution: {2 * n}\nThat is the answer." for n in range(5000)]
    others = [f"{n} things are in the box that was sent by mail on day {n}" for n in range(3000)]
    audit = audited([text for pair in zip(texts, others * 2, strict=False) for text in pair])
    prefixes, suffixes = audit.prefixes.as_json(), audit.suffixes.as_json()
    key, text, count = prefixes["top"][0]
    assert (key, text) == ("Problem: what is", "Problem: what is ")
    assert 5000 - prefixes["below"] <= count <= 5000 and prefixes["below"] < 20
    assert suffixes["top"][0][0] == "t is the answer." and 5000 - suffixes["below"] <= suffixes["top"][0][2] <= 5000
    assert audit.first.counts["P"] == 5000


def test_ordinary_text_has_no_artefacts_and_short_texts_no_beginnings() -> None:
    written = audited(["Plain text – with a dash, “quotes” and é.", "short"]).as_json()
    assert written["unseen"] == {}
    assert len(written["prefixes"]["top"]) == 1


def test_audits_add_up() -> None:
    texts = [f"{n % 7} text\u200b number {n % 3} " for n in range(50)]
    parts = audited(texts[:20]) + audited(texts[20:])
    assert parts == audited(texts)
    assert Audit.from_json(parts.as_json()).as_json() == parts.as_json()
