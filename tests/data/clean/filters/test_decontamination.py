"""Test runs of words in common with an evaluation set, against a count by hand and a plain search."""

import pathlib
import random
import zipfile

import pytest

from speciate.data.clean.pipeline import Drop
from speciate.data.documents import Document

PIN = {"kind": "package", "name": "tiny", "version": "1.0", "file": "tiny-1.0-py3-none-any.whl", "sha256": "0" * 64}
QUESTION = "A train leaves the northern station at nine and meets the slow ferry at noon; how far has it come by then?"


@pytest.fixture
def sets(tmp_path: pathlib.Path) -> dict[str, pathlib.Path]:
    for name, text in (("exam", QUESTION), ("poems", "one two three four five six seven")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("items.txt", text)
    return {name: tmp_path / name for name in ("exam", "poems")}


def compare(make, sets: dict[str, pathlib.Path], **settings: object):
    sources = {name: {**PIN, "include": ["*.txt"], "reader": "text"} for name in sets}
    return make("decontamination", sets, sources=sources, **settings)


def said(judge, text: str) -> str:
    result = judge.apply(Document("", "", "", text))
    return result.note if isinstance(result, Drop) else "kept"


def test_a_run_in_common_drops_and_is_shown(make, sets) -> None:
    judge = compare(make, sets)
    # fourteen words of the question, in another case, with other punctuation and line breaks
    quoted = "It says: a TRAIN leaves the northern\nstation, at nine, and meets the slow ferry at dawn. So it says."
    run = "a train leaves the northern station at nine and meets the slow ferry"
    assert said(judge, quoted) == f"exam, 2 of 8 runs: {run}"
    assert judge.apply(Document("", "", "", quoted)).reason == "contaminated"


def test_one_word_less_stays(make, sets) -> None:
    judge = compare(make, sets)
    assert (
        said(judge, "The northern station at nine and meets the slow ferry at noon; then all is well there.") == "kept"
    )


def test_a_short_item_is_found_only_alone(make, sets) -> None:
    judge = compare(make, sets)
    assert said(judge, "One, two, three, four, five, six, seven!").startswith("poems, 1 of 1 runs: one two")
    assert said(judge, "We count one two three four five six seven, and then we begin again from the start.") == "kept"


def test_missed_a_paraphrase(make, sets) -> None:
    assert (
        said(compare(make, sets), "At nine a train left the station in the north. It met the ferry at noon.") == "kept"
    )


def test_dropped_wrongly_a_phrase_that_both_quote(make, tmp_path) -> None:
    licence = "is provided as is, without warranty of any kind, express or implied, including but not limited to it"
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        archive.writestr("items.txt", f"What is a spanner? The software {licence}.")
    assert said(compare(make, {"exam": tmp_path / "exam"}), f"Our harbour {licence}.").startswith("exam, ")


def test_a_share_may_be_allowed(make, sets) -> None:
    text = "a train leaves the northern station at nine and meets the slow ferry tonight and tomorrow"
    assert said(compare(make, sets, max_share=0.25), text) == "kept"  # one of four runs
    assert said(compare(make, sets, max_share=0.24), text).startswith("exam, 1 of 4 runs")


def test_against_a_plain_search(make, tmp_path) -> None:
    draw = random.Random(0)
    words = [f"w{index}" for index in range(12)]
    evaluation = [" ".join(draw.choices(words, k=40)) for _ in range(5)]
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        for index, text in enumerate(evaluation):
            archive.writestr(f"{index}.txt", text)
    runs = {tuple(text.split()[i : i + 4]) for text in evaluation for i in range(37)}
    judge = compare(make, {"exam": tmp_path / "exam"}, ngram=4)
    verdicts = []
    for _ in range(300):
        text = draw.choices(words, k=20)
        hits = [tuple(text[i : i + 4]) in runs for i in range(17)]
        verdicts.append(any(hits))
        expected = f"exam, {sum(hits)} of 17 runs: {' '.join(text[hits.index(True) :][:4])}" if any(hits) else "kept"
        assert said(judge, " ".join(text)) == expected
    assert 0 < sum(verdicts) < 300


def test_text_without_a_word_stays(make, sets) -> None:
    assert said(compare(make, sets), "... !") == "kept"


def test_a_huge_text_is_not_looked_at(make, sets) -> None:
    huge = Document("", "", "", "x " * 8_000_001)
    for judge in (compare(make, sets), make("toxicity"), make("code_lines")):
        assert judge.apply(huge) == Drop("too_large", "16000002 characters")


def test_a_set_without_words_is_refused(make, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        archive.writestr("items.txt", "...")
    with pytest.raises(ValueError, match="decontamination: source exam holds no words to compare with"):
        compare(make, {"exam": tmp_path / "exam"})


ITEMS = {
    "Chinese": "一列火车九点钟从北站开出，正午时分遇见一艘缓慢的渡船；"
    "请问到那个时候它已经走了多远的路程，又剩下多少公里没有走完呢？",
    "Japanese": "列車は九時に北の駅を出発し、正午にゆっくり進む渡し船と出会います。"
    "そのときまでにどれだけの距離を走ったでしょうか。",
    "Thai": "รถไฟออกจากสถานีทางเหนือตอนเก้าโมงเช้าและพบเรือข้ามฟากตอนเที่ยงวันจงหาว่าเดินทางมาไกลเท่าใด",
    "Khmer": "រថភ្លើងចេញពីស្ថានីយ៍ខាងជើងនៅម៉ោងប្រាំបួនហើយជួបកាណូតនៅពេលថ្ងៃត្រង់តើវាបានធ្វើដំណើរឆ្ងាយប៉ុន្មាន",
    "Burmese": "ရထားသည်မြောက်ဘက်ဘူတာမှကိုးနာရီတွင်ထွက်ခွာပြီးနေ့လယ်တွင်ကူးတို့သင်္ဘောနှင့်တွေ့သည်မည်မျှဝေးသနည်းဆိုသည်ကိုရှာပါ",
}
AROUND = {
    "Chinese": ("今天我们在学校里做了一道题：", "老师说这道题并不难。"),
    "Japanese": ("学校で次の問題を解きました：", "先生は簡単だと言いました。"),
    "Thai": ("วันนี้ครูให้ทำโจทย์ข้อนี้", "ทุกคนทำได้หมด"),
    "Khmer": ("ថ្ងៃនេះគ្រូឱ្យលំហាត់", "សិស្សទាំងអស់ធ្វើបាន"),
    "Burmese": ("ယနေ့ဆရာကပုစ္ဆာပေးသည်", "အားလုံးဖြေနိုင်သည်"),
}


@pytest.mark.parametrize("language", ITEMS)
def test_an_item_copied_in_a_script_without_spaces_is_found(make, tmp_path, language: str) -> None:
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        archive.writestr("items.txt", ITEMS[language])
    judge = compare(make, {"exam": tmp_path / "exam"})
    before, after = AROUND[language]
    assert said(judge, f"{before}{ITEMS[language]}{after}" * 2).startswith("exam, ")
    assert said(judge, f"{before}{after}") == "kept"


def test_a_short_phrase_in_common_is_no_item(make, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        archive.writestr("items.txt", ITEMS["Chinese"])
    judge = compare(make, {"exam": tmp_path / "exam"})
    shared = ITEMS["Chinese"].replace("，", "").replace("；", "")[:26]
    assert said(judge, f"{shared[:25]}，然后大家回家。后来又下了一整天的大雨，路上没有行人。") == "kept"
    # 26 + 6 + 11 letters have 18 runs of 26
    assert said(judge, f"{shared}，然后大家回家。后来又下了一整天的大雨。") == f"exam, 1 of 18 runs: {shared}"


def test_marks_do_not_make_eight_words_thirteen(make, tmp_path) -> None:
    phrase = "नदी के किनारे पुरानी लाइब्रेरी में सैकड़ों किताबें"
    assert len(phrase.split()) == 8
    with zipfile.ZipFile(tmp_path / "exam", "w") as archive:
        archive.writestr("items.txt", f"{phrase} हैं उन्हें कौन पढ़ता है बताइए")
    judge = compare(make, {"exam": tmp_path / "exam"})
    assert said(judge, f"{phrase} रखी थीं जब बाढ़ आई तब सब कुछ बह गया") == "kept"
