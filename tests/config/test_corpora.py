"""Test that every ready corpus can be laid over the default study, and states the evidence for its pin."""

import pathlib
import re
from typing import Any

import pytest
import yaml

from speciate.config.extends import extend
from speciate.config.study import parse_study
from speciate.data.fetch.records import RecordParser

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "studies" / "corpora").glob("*.yaml"))
NAMED = {
    *("codeparrot_clean", "gsm8k", "competition_math", "hendrycks_math", "math_qa", "wikitext_103", "c4"),
    *("openwebtext", "lm1b", "text8", "slimpajama", "redpajama_v2", "pile", "fineweb", "dolma"),
}


def source(file: pathlib.Path, text: str | None = None) -> Any:
    """Return the source of a corpus file as the whole study parses it; `text` replaces the file's own lines."""
    settings = yaml.safe_load(text or file.read_text(encoding="utf-8"))
    study = parse_study(extend({**settings, "extends": "config.yaml"}, ROOT), str(file))
    (domain,) = settings["domains"]
    return study.domains[domain].sources[file.stem]


def test_the_corpora_of_the_systems_are_all_here() -> None:
    assert {file.stem for file in FILES} >= NAMED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_parses_over_the_default_study(file: pathlib.Path) -> None:
    found = source(file)
    assert found.kind == "hub"
    assert RecordParser(found, file.stem).columns
    assert file.stem in yaml.safe_load(file.read_text())["domains"].popitem()[1]["licences"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_comments_say_what_it_is_and_what_its_pin_rests_on(file: pathlib.Path) -> None:
    head = file.read_text(encoding="utf-8").split("domains:")[0].replace("\n#", "")
    assert "Licence: " in head
    assert re.search(r"(Used by|[Nn]ame[sd]?)", head)
    unverified = "Pin: none could be verified, so fetch stops and says which commit to write below." in head
    assert unverified == (source(file).revision == "unpinned")


@pytest.mark.parametrize("name", ["gsm8k", "competition_math", "hendrycks_math", "math_qa"])
def test_mathematics_reads_with_and_without_prefixes(name: str) -> None:
    file = ROOT / "studies" / "corpora" / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    with_prefix = re.sub(r'text: "(?!Problem: ).*\n +# (text: .*)', r"\1", text)
    plain, prefixed = source(file).text, source(file, with_prefix).text
    assert "Problem: " not in plain and "Solution: " not in plain
    assert prefixed.startswith("Problem: {")
    assert prefixed.replace("Problem: ", "").replace("Solution: ", "") == plain


def test_the_readme_names_every_file() -> None:
    readme = (ROOT / "studies" / "corpora" / "README.md").read_text(encoding="utf-8")
    assert all(f"`{file.name}`" in readme for file in FILES)


def test_the_readmes_example_is_a_study_of_just_these_corpora() -> None:
    readme = (ROOT / "studies" / "corpora" / "README.md").read_text(encoding="utf-8")
    example = yaml.safe_load(readme.split("```yaml\n")[1].split("```")[0])
    study = parse_study(extend(example, ROOT / "studies"), "README")
    assert sorted(study.domains["math"].sources) == ["competition_math", "gsm8k"]


@pytest.mark.parametrize(
    ("family", "corpus"),
    [
        ("diffusion", "wikitext_103"),
        ("diffusion", "openwebtext"),
        ("diffusion", "lm1b"),
        ("diffusion", "text8"),
        ("attention", "slimpajama"),
    ],
)
def test_a_familys_arms_are_ready_on_its_systems_corpora(family: str, corpus: str) -> None:
    studies = ROOT / "studies"
    plain, ready = (
        parse_study(extend(yaml.safe_load((studies / f"{name}.yaml").read_text(encoding="utf-8")), studies), name)
        for name in (family, f"{family}_{corpus}")
    )
    assert {name: list(domain.sources) for name, domain in ready.domains.items()} == {"prose": [corpus]}
    assert list(ready.domains["prose"].licences) == [corpus]
    assert ready.ablations == plain.ablations
    assert ready.hypotheses == plain.hypotheses
    assert ready.study == f"{family}_{corpus}"
