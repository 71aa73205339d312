"""Test that the README is short, in a newcomer's order, and true about the repository."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_LINES = 150
LIBRARY = "src/speciate/"


def test_it_is_short_and_in_order() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    headings = re.findall(r"^## (.+)$", README, re.MULTILINE)
    assert headings == [
        *("Two commands", "What you get", "Your own model", "Your own text", "Your own component"),
        *("Where things are", "Read on"),
    ]


def test_nothing_but_the_question_and_the_figure_comes_before_the_first_command() -> None:
    question, caption = README.split("## Two commands")[0].split("](docs/figures/phase.svg)")
    assert len(question.splitlines()) <= 8
    assert len(caption.strip().splitlines()) == 2
    assert README.split("## Two commands")[1].strip().startswith("```sh\n")


def tree_paths() -> list[str]:
    """Return every path that the tree names, from the root."""
    tree = re.search(r"```\n(config\.yaml .*?)```", README, re.DOTALL)
    assert tree
    paths, inside = [], ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        inside = inside if line.startswith(" ") else name if name.endswith("/") else ""
        paths.append(inside + name if line.startswith(" ") else name)
    return paths


@pytest.mark.parametrize("path", tree_paths())
def test_every_path_of_the_tree_exists(path: str) -> None:
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_the_tree_names_every_room() -> None:
    library = {f"{LIBRARY}{file.name}/" for file in (ROOT / LIBRARY).iterdir() if (file / "__init__.py").is_file()}
    assert library <= set(tree_paths())
    rooms = {f"{folder.name}/" for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")}
    assert rooms - {"src/", "build/"} <= set(tree_paths())


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:data|figures|analysis|config|stages)/[\w/.]+)`", README)))
)
def test_every_path_of_the_table_of_additions_exists(path: str) -> None:
    assert (ROOT / LIBRARY / path).exists()
