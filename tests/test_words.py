"""Test that no retired name returns. Only a reader can judge the remaining prose (docs/glossary.md lists the words)."""

import ast
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).parents[1] / "src" / "speciate"
FILES = sorted(SOURCE.rglob("*.py"))
# functions, methods, classes and class variables that have standard names now
RETIRED = frozenset(
    [
        *("say", "told", "writing", "named", "portions", "let_go", "Kind", "Choice", "Problems", "problems"),
        *("Surroundings", "surroundings", "put_back", "fitting_gradients", "jumped", "happened", "leave_out"),
        *("Feed", "Standing", "Footprint", "footprint", "Together", "Weighing", "Weighed", "Rated", "weigh", "View"),
        *("Skipper", "through", "Drafter", "drafters", "Tokens", "Place", "note", "listening", "metering", "Meter"),
        *("counted", "observed", "guess", "told_BT", "hears", "taught", "teaches", "spreads", "selects", "unlike"),
        *("Connected", "Commonest", "Before", "s1", "s4"),
    ]
)
# files and folders that have another name now
RETIRED_MODULES = frozenset(
    [
        *(
            "verb",
            "kinds",
            "spec",
            "places",
            "study_file",
            "data_spec",
            "plan",
            "data_plan",
            "feed",
            "facts",
            "outputs",
        ),
        *("footprint", "arithmetic", "failing", "health", "finished", "starting", "teacher", "together", "rates"),
        *("hashing", "weighing", "attended", "chosen", "gathered", "view", "skipping", "drafts", "ranking", "meter"),
        *("pieces", "turns", "surfaces", "connected", "order", "commonest", "similar", "bins", "divide"),
    ]
)


def defined_names(tree: ast.Module) -> set[str]:
    """Return every name that a module defines: functions, methods, classes, and class variables."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            hooks = [item for item in node.body if isinstance(item, ast.AnnAssign) and "ClassVar" in ast.unparse(item)]
            names |= {item.target.id for item in hooks if isinstance(item.target, ast.Name)}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_retired_name_is_defined(file: pathlib.Path) -> None:
    assert not defined_names(ast.parse(file.read_text(encoding="utf-8"))) & RETIRED


def test_no_retired_file_or_folder_is_there() -> None:
    names = {path.stem for path in SOURCE.rglob("*") if "__pycache__" not in path.parts}
    assert not names & RETIRED_MODULES
