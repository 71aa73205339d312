"""Test what Gopher's repetition rules catch, with one text for each, and what they miss."""

import random

import pytest

VOCABULARY = [
    f"{first}{second}" for first in ("har", "riv", "tim", "clo", "qua") for second in ("bo", "er", "la", "th")
]


def unlike(number: int, seed: int = 0) -> str:
    """Return words in which hardly any run occurs twice."""
    draw = random.Random(seed)
    return " ".join(f"{draw.choice(VOCABULARY)}{draw.randrange(10**6):x}" for _ in range(number))


def test_repeated_lines_and_paragraphs(verdict) -> None:
    message = verdict("gopher_repetition")
    lines = [unlike(8, seed) for seed in range(6)]
    assert message("\n".join(lines)) == "kept"
    assert message("\n".join([*lines, *lines[:3]])) == "gopher_duplicate_lines"
    assert message("\n\n".join([*lines, *lines[:3]])) == "gopher_duplicate_paragraphs"
    # counted in characters
    assert message("\n".join([unlike(40, 9), *lines, unlike(40, 9)])) == "gopher_duplicate_lines"
    assert message("\n\n".join([unlike(40, 9), *lines, unlike(40, 9)])) == "gopher_duplicate_paragraphs"


@pytest.mark.parametrize(("size", "times"), [(2, 20), (3, 14), (4, 14)])
def test_one_run_too_often(verdict, size: int, times: int) -> None:
    run = unlike(size, 1)
    parts = [f"{unlike(7, seed)} {run}" for seed in range(2, 2 + times)]
    shorter = {f"top_{other}gram": 1.0 for other in range(2, size)}
    assert verdict("gopher_repetition", **shorter)(" ".join(parts)) == f"gopher_top_{size}gram"


def test_runs_seen_before(verdict) -> None:
    runs = [unlike(12, seed) for seed in range(20)]
    text = " ".join(runs + [f"{run} {unlike(30, 100 + seed)}" for seed, run in enumerate(runs)])
    assert verdict("gopher_repetition")(text) == "gopher_duplicate_5gram"
    spared = verdict("gopher_repetition", **{f"duplicate_{size}gram": 1.0 for size in range(5, 10)})
    assert spared(text) == "gopher_duplicate_10gram"


def test_prose_stays_and_a_licence_header_repeated_goes(verdict, prose: str) -> None:
    message = verdict("gopher_repetition")
    assert message(prose) == "kept"
    assert message("\n".join(["All rights are reserved by the owner.", prose] * 3)) == "gopher_duplicate_lines"


def test_missed_a_paraphrase(verdict) -> None:
    again = (
        "The town lived by its harbour for two centuries. For two hundred years the harbour fed the town. "
        "What the town ate, the port had earned. Through twenty decades its people owed their bread to ships."
    )
    assert verdict("gopher_repetition")(again) == "kept"


def test_dropped_wrongly_a_refrain(verdict) -> None:
    verses = "\n".join(f"{unlike(6, seed)}\nand the wind blew cold and the rain fell down" for seed in range(5))
    assert verdict("gopher_repetition")(verses) == "gopher_duplicate_lines"


@pytest.mark.parametrize("text", ["x", "...", "\u200b"])
def test_odd_texts_do_not_stop_it(verdict, text: str) -> None:
    assert verdict("gopher_repetition")(text) == "kept"


CHINESE = (
    "他们的父辈在河边修建了一座很长的石桥。许多年以后，孩子们每天清晨仍然从桥上走过，到对岸的学校去读书。老人坐在桥头，看着船只慢慢驶向大海，"
    "说起洪水冲走旧桥的那个夜晚。如今城里有了新的车站和宽阔的马路，可是没有人愿意离开这条安静的小河。"
)
THAI = (
    "เช้าวันนั้นชาวบ้านออกไปหาปลาที่ปากแม่น้ำก่อนพระอาทิตย์ขึ้น พอตกเย็นทุกคนกลับมานั่งล้อมวงกินข้าว"
    "และเล่าเรื่องพายุใหญ่ที่เคยพัดสะพานเก่าพังลงเมื่อหลายปีก่อน"
)


@pytest.mark.parametrize("prose", [CHINESE, THAI])
def test_scripts_without_spaces_are_judged_by_letters(verdict, prose: str) -> None:
    message = verdict("gopher_repetition")
    assert message(prose) == "kept"
    # a phrase that loops within one clause, which has no space and no mark between its words
    assert message(prose[:20] * 12).startswith(("gopher_top", "gopher_duplicate"))
