"""The README says what is there: its targets, paths and verbs exist."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_make_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?<!snake)make ([a-z-]+)", README)) - {"and"}
    assert named
    assert named <= targets


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(link: str) -> None:
    assert link.startswith("http") or (ROOT / link).exists()


def test_every_file_of_the_tree_exists() -> None:
    tree = re.search(r"```\n(config\.yaml .*?)```", README, re.DOTALL)
    assert tree
    inside = ""
    for line in tree[1].splitlines():
        names = re.match(r" *\S+(?: \S+)*?(?=  |$)", line)
        assert names
        inside = "" if not line.startswith(" ") else inside
        for name in names[0].split():
            if name.endswith("/") and not line.startswith(" "):
                inside = name
            if "*" not in name and "<" not in name and name != "results/":
                assert (ROOT / (inside if line.startswith(" ") else "") / name).exists(), line


def test_every_stage_of_the_flow_is_a_verb() -> None:
    for row in re.findall(r"^\| ([a-z, ]+) \| ", README.split("## How it flows")[1].split("## Where")[0], re.MULTILINE):
        for verb in row.split(", "):
            assert verb == "stage" or (ROOT / "src/speciate" / f"{verb}.py").is_file()
