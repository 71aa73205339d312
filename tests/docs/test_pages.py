"""Test the README and every page of docs: links lead somewhere, commands and make targets exist, examples are valid."""

import argparse
import functools
import pathlib
import re
import shlex

import pytest
import yaml

from speciate import cli
from speciate.config.contracts.statistics import RULES, STATISTICS
from speciate.config.extends import extend, merge, read_yaml
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.run import RunSpec
from speciate.config.study import parse_study

ROOT = pathlib.Path(__file__).parents[2]
GENERATED = ("config.md", "bad-input.md")
ROOMS = ("studies", "studies/corpora", "containers", "profiles", "envs", "results")
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    *(ROOT / "README.md", ROOT / "CHANGELOG.md"),
    *(page for page in DOCS if page.name not in GENERATED),
    *(ROOT / room / "README.md" for room in ROOMS),
]


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def links_of(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: pathlib.Path) -> list[str]:
    dead = []
    for link in links_of(page.read_text(encoding="utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))):
            dead.append(link)
    return dead


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def words_after_speciate(command: str) -> list[str] | None:
    """Return the words after `speciate` in a line of shell without comments, or None if the line does not run it."""
    match = re.search(r"(?:^|(?<=\s))(?:python -m )?speciate (.+)", command)
    return None if match is None else shlex.split(match[1], comments=True)


def shell_commands(text: str) -> list[list[str]]:
    """Return the words after `speciate` for every command in a block of shell."""
    lines = "\n".join(fenced(text, "sh")).replace("\\\n", " ").splitlines()
    return [words for line in lines if "alias" not in line and (words := words_after_speciate(line))]


def inline_commands(text: str) -> list[list[str]]:
    """Return the words after `speciate` in code within a sentence; `VERB` stands for any verb."""
    return [
        shlex.split(code) for code in re.findall(r"`(?:python -m )?speciate ([^`\n]+)`", text) if "VERB" not in code
    ]


@functools.cache
def parser_of(verb: str) -> argparse.ArgumentParser:
    return cli.verb_parser(cli.verb_files()[verb])


def unknown_in(words: list[str]) -> list[str]:
    """Return what a command names that does not exist: its verb, or its flags."""
    if words[0] in ("--help", "--version"):
        return words[1:]
    if words[0] not in cli.verb_files():
        return [words[0]]
    flags = {word for word in words if word.startswith("--")}
    return sorted(flags - set(parser_of(words[0])._option_string_actions))


def check_example(example: str) -> None:
    """Read an example as a study, as part of a study over studies/three_selectors.yaml, or as an ablation's change."""
    settings = yaml.safe_load(example)
    default = read_yaml(ROOT / "studies/three_selectors.yaml")
    if set(settings) <= set(RunSpec.model_fields):
        assert RunSpec.model_validate({**merge(default["base"], settings), "ablation": "example", "seed": 0})
        return
    whole = extend(settings, ROOT / "studies") if "extends" in settings else merge(default, settings)
    assert parse_study(fill_from_checkpoints(whole, "example").settings, "example").ablations


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: pathlib.Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_and_a_dead_anchor_are_seen(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A heading, `code`\n[a](page.md) [b](#a-heading-code) [c](nowhere.md) [d](page.md#nothing)\n")
    assert dead_links(page) == ["nowhere.md", "page.md#nothing"]


def test_the_index_names_every_page() -> None:
    index = set(links_of((ROOT / "docs" / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in DOCS} - {"README.md"} <= index
    assert {f"../{room}/README.md" for room in ROOMS} <= index


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_its_flags_exist(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    for words in [*shell_commands(text), *inline_commands(text)]:
        assert unknown_in(words) == [], words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_of_a_block_is_complete(page: pathlib.Path) -> None:
    for words in shell_commands(page.read_text(encoding="utf-8")):
        if not words[0].startswith("-"):
            parser_of(words[0]).parse_args(words[1:])


def test_commands_are_found_and_wrong_ones_are_seen() -> None:
    text = (
        "```sh\nRUN=a\nspeciate trian --spec $RUN  # wrong\n```\n`speciate size --weights 1` and `speciate VERB --help`"
    )
    assert shell_commands(text) == [["trian", "--spec", "$RUN"]]
    assert inline_commands(text) == [["size", "--weights", "1"]]
    assert unknown_in(["trian", "--spec"]) == ["trian"]
    assert unknown_in(["size", "--weights", "1", "--study", "a"]) == ["--weights"]
    assert sum(len(shell_commands(page.read_text(encoding="utf-8"))) for page in PAGES) > 8


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_exists(page: pathlib.Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    code = [*re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)), *fenced(text, "sh")]
    named = {target for part in code for target in re.findall(r"(?:^|\s)make ([a-z-]+)", part)}
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_example_is_valid(page: pathlib.Path) -> None:
    for example in fenced(page.read_text(encoding="utf-8"), "yaml"):
        check_example(example)


def test_a_wrong_example_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown key"):
        check_example("study: mine\nblok_length: 8\n")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_exists(page: pathlib.Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.name == "four_systems.md":  # its first column names their files
        text = re.sub(r"^\|(?:[^|\\]|\\.)*\|", "", text, flags=re.MULTILINE)
    if page.name == "CHANGELOG.md":  # this page names what existed before
        return
    paths = set(re.findall(r"`((?:[\w.-]+/)+[\w-]+\.(?:py|yaml|smk|md|lock))`", text))
    places = (ROOT, ROOT / "src" / "speciate", ROOT / "studies", page.parent)
    missing = [path for path in paths if not any((place / path).exists() for place in places)]
    assert [path for path in missing if "NAME" not in path] == []


def test_the_glossary_has_the_words_of_the_report() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").replace("\\|", "|")
    words = [statistic.label for statistic in STATISTICS] + [f"`{rule}`" for rule in RULES if rule != "alarm"]
    assert [word for word in words if word not in glossary] == []
