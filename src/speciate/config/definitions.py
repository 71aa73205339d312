"""Run single definitions of a source file without importing the file.

The workflow's side of the project has no torch, and must still know a component's options and a stage's spec. Both are
declared in the file that uses them, next to code that needs torch; so only their definitions are run.

In the folder of an exported model, model/hf/flat_layout.py takes this file's place.
"""

import ast
import functools
import pathlib
from typing import Any

PACKAGE = pathlib.Path(__file__).parents[1]
LIGHT_IMPORTS = ("typing", "pydantic", "pathlib", "collections.abc")
"""Modules that such a definition may use, besides `speciate.config` and files called `*_options`."""


def file_of(module: str) -> pathlib.Path:
    """Return the source file of a module of this package, whether or not there is one."""
    return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")


def component_files(folder: str) -> dict[str, pathlib.Path]:
    """Return the files of a component folder such as 'model/moe/router' by the kind that each of them may define."""
    return {file.stem: file for file in sorted((PACKAGE / folder).glob("[!_]*.py"))}


@functools.cache
def run_definitions(module: str, *names: str) -> dict[str, Any]:
    """Run the classes, functions and assignments called `names` in the source of `module`, in the order of the file.

    Returns:
        The namespace in which they ran: themselves and what they import from light modules.
    """
    file = file_of(module)
    body = [node for node in ast.parse(file.read_text(encoding="utf-8")).body if _is_wanted(node, names)]
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile(ast.Module(body, type_ignores=[]), str(file), "exec"), namespace)  # noqa: S102 - our own source
    return namespace


def _is_wanted(node: ast.stmt, names: tuple[str, ...]) -> bool:
    match node:
        case ast.Import():
            return all(_is_light(alias.name) for alias in node.names)
        case ast.ImportFrom():
            return _is_light(node.module or "")
        case ast.ClassDef() | ast.FunctionDef():
            return node.name in names
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in names
    return False


def _is_light(module: str) -> bool:
    return module in LIGHT_IMPORTS or module.startswith("speciate.config.") or module.endswith("_options")
