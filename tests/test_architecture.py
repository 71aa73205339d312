"""The directions of imports, and what keeps a stage's code closure exact."""

import ast
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).parents[1] / "src" / "speciate"
FILES = sorted(SOURCE.rglob("*.py"))
SPINE = {"kinds", "spec", "data_spec", "study", "study_file", "provenance", "stages", "data_plan", "plan"}
# what knows the whole study; a noun knows its own stage
WHOLE = {"study", "study_file", "data_plan", "plan"}
NOUNS = {"selection", "data", "model", "training", "evaluation", "analysis", "figures", "reporting"}
MAY_IMPORT = {
    "selection": {"selection"},
    "data": {"data"},
    "model": {"model", "selection"},
    "training": {"training", "model", "data", "selection"},
    "evaluation": {"evaluation", "training", "model", "data", "selection"},
    "analysis": {"analysis", "selection"},
    "figures": {"figures"},
    "reporting": {"reporting"},
}


def imports(file: pathlib.Path) -> set[str]:
    """Every module that a file imports anywhere in it, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(file: pathlib.Path) -> set[tuple[str, ...]]:
    """What a file imports of this package, as paths below it."""
    return {tuple(name.split(".")[1:]) for name in imports(file) if name.split(".")[0] == "speciate"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_follow_the_directions(file: pathlib.Path) -> None:
    where = file.relative_to(SOURCE).parts
    for target in ours(file):
        if len(where) == 1:
            assert where[0][:-3] not in SPINE or target[0] in SPINE | {"verb"}, f"the spine imports {target}"
        elif target[0] in NOUNS:
            assert target[0] in MAY_IMPORT[where[0]], f"{where[0]} imports {target[0]}"
        else:
            assert target[0] in SPINE - WHOLE | {"verb"}, f"a noun imports {target[0]}"


@pytest.mark.parametrize("file", [file for file in FILES if "class Options(" in file.read_text()], ids=lambda f: f.stem)
def test_kinds_never_import_kinds(file: pathlib.Path) -> None:
    folders = {other.parent for other in FILES if "class Options(" in other.read_text() and other.parent != SOURCE}
    for target in ours(file):
        imported = SOURCE.joinpath(*target[:-1]).with_suffix(".py")
        assert imported.parent not in folders or "class Options(" not in imported.read_text(), (
            f"{file} imports {target}"
        )


@pytest.mark.parametrize("file", [file for file in FILES if file.name == "__init__.py"], ids=str)
def test_init_files_are_empty(file: pathlib.Path) -> None:
    assert file.read_text() == ""


def test_the_package_never_imports_snakemake_and_analysis_never_torch() -> None:
    for file in FILES:
        names = {name.split(".")[0] for name in imports(file)}
        assert "snakemake" not in names, file
        if file.relative_to(SOURCE).parts[0] in {"analysis", "figures"}:
            assert "torch" not in names, file


def test_the_host_side_needs_only_what_both_environments_lock() -> None:
    for name in (*SPINE, "verb"):
        third_party = {module.split(".")[0] for module in imports(SOURCE / f"{name}.py")} - {"speciate"}
        assert not third_party & {"torch", "numpy", "pandas", "pyarrow", "transformers"}, name
