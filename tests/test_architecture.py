"""Test the directions of imports between packages, and what keeps a stage's code closure exact."""

import ast
import pathlib
import re

import pytest

SOURCE = pathlib.Path(__file__).parents[1] / "src" / "speciate"
FILES = sorted(file for file in SOURCE.rglob("*.py") if file.name != "__init__.py")
# package -> the packages that it may import besides itself; `cli`, `io` and `machine` are below all of them. `warm` and
# `warm_server` stand between the command line and its verbs
MAY_IMPORT = {
    "config": set(),
    "selection": {"config"},
    "data": {"config", "selection"},
    "model": {"config", "selection", "data"},
    "training": {"config", "selection", "data", "model"},
    "evaluation": {"config", "selection", "data", "model", "training"},
    "traces": {"config", "selection"},
    "recording": {"config", "selection", "data", "model", "training"},
    "training_logs": {"config", "selection", "analysis", "figures"},
    "watching": {"config", "selection", "analysis", "model", "recording"},
    "analysis": {"config", "selection"},
    "figures": {"config"},
    "calibration": {"config", "selection", "analysis"},
    "reporting": {"config", "selection", "analysis", "figures"},
    "graph": {"config"},
    "stages": {
        "config",
        "selection",
        "data",
        "model",
        "training",
        "evaluation",
        "analysis",
        "calibration",
        "figures",
        "reporting",
        "graph",
    },
    "tools": {
        *("config", "selection", "data", "model", "training", "evaluation", "graph"),
        *("analysis", "reporting", "traces", "recording", "training_logs"),
    },
}
# top-level files that stand for a room, and the packages that they may import besides what is below all
PUBLIC = {"watch": {"watching"}}
HEAVY = {"torch", "transformers", "datasets"}
CROWDED = 18


def imports(file: pathlib.Path, for_types_too: bool = True) -> set[str]:
    """Return every module that a file imports anywhere in it, as dotted names."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if not for_types_too:
        blocks = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        skipped = {id(inner) for block in blocks for inner in ast.walk(block)}
        nodes = [node for node in nodes if id(node) not in skipped]
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(file: pathlib.Path) -> set[tuple[str, ...]]:
    """Return what a file imports of this package, as paths below it, without the imports for type checkers."""
    return {tuple(name.split(".")[1:]) for name in imports(file, False) if name.split(".")[0] == "speciate"}


def is_component(file: pathlib.Path) -> bool:
    return "\nclass Options(" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_follow_the_directions(file: pathlib.Path) -> None:
    room, *below = file.relative_to(SOURCE).parts
    for target in ours(file):
        if not below:
            allowed = {"cli", "io", "machine", "warm", *PUBLIC.get(file.stem, set())}
            assert target[0] in allowed, f"{room} imports {'.'.join(target)}"
        else:
            assert target[0] in {room, "cli", "io", "machine", *MAY_IMPORT[room]}, f"{room} imports {'.'.join(target)}"


@pytest.mark.parametrize("room", ["stages", "tools"])
def test_verbs_never_import_verbs(room: str) -> None:
    for file in (SOURCE / room).glob("*.py"):
        assert not [target for target in ours(file) if target[0] in {"stages", "tools"}], file


@pytest.mark.parametrize(
    "file", [file for file in FILES if is_component(file)], ids=lambda f: str(f.relative_to(SOURCE))
)
def test_components_never_import_components(file: pathlib.Path) -> None:
    for target in ours(file):
        for end in (len(target), len(target) - 1):
            imported = SOURCE.joinpath(*target[:end]).with_suffix(".py")
            assert not (imported.is_file() and is_component(imported)), f"{file} imports {'.'.join(target)}"


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("__init__.py")), ids=str)
def test_init_files_are_empty(file: pathlib.Path) -> None:
    assert file.read_text() == ""


def test_the_package_never_imports_snakemake_and_analysis_never_torch() -> None:
    for file in FILES:
        names = {name.split(".")[0] for name in imports(file)}
        assert "snakemake" not in names, file
        if file.relative_to(SOURCE).parts[0] in {"analysis", "calibration", "figures", "reporting", "graph", "config"}:
            assert not HEAVY & {name.split(".")[0] for name in imports(file, False)}, file


@pytest.mark.parametrize("file", [*(SOURCE / "config").rglob("*.py"), *(SOURCE / "graph").rglob("*.py")], ids=str)
def test_the_host_side_needs_only_what_both_environments_lock(file: pathlib.Path) -> None:
    third_party = {module.split(".")[0] for module in imports(file, False)} - {"speciate"}
    assert not third_party & {"torch", "numpy", "pandas", "pyarrow", "transformers", "scipy"}, file


def test_no_room_is_crowded() -> None:
    counts = {folder: len([*folder.glob("[!_]*.py")]) for folder in SOURCE.rglob("*") if folder.is_dir()}
    components = {folder for folder in counts if any(is_component(file) for file in folder.glob("[!_]*.py"))}
    stages = {SOURCE / "stages"}
    crowded = {str(folder): count for folder, count in counts.items() if count > CROWDED}
    assert set(crowded) <= {str(folder) for folder in components | stages}


def test_no_hook_is_found_by_a_string() -> None:
    """A misspelt name makes `getattr` return its default silently, so only other libraries' attributes are read so."""
    allowed = {
        ("training/distributed/ranks.py", "reshard"),
        ("training/distributed/ranks.py", "full_tensor"),
        ("data/fetch/hub_client.py", "response"),
        ("data/tokens/lexical.py", "name"),
        ("model/hf/transformer_model.py", "_is_hf_initialized"),
    }
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) == 3:
                name = node.args[1].value if isinstance(node.args[1], ast.Constant) else ast.unparse(node.args[1])
                found.add((str(file.relative_to(SOURCE)), name))
    assert found <= allowed


def test_no_function_takes_more_than_four_arguments_by_position() -> None:
    """Forward and backward passes that torch calls by position (autograd functions) take the equation's arguments."""
    crowded = []
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        autograd = {
            id(item)
            for node in classes
            if any("autograd.Function" in ast.unparse(base) for base in node.bases)
            for item in node.body
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and id(node) not in autograd:
                names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                if len([name for name in names if name not in ("self", "cls", "ctx")]) > 4:
                    crowded.append(f"{file.relative_to(SOURCE)}: {node.name}")
    assert crowded == []


def test_options_are_one_class_for_specs_and_for_their_module() -> None:
    """Check that `isinstance` holds, whether the spec was read before or after the module was imported."""
    from speciate.config import contracts
    from speciate.config.components import component_module, kinds_in, options_of

    rooms = pathlib.Path(contracts.__path__[0])
    slots = re.findall(r"`([a-z_/]+)/<(?:kind|name)>\.py`", "".join(file.read_text() for file in rooms.glob("*.py")))
    assert len(slots) > 20
    for folder in slots:
        for kind in kinds_in(folder):
            options = options_of(folder, kind)
            assert component_module(options.model_construct(kind=kind)).Options is options
