"""Test what C4's rules cut out of a page, and which pages they drop."""

import pytest

from speciate.data.documents import Document


def test_a_page_loses_its_menu_and_keeps_its_prose(make, prose: str) -> None:
    menu = "Home | About | Contact\nPlease enable JavaScript to see this page.\nWe use cookies to serve you better.\n"
    page = f"{menu}{prose}[12]\nOh no.\n© 2024 Harbour Museum"
    left = make("c4").apply(Document("", "", "", page.replace("too large to sell.", "too large to sell[3].")))
    assert left.text == prose


def test_prose_is_not_touched(verdict, prose: str) -> None:
    assert verdict("c4")(prose) == "kept"


@pytest.mark.parametrize(
    ("added", "reason"),
    [
        ("\nThe brace { is here, in a line of text.", "c4_curly_bracket"),
        ("\nLorem ipsum dolor sit amet, said the page.", "c4_lorem_ipsum"),
        ("\nA line with {a brace} but no end", "edited"),  # removed before the check for brackets
        ("\n" + "x" * 1001 + " is a long word here.", "edited"),
    ],
)
def test_what_drops_a_document_and_what_a_line(verdict, prose: str, added: str, reason: str) -> None:
    assert verdict("c4")(prose + added) == reason


def test_too_few_sentences_are_left(verdict) -> None:
    message = verdict("c4")
    assert (
        message("One sentence is here. Two sentences are here. Three of them now. Four of them now.")
        == "c4_few_sentences"
    )
    assert message("One sentence is here. Two sentences are here. Three of them now. Four now. Five.") == "kept"
    assert verdict("c4", min_sentences=1)("One sentence is here.") == "kept"


def test_dropped_wrongly_code_and_verse(verdict, code: str) -> None:
    message = verdict("c4")
    assert message(code) == "c4_few_sentences"
    assert message("Tyger Tyger, burning bright,\nIn the forests of the night;\n" * 5) == "c4_few_sentences"


def test_dropped_wrongly_pages_in_chinese(verdict) -> None:
    # a line is one word to this rule, and the ideographic full stop no end of a sentence
    assert verdict("c4")("老人坐在桥头。\n船只慢慢驶向大海。\n" * 5) == "c4_few_sentences"


def test_dropped_wrongly_a_line_whose_citation_stands_apart(make, prose: str) -> None:
    # the check of the line's end sees the space that the removed citation leaves
    left = make("c4").apply(Document("", "", "", f"{prose}\nThe last line has a source. [12]"))
    assert left.text == prose


def test_missed_advertisement_in_whole_sentences(verdict) -> None:
    assert verdict("c4")("Buy our boats now. They are cheap. They are fast. Call us today. You will be glad.") == "kept"
