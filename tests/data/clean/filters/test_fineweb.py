"""Test what FineWeb's rules catch, with one text for each, and what they miss."""

import pytest

LINE = "This is a line of more than thirty characters that ends well"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("\n".join(f"{LINE} {number}" for number in range(9)), "fineweb_punctuation"),
        ("\n".join(["Short one.", "Short two.", "Short three.", f"{LINE}."]), "fineweb_short_lines"),
        ("\n".join([f"{LINE}.", f"{LINE}.", f"{LINE} here too."]), "fineweb_duplicate_lines"),
        ("\n".join(f"{letter * 40}." for letter in "abcdefghi"), "fineweb_list"),
    ],
)
def test_each_rule_has_its_reason(verdict, text: str, reason: str) -> None:
    assert verdict("fineweb")(text) == reason


def test_prose_stays_and_code_goes(verdict, prose: str, code: str) -> None:
    message = verdict("fineweb")
    assert message(prose) == "kept"
    assert message(code) == "fineweb_punctuation"


def test_missed_spam_in_paragraphs_and_dropped_wrongly_dialogue(verdict) -> None:
    message = verdict("fineweb")
    assert (
        message("Buy our boats, which are the cheapest boats of all the boats on this coast, and buy them now.")
        == "kept"
    )
    assert message("\n".join(["Who?", "You.", "Me?", "None other."])) == "fineweb_short_lines"


def test_thresholds_are_settings(verdict, code: str) -> None:
    loose = {"min_punctuated_lines": 0.0, "max_short_lines": 1.0, "max_duplicate_characters": 1.0, "max_line_ends": 9.0}
    assert verdict("fineweb", **loose)(code) == "kept"


@pytest.mark.parametrize("text", [".", "\u200b", "x"])
def test_odd_texts_do_not_stop_it(verdict, text: str) -> None:
    assert verdict("fineweb")(text).startswith("fineweb")
