"""Test present: one offline file with sources, counts, texts of dropped documents, and the warnings first."""

import importlib
import json
import pathlib
import re

import pytest
from tests.figures import planted_data
from tests.stages.test_report import Page

from speciate.cli import execute
from speciate.config.components import options_of
from speciate.config.run import canonical_json
from speciate.config.stage_specs import CARDED, CardSpec
from speciate.reporting import data_tables, data_texts
from speciate.stages import present

SOURCE = {
    "kind": "package",
    "name": "django",
    "version": "5",
    "file": "django-5-py3-none-any.whl",
    "sha256": "a" * 64,
    "include": ["*.py"],
    "reader": "text",
}


def spec(domains: tuple[str, ...] = ("code", "math", "prose")) -> CardSpec:
    settings = {
        "shards": 2,
        "language": None,
        "duplicates": "near",
        "sources": {"s": SOURCE},
        "licences": {"s": "MIT"},
        "filters": [{"kind": "length", "min_characters": 200}],
        "max_bytes": None,
        "max_tokens": 12000,
        "probe_share": None,
    }
    return CardSpec.model_validate(
        {
            "study": "default",
            "domains": [{"name": domain, **settings} for domain in domains],
            "across_domains": False,
            "split": {},
            "tokenizer": "bpe",
            "packing": "best_fit",
            "mixture": "truncate",
            "block_length": 128,
        }
    )


def study(folder: pathlib.Path, tables) -> pathlib.Path:
    """Write tables and figures as `card` and `draw` leave them."""
    (folder / "tables").mkdir()
    (folder / "figures" / "narrow").mkdir(parents=True)
    for name, frame in tables.items():
        frame.to_parquet(folder / "tables" / f"{name}.parquet")
    for name in present.figure_names():
        module = importlib.import_module(f"speciate.figures.{name}")
        text = {
            "question": module.QUESTION,
            "caption": module.caption(tables, None, options_of("figures", name)(kind=name)),
            "finding": module.finding(tables, None, options_of("figures", name)(kind=name)),
            "limits": module.LIMITS,
        }
        (folder / "figures" / f"{name}.json").write_text(json.dumps(text))
        for file in (f"{name}.svg", f"narrow/{name}.svg"):
            (folder / "figures" / file).write_text('<svg xmlns="http://www.w3.org/2000/svg"><text>drawn</text></svg>')
    (folder / "spec.json").write_text(canonical_json(spec(tuple(dict.fromkeys(tables["data_sources"]["domain"])))))
    return folder


def written(folder: pathlib.Path) -> tuple[str, Page]:
    """Return the page, after a check of its tags."""
    arguments = ["--spec", str(folder / "spec.json"), "--tables", str(folder / "tables")]
    arguments += ["--figures", str(folder / "figures"), "--output", str(folder / "data.html")]
    execute(["present", *arguments])
    text, parsed = (folder / "data.html").read_text(), Page()
    parsed.feed(text)
    assert parsed.open == []
    return text, parsed


@pytest.fixture
def page(tmp_path: pathlib.Path) -> tuple[str, Page]:
    return written(study(tmp_path, planted_data.tables()))


def test_the_page_is_one_file_without_scripts_or_network(page) -> None:
    text, parsed = page
    assert "<script" not in text
    assert not re.search(r"""(src|href)=["'](?!#|data:|report\.html")""", text)
    assert "url(" not in text
    assert len(parsed.images) == len(present.figure_names()) == 4
    assert all(image["src"].startswith("data:image/svg+xml;charset=utf-8,") and image["alt"] for image in parsed.images)


def test_contents_lead_somewhere_and_ids_are_unique(page) -> None:
    _, parsed = page
    assert {link.removeprefix("#") for link in parsed.links} - {"report.html"} <= set(parsed.ids)
    assert len(set(parsed.ids)) == len(parsed.ids)


def test_texts_are_escaped_and_stand_beside_their_reason(page) -> None:
    text, _ = page
    assert "&lt;b&gt;markup&lt;/b&gt; &amp; words" in text
    assert "<b>markup" not in text
    assert "code: gopher symbols, 3 of 229" in text
    assert "code/dropped0, 900 characters, symbols a word 0.31" in text
    assert "kept: code/kept0" in text
    assert "dropped: code/duplicate0, 900 characters, 3 in its cluster" in text


def test_what_to_know_first_comes_first(page) -> None:
    text, _ = page
    assert text.index("every domain is cut to 3000 blocks.") < text.index('id="sources"')
    assert "1 thing to know first" in text


def test_every_column_of_every_table_is_explained(page) -> None:
    text, _ = page
    for table in CARDED:
        assert f"<summary>{table}</summary>" in text


def test_one_domain_without_drops_duplicates_or_warnings(tmp_path: pathlib.Path) -> None:
    tables = planted_data.tables(("prose",), duplicates=False)
    empty = ("data_drops", "data_edits", "data_warnings", "data_formatting")
    tables |= {name: tables[name].iloc[:0] for name in empty}
    tables["data_samples"] = tables["data_samples"][tables["data_samples"]["what"] == "kept"]
    text, _ = written(study(tmp_path, tables))
    assert "No document of any domain was dropped" in text
    assert "No filter altered a document." in text
    assert "No filter dropped a document." in text
    assert "to know first" not in text
    assert "no two documents begin alike; none holds an invisible character" in text
    assert "Training text in other training text" not in text


def test_an_overlap_says_how_sure_it_is() -> None:
    tables = planted_data.tables()
    held_out, across = data_tables.overlap_tables(tables)
    assert ["code", "test", "1.20% ± 0.12", "0.03% ± 0.00", "0.03% ± 0.00"] in held_out.rows
    assert ["math", "none of 12,000", "–", "0.03% ± 0.00"] in across.rows


def test_formatting_is_told_before_and_after() -> None:
    tables = planted_data.tables()
    (table,) = data_tables.formatting_tables(tables)
    assert ["math", "begins with", "'Question: '", "62.0%", "62.0%"] in table.rows
    assert ["prose", "holds an invisible or control character", "U+00A0 NO-BREAK SPACE", "3.0%", "0.0%"] in table.rows
    marks = dict(data_texts.describe_marks(tables))
    assert (
        marks["math"] == "at most 62.0% of the documents begin alike ('Question: '); none holds an invisible character."
    )


def test_settings_are_those_of_the_study_file() -> None:
    text = dict(data_texts.describe_settings(spec(("code",))))
    assert text["filters of code"] == "length (min_characters 200)"
    assert text["duplicates"] == "within each domain: code equal and similar texts dropped"
    assert text["at most"] == "code 12,000 training tokens"
    assert text["held out"] == "validation 5%, test 10%, probe 10% of the text, by a hash of each group, seed 0"
    assert text["block"] == "128 tokens"
    whole = spec(("code", "math"))
    domains = (whole.domains[0], whole.domains[1].model_copy(update={"probe_share": 0.4}))
    own = dict(data_texts.describe_settings(whole.model_copy(update={"domains": domains})))
    assert own["held out"] == text["held out"] + "; probe 40% of math"


def test_a_missing_figure_or_table_is_named(tmp_path: pathlib.Path) -> None:
    folder = study(tmp_path, planted_data.tables())
    (folder / "figures" / "data_drops.svg").unlink()
    with pytest.raises(ValueError, match=r"data_drops\.svg: cannot be read"):
        written(folder)
    (folder / "tables" / "data_edits.parquet").unlink()
    with pytest.raises(ValueError, match=r"data_edits\.parquet: cannot be read as a table"):
        written(folder)
