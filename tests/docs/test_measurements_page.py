"""Test that docs/measurements.md names every metric that modules record, and its file, and nothing else."""

import ast
import functools
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCE = ROOT / "src" / "speciate"
ROW = re.compile(r"^\| `(measured\.)?([a-z_]+)` \| ([^|]+) \| ([^|]+) \|", re.MULTILINE)
PAGE = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8")
FINISHED = "speculation_metrics"
"""The evaluation's function that measures the finished model, in addition to what its modules record."""
Metric = tuple[str, bool]
"""(name, whether it has a coordinate)."""


def literals(node: ast.expr) -> list[str]:
    """Return the strings in an expression; for a dict, return its keys."""
    expressions = node.keys if isinstance(node, ast.Dict) else [node]
    return [
        part.value
        for expression in expressions
        if expression is not None
        for part in ast.walk(expression)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


def function_of(call: ast.Call) -> str:
    """Return the name of the function or method that is called."""
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def values(name: str, at: ast.Call, tree: ast.Module) -> list[str]:
    """Return the names that a variable in a `record_metric` call can hold: a loop's literals, or arguments."""
    around = [node for node in ast.walk(tree) if any(inner is at for inner in ast.walk(node))]
    for node in reversed(around):
        if isinstance(node, ast.For) and name in {
            part.id for part in ast.walk(node.target) if isinstance(part, ast.Name)
        }:
            over = node.iter.func.value if isinstance(node.iter, ast.Call) else node.iter  # type: ignore[attr-defined]
            return literals(over)
        if isinstance(node, ast.FunctionDef) and name in [argument.arg for argument in node.args.args]:
            place = [argument.arg for argument in node.args.args if argument.arg != "self"].index(name)
            calls = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and function_of(call) == node.name]
            return [text for call in calls for text in literals(call.args[place])]
    return []


def recorded(file: pathlib.Path) -> Iterator[Metric]:
    """Return the metrics that a file records, and those that `speculation_metrics` adds for the finished model."""
    source = file.read_text(encoding="utf-8")
    if "record_metric(" not in source and f"def {FINISHED}(" not in source:
        return
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and function_of(node) == "record_metric":
            name = node.args[1]
            metrics = values(name.id, node, tree) if isinstance(name, ast.Name) else literals(name)
            assert metrics, f"{file}:{node.lineno}: this test cannot tell what is recorded here"
            has_coordinate = len(node.args) > 3 or any(key.arg == "at" for key in node.keywords)
            yield from ((metric, has_coordinate) for metric in metrics)
        if file.parent.name == "evaluation" and isinstance(node, ast.FunctionDef) and node.name == FINISHED:
            dicts = [part for part in ast.walk(node) if isinstance(part, ast.Dict)]
            yield from ((metric, False) for part in dicts for metric in literals(part))


@functools.cache
def in_code() -> dict[Metric, set[str]]:
    """Return the files that record each metric."""
    files: dict[Metric, set[str]] = defaultdict(set)
    for file in sorted(SOURCE.rglob("*.py")):
        for metric in recorded(file):
            files[metric].add(str(file.relative_to(SOURCE)))
    return dict(files)


def on_page() -> dict[Metric, set[str]]:
    """Return the files that the page names for each metric."""
    return {(name, not prefix): set(re.findall(r"`([^`]+)`", files)) for prefix, name, files, _ in ROW.findall(PAGE)}


def test_the_page_names_what_is_recorded_and_where_and_nothing_else() -> None:
    assert len(in_code()) > 20
    assert on_page() == in_code()


def test_no_name_is_there_twice_and_each_is_explained() -> None:
    rows = ROW.findall(PAGE)
    names = [name for _, name, _, _ in rows]
    assert len(names) == len(set(names))
    assert all(len(what.split()) > 3 for *_, what in rows)


def test_studies_name_metrics_that_exist() -> None:
    named = {
        name
        for file in (ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml")))
        for name in re.findall(r"measured\.([a-z_]+)", file.read_text(encoding="utf-8"))
    }
    assert named
    assert named <= {name for name, at in on_page() if not at}


def drawn(file: pathlib.Path) -> set[str]:
    """Return a figure's metrics: what it gives `lines.measurement_rows`, itself or by a loop over literals."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    strings: dict[str, list[str]] = defaultdict(list)
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            strings[node.targets[0].id] += literals(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.comprehension | ast.For) and isinstance(node.target, ast.Name):
            strings[node.target.id] += strings[node.iter.id] if isinstance(node.iter, ast.Name) else literals(node.iter)
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lines.measurement_rows"
    ]
    arguments = [
        argument.value if isinstance(argument, ast.Starred) else argument
        for call in calls
        for argument in call.args[1:]
    ]
    return {
        name
        for argument in arguments
        for name in (strings[argument.id] if isinstance(argument, ast.Name) else literals(argument))
    }


@pytest.mark.parametrize("figure", ["sparse", "keys", "mask_budget"])
def test_figures_draw_what_is_recorded(figure: str) -> None:
    names = drawn(SOURCE / "figures" / f"{figure}.py")
    assert names
    assert names <= {name for name, _ in in_code()}


def test_a_loop_and_a_functions_callers_are_read(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "some.py"
    file.write_text(
        "def forward(self):\n"
        "    for name, value in {'one': 1, 'two': 2}.items():\n"
        "        record_metric(self, name, value)\n"
        "    for name in ('three', 'four'):\n"
        "        record_metric(self, name, 1, at=2.0)\n"
        "    self._say(1, 'five')\n"
        "def _say(self, value, name):\n"
        "    record_metric(self, name, value)\n"
    )
    assert set(recorded(file)) == {("one", False), ("two", False), ("three", True), ("four", True), ("five", False)}
