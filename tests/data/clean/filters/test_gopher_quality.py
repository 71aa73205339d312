"""Test what Gopher's quality rules catch, with one text for each rule, and what they miss."""

import pytest

WORDS = "the harbour and the river to be crossed by those that have boats with sails "


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The end of the story.", "gopher_few_words"),
        ("a b c d e f g to be of " * 10, "gopher_short_words"),
        ("incomprehensibilities and the electroencephalograph " * 30, "gopher_long_words"),
        (WORDS * 6 + "# " * 30, "gopher_hashes"),
        (WORDS * 6 + "wait... " * 30, "gopher_ellipses"),
        ("\n".join(f"- the item and its price of number {number}" for number in "abcdefghijklmno"), "gopher_bullets"),
        ("\n".join([WORDS + "...", WORDS, WORDS] * 4), "gopher_end_ellipses"),
        (WORDS * 4 + "12 34 56 78 90 " * 12, "gopher_not_alphabetic"),
        ("harbour river boats sails weather timber salt cloth quays museum " * 6, "gopher_stop_words"),
    ],
)
def test_each_rule_has_its_reason(verdict, text: str, reason: str) -> None:
    assert verdict("gopher_quality")(text.strip()) == reason


def test_the_longest(verdict, prose: str) -> None:
    assert verdict("gopher_quality", max_words=50)(prose) == "gopher_many_words"


def test_prose_stays_and_code_goes(verdict, prose: str, code: str) -> None:
    message = verdict("gopher_quality")
    assert message(prose) == "kept"
    assert message(code * 5) == "gopher_not_alphabetic"


def test_missed_fluent_nonsense(verdict) -> None:
    nonsense = "The colourless ideas of the river have been sleeping with furious tables that sing to the spoon. " * 6
    assert verdict("gopher_quality")(nonsense) == "kept"


def test_dropped_wrongly_sums_and_other_languages(verdict) -> None:
    message = verdict("gopher_quality")
    sums = "She buys 3 apples at 2 dollars and 4 pears at 5 dollars: 3 * 2 = 6, 4 * 5 = 20, and 6 + 20 = 26. " * 5
    assert message(sums) == "gopher_short_words"
    assert (
        message("In der Nacht stieg der Fluss und riss die Brücke fort, die ihre Väter bauten. " * 8)
        == "gopher_stop_words"
    )


def test_dropped_wrongly_scripts_without_spaces_unless_the_rules_for_english_are_off(verdict) -> None:
    chinese = "老人坐在桥头，看着船只慢慢驶向大海，说起洪水冲走旧桥的那个夜晚。" * 4
    assert verdict("gopher_quality")(chinese) == "gopher_short_words"
    # two letters count as a word: clauses of 6, 10 and 13 letters have 3 + 5 + 7 words
    others = {"min_word_length": 1, "min_stop_words": 0}
    assert verdict("gopher_quality", min_words=60, **others)(chinese) == "kept"
    assert verdict("gopher_quality", min_words=61, **others)(chinese) == "gopher_few_words"


def test_words_with_marks_are_words(verdict) -> None:
    hindi = "नदी के किनारे पुरानी किताबें रखी थीं " * 8
    assert verdict("gopher_quality", min_words=56, min_stop_words=0)(hindi) == "kept"
    assert verdict("gopher_quality", min_words=57, min_stop_words=0)(hindi) == "gopher_few_words"


def test_thresholds_are_settings(verdict) -> None:
    assert verdict("gopher_quality", min_words=4)("The ending of the story and of history.") == "kept"
    assert verdict("gopher_quality", min_words=4, min_stop_words=4)("The end of that story.") == "gopher_stop_words"


@pytest.mark.parametrize("text", ["...", "\u200b", "!?", "1", "•", "\u2028x", "# " * 9 + "#"])
def test_odd_texts_are_judged_and_not_divided_by_zero(verdict, text: str) -> None:
    assert verdict("gopher_quality")(text) == "gopher_few_words"
