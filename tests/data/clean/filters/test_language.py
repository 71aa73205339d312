"""Test that the filter tells languages apart without a network, and why code must be exempt."""

import re
import socket
import subprocess
import sys

import pytest

from speciate.data.documents import Document

TEXTS = {
    "en": "The river rose in the night and carried away the bridge that their fathers had built.",
    "de": "In der Nacht stieg der Fluss und riss die Brücke fort, die ihre Väter gebaut hatten.",
    "fr": "La rivière a monté pendant la nuit et a emporté le pont que leurs pères avaient construit.",
    "zh": "夜里河水上涨，冲走了他们父辈修建的那座桥，村里的人第二天早上才知道。",
}


def test_each_language_is_known_and_english_is_kept_by_default(verdict) -> None:
    message = verdict("language")
    assert {name: message(text) for name, text in TEXTS.items()} == {
        "en": "kept",
        "de": "other_language",
        "fr": "other_language",
        "zh": "other_language",
    }
    both = verdict("language", languages=["de", "zh"])
    assert [both(TEXTS[name]) for name in ("en", "de", "zh")] == ["other_language", "kept", "kept"]


def test_the_note_says_what_was_found(make) -> None:
    assert re.fullmatch(r"fr 0\.[89]\d", make("language").apply(Document("", "", "", TEXTS["fr"])).note)


def test_missed_what_comes_after_the_beginning(verdict) -> None:
    assert verdict("language", characters=80)(TEXTS["en"] + "\n" + TEXTS["de"] * 5) == "kept"
    assert verdict("language")("The report follows.\n" + TEXTS["de"] * 5) == "other_language"


def test_dropped_wrongly_names_and_code(verdict, code: str) -> None:
    message = verdict("language")
    assert message("Xavi, Puyol, Iniesta, Busquets") != "kept"
    assert message("42") == "uncertain_language"
    assert message(code) == "uncertain_language"


def test_nothing_is_downloaded(tmp_path) -> None:
    program = (
        "import socket\n"
        "def refuse(*arguments, **settings): raise AssertionError('a socket was opened')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from speciate.data.documents import Document\n"
        "from speciate.data.clean.filters.language import Filter, Options\n"
        "print(Filter(Options(kind='language'), {}).apply(Document('', '', '', 'This is plain English text.')).text)\n"
    )
    assert callable(socket.create_connection)  # the function that the program replaces still exists
    environment = {"HOME": str(tmp_path), "FTLANG_CACHE": str(tmp_path / "none"), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "This is plain English text.\n"), done.stderr
    assert not (tmp_path / "none").exists()


def test_a_wrong_code_is_refused(make) -> None:
    with pytest.raises(ValueError, match="languages"):
        make("language", languages=["English"])
