"""Test the doctor's page: what it says, what it leaves out, and that it works in a browser without a network."""

import dataclasses
import html.parser
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from tests.reporting.browser import Browser
from tests.reporting.doctor import planted

from speciate.analysis.routing.judgement import STATES, Judgement
from speciate.reporting.doctor import figures
from speciate.reporting.doctor.advice import advice
from speciate.reporting.doctor.page import write_doctor_page
from speciate.reporting.doctor.tables import MOST_ROWS, page_tables
from speciate.selection.record_builder import RecordBuilder, SelectorShape


class Texts(html.parser.HTMLParser):
    """Collect the headings of a page, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags, self._open = "", [], []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.text += data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    target = tmp_path_factory.mktemp("doctor") / "doctor.html"
    one, other = planted.record(), planted.record("other <i>", seed=5)
    write_doctor_page(
        one,
        planted.judgement(one, "other <i>"),
        target,
        other=other,
        knock_out=planted.knock_out(one),
        training_logs=planted.training_logs(),
    )
    return target


@pytest.fixture(scope="module")
def parsed(file: pathlib.Path) -> Texts:
    texts = Texts()
    texts.feed(file.read_text(encoding="utf-8"))
    return texts


def tables(judgement: Judgement, **more: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {**judgement.tables, **more}


def findings(judged: dict[str, pd.DataFrame]) -> dict[str, str]:
    return {drawing.name: drawing.finding for drawing in figures.drawings(judged, seed=0)}


def test_the_page_says_everything_that_was_judged(parsed: Texts) -> None:
    judgement = planted.judgement(planted.record(), "other <i>")
    assert judgement.headline in parsed.text
    for verdict in judgement.verdicts:
        assert verdict.sentence in parsed.text
    for note in (*judgement.unsaid, *judgement.notes):
        assert note.text in parsed.text
    for state, meaning in STATES.items():
        assert state in parsed.text and meaning[1:] in parsed.text
    assert f"{judgement.source} against {judgement.against}" in parsed.text


def test_the_page_asks_for_nothing_and_holds_no_markup_of_users(file: pathlib.Path, parsed: Texts) -> None:
    text = file.read_text(encoding="utf-8")
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "srcset"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or ""), (tag, attributes)
    assert not [tag for tag, _ in parsed.tags if tag in ("i", "iframe", "object", "embed")]
    assert len(re.findall(r"<script\b", text)) == 3 == len(re.findall(r"</script>", text))
    assert "\0" not in text and "\u2028" not in text and "\u202e" not in text


def test_each_figure_stands_beside_its_null_and_its_title_is_the_finding() -> None:
    record = planted.record()
    judgement = planted.judgement(record, "other")
    said = findings(tables(judgement, knock_out=planted.knock_out(record), training=planted.training_logs()))
    assert list(said) == [
        *("collapse", "load", "agreement", "flips", "information", "lift", "knock_out", "commitment", "pairs"),
        "training",
    ]
    layers = judgement.tables["layers"]
    assert said["collapse"].startswith("1 layer of 4 has collapsed; one expert of layer 0 takes")
    assert f"{100 * layers['max_share'].max():.1f}%" in said["collapse"]
    above = int((layers["max_vio"] > layers["noise_floor"]).sum())
    assert f"more uneven than chance in {above} of 4 layers" in said["load"]
    assert "in 2 of 4 layers, most in layer 3 (0.300 bits" in said["information"]
    # layer 3 has more bits, but by chance; lifts are shown of the layer that tells most of those that tell anything
    assert "In layer 2, no expert prefers" in said["lift"]
    only = {**judgement.tables, "layers": layers[layers["layer"] == 1]}
    assert (
        "In layer 1, 3 pairs of expert and label differ from chance; the largest lift is expert"
        in findings(only)["lift"]
    )
    assert "12 of 112 pairs" in said["pairs"]
    costs = planted.knock_out(record)
    costs = costs[costs["label"] == ""]
    assert said["knock_out"].startswith(f"{(costs['cost_low_nats'] > 0.003).sum()} of 32 experts")
    drift, told = layers["drift_nats"].sum(), layers["information_nats"].sum()
    assert said["commitment"].startswith(f"{100 * told / (drift + told):.0f}%")


def test_the_even_twin_has_the_load_of_an_even_router() -> None:
    """The right panel of the load is near even where the left one is not."""
    judged = planted.judgement(planted.record())
    drawing = next(one for one in figures.drawings(judged.tables, seed=0) if one.name == "load")
    from speciate.figures import style

    with style.figure_style():
        left, right = (axes.images[0].get_array() for axes in drawing.draw().axes[:2])
    assert np.abs(np.asarray(left)[0]).max() > 1  # twice an even load or more
    assert np.abs(np.asarray(right)).max() < 0.35


@pytest.mark.parametrize("absent", ["layers", "experts", "lifts", "pairs"])
def test_a_figure_without_its_table_is_left_out(absent: str) -> None:
    judged = {name: rows for name, rows in planted.judgement(planted.record()).tables.items() if name != absent}
    needs = {"layers": {"collapse", "information", "commitment", "load"}, "experts": {"load"}, "lifts": {"lift"}}
    assert not needs.get(absent, {absent}) & set(findings(judged))
    assert findings({}) == {}


def test_a_record_of_counts_has_a_page_without_texts(tmp_path: pathlib.Path) -> None:
    builder = RecordBuilder("counts.csv")
    for label in ("a", "b"):
        builder.add_counts(SelectorShape("layer 3", 3, 4, 1), builder.row(label, label=label), np.array([4, 3, 2, 1]))
    record = builder.build()
    judgement = Judgement("counts.csv", "", "Nothing collapsed.", (), {}, ())
    write_doctor_page(record, judgement, tmp_path / "doctor.html")
    text = (tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert "The record has no single tokens" in text and 'id="explorer-data"' not in text


def test_training_logs_alone_have_a_page(tmp_path: pathlib.Path) -> None:
    judgement = Judgement("log.jsonl", "", "MaxVio falls.", (), {}, ())
    write_doctor_page(None, judgement, tmp_path / "doctor.html", training_logs=planted.training_logs())
    text = (tmp_path / "doctor.html").read_text(encoding="utf-8")
    assert "MaxVio ends at 1.011 in the median of 3 layers." in text and "token by token" not in text


def test_a_table_of_knock_outs_without_a_column_is_refused(tmp_path: pathlib.Path) -> None:
    record = planted.record()
    costs = planted.knock_out(record).drop(columns="control_nats")
    with pytest.raises(ValueError, match="knock out has no column control_nats"):
        write_doctor_page(record, planted.judgement(record), tmp_path / "doctor.html", knock_out=costs)


@pytest.mark.parametrize("seed", range(4))
def test_any_number_may_be_unknown(seed: int, tmp_path: pathlib.Path) -> None:
    """Put NaN into single cells, and into whole columns, of every table; a page comes out."""
    rng = np.random.default_rng(seed)
    record = planted.record(num_documents=6)
    judgement = planted.judgement(record, "other")

    def spoil(rows: pd.DataFrame) -> pd.DataFrame:
        spoiled = rows.copy()
        for column in rows.columns.difference(["path", "layer", "phase", "expert", "other", "label", "state"]):
            if pd.api.types.is_numeric_dtype(rows[column]) and not pd.api.types.is_bool_dtype(rows[column]):
                share = rng.choice([0.0, 0.5, 1.0])
                spoiled[column] = rows[column].astype(float).mask(rng.random(len(rows)) < share)
        return spoiled

    spoiled = dataclasses.replace(
        judgement,
        tables={name: spoil(rows) for name, rows in judgement.tables.items()},
        facts={**judgement.facts, "confidence": float("nan")},
    )
    # a table of knock-outs has a lift and a load of its own, and may be about one expert
    costs = planted.knock_out(record).assign(lift=1.5, load=0.1, matched_expert=-1, matched_nats=np.nan)
    costs = spoil(costs[costs["expert"] == 2] if seed % 2 else costs)
    write_doctor_page(record, spoiled, tmp_path / "doctor.html", other=planted.record("b", 3), knock_out=costs)
    text = (tmp_path / "doctor.html").read_text(encoding="utf-8")
    shown = Texts()
    shown.feed(text)
    assert not re.search(r"\bnan\b", shown.text, re.IGNORECASE)


def test_a_layer_without_an_interval_is_drawn_all_the_same() -> None:
    judged = planted.judgement(planted.record()).tables
    names = ["max_share_low", "max_share_high", "excess_low_bits", "excess_high_bits"]
    unknown = {**judged, "layers": judged["layers"].assign(**dict.fromkeys(names, np.nan))}
    said, before = findings(unknown), findings(judged)
    assert said["collapse"] == before["collapse"] and said["information"] == before["information"]


def test_lift_and_need_are_compared_on_the_judgements_lifts() -> None:
    record = planted.record()
    judged, costs = planted.judgement(record).tables, planted.knock_out(record)
    # controls that reverse the order: what is compared is the cost beyond them, and not the cost
    costs = costs.assign(control_nats=2 * costs["cost_nats"])
    both = judged["lifts"].merge(costs[costs["label"] != ""], on=["path", "expert", "label"])
    expected = both["lift"].rank().corr((-both["cost_nats"]).rank())
    assert abs(expected) > 0.005
    said = findings({**judged, "knock_out": costs.assign(lift=-costs["cost_nats"], load=0.1)})["knock_out"]
    assert f"rank correlation of {expected:+.2f}".replace("-", "−") in said


def test_a_long_table_shows_what_matters_and_says_so() -> None:
    rows = pd.DataFrame({"path": "a", "layer": 0, "phase": "", "expert": range(300), "label": "x"})
    rows = rows.assign(lift=1.0 + rows["expert"] / 100, q_value=np.where(rows["expert"] == 7, 0.01, 0.9))
    (table,) = page_tables({"lifts": rows})
    assert len(table.rows) == MOST_ROWS
    assert table.note == "200 of 300 rows: significant ones first, by size of the lift"
    columns = [column.name for column in table.columns]
    assert columns == ["layer", "expert", "label", "lift", "q_value"]
    experts = [row[columns.index("expert")].text for row in table.rows[:3]]
    assert experts == ["7", "299", "298"]


def test_the_advice_follows_from_the_states() -> None:
    judgement = planted.judgement(planted.record())
    said = advice(judgement, was_knocked_out=False)
    assert said[0].startswith("Layer 0 is collapsed.")
    assert any("--knock-out" in text for text in said)
    undecided = dataclasses.replace(
        judgement,
        verdicts=tuple(dataclasses.replace(verdict, state="undecided") for verdict in judgement.verdicts),
        tables=judgement.tables
        | {"layers": judgement.tables["layers"].assign(state="undecided", documents_needed=1234.0)},
    )
    assert "Layers 0, 1, 2, 3 are undecided. About 1,234 documents" in advice(undecided, was_knocked_out=True)[0]
    plain = tuple(dataclasses.replace(verdict, state="unlabelled") for verdict in judgement.verdicts)
    unlabelled = dataclasses.replace(judgement, verdicts=plain)
    assert "--label FIELD" in advice(unlabelled, was_knocked_out=True)[0]
    of_log = dataclasses.replace(unlabelled, tables={"layers": judgement.tables["layers"].iloc[:0]})
    assert advice(of_log, was_knocked_out=True) == [
        "Judge the model itself, on labelled texts: a log of loads cannot tell what its experts are used for."
    ]
    told = tuple(dataclasses.replace(verdict, state="specialised") for verdict in judgement.verdicts)
    healthy = dataclasses.replace(judgement, verdicts=told, tables={})
    assert advice(healthy, was_knocked_out=True) == []


@pytest.fixture
def page(opened: Browser, file: pathlib.Path) -> Iterator[Browser]:
    opened.open(file)
    yield opened
    assert opened.console == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]


def column(page: Browser, table: str, place: int) -> list[str]:
    rows = f"""[...document.querySelector('[data-table="{table}"]').tBodies[0].rows]"""
    return list(page.run(f"{rows}.map((row) => row.cells[{place}].dataset.value)"))


def test_a_table_is_sorted_by_each_heading(page: Browser) -> None:
    head = """document.querySelector('[data-table="experts"]').tHead.rows[0].cells"""
    names = page.run(f"[...{head}].map((cell) => cell.textContent)")
    share = names.index("share")
    before = column(page, "experts", share)
    page.run(f"{head}[{share}].querySelector('button').click()")
    assert column(page, "experts", share) == sorted(before, key=float, reverse=True) != before
    assert page.run(f"{head}[{share}].getAttribute('aria-sort')") == "descending"
    page.run(f"{head}[{share}].querySelector('button').click()")
    assert column(page, "experts", share) == sorted(before, key=float)
    page.run(
        """document.querySelector('[data-table="lifts"]').tHead.rows[0].cells[2].querySelector('button').click()"""
    )
    labels = column(page, "lifts", 2)
    assert labels == sorted(labels) and len(set(labels)) == 3


def test_the_explorer_in_the_page_shows_both_records(page: Browser) -> None:
    page.run("document.getElementById('texts').scrollIntoView()")
    page.wait("document.querySelector('.t')")
    sources = page.run("[...document.querySelector('.ex-controls select').options].map((one) => one.textContent)")
    assert sources == ["models/</script>tiny", "other <i>"]
    page.run("document.querySelector('.t').click()")
    panel = str(page.run("document.querySelector('.ex-panel').textContent"))
    assert "lift in code" in panel and "Margin" in panel


def test_every_link_of_the_contents_leads_somewhere(page: Browser) -> None:
    assert page.run(
        "[...document.querySelectorAll('nav a')].every((link) => document.querySelector(link.getAttribute('href')))"
    )


@pytest.mark.parametrize(("width", "dark"), [(400, True), (700, False), (1600, False)])
def test_no_width_scrolls_sideways(opened: Browser, file: pathlib.Path, width: int, dark: bool) -> None:
    opened.open(file, width=width, dark=dark)
    assert opened.run("document.documentElement.scrollWidth") == width
    assert opened.console == []


def test_every_picture_has_a_text_and_is_shown(page: Browser) -> None:
    pictures = page.run("[...document.images].map((one) => [one.alt.length, one.naturalWidth])")
    assert len(pictures) == 10
    assert all(length > 40 and width > 100 for length, width in pictures)


def test_the_numbers_of_a_judgement_survive_the_page(file: pathlib.Path) -> None:
    """The value by which a cell is sorted is the number itself, not the one that is shown."""
    shares = planted.judgement(planted.record()).tables["experts"]["share"]
    text = file.read_text(encoding="utf-8")
    assert all(f'data-value="{float(share)!r}"' in text for share in shares)
    assert json.dumps(float(shares[0])) in text
