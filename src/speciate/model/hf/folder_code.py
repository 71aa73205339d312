"""Write the code of an exported model into its folder, so that it loads where this package is not installed.

transformers loads custom code from flat files that name each other by relative imports. So each module that the model
needs is copied: `speciate.model.block` becomes `speciate_model_block.py`, and `from speciate.model.norm import norm` in
it becomes `from .speciate_model_norm import norm`. Nothing else is changed, so the folder computes what the package
computes. Of the components it has only those that the model's spec names.
"""

import ast
import contextlib
import functools
import importlib
import importlib.metadata
import pathlib
import re
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass

from speciate.cli import VERSION
from speciate.config.components import options_of, options_within
from speciate.config.definitions import PACKAGE, file_of
from speciate.config.run import ModelSpec

ENTRY = "speciate.model.hf.auto_classes"
"""The module whose classes transformers loads."""
FLAT = "speciate.model.hf.flat_layout"
REPLACED = {"speciate.config.definitions": FLAT, "speciate.model.hf.folder_code": FLAT}
"""Modules that an exported folder has another module for."""
LICENCE = "speciate_LICENSE.txt"
HEADER = """\
# Copied from {path} of Speciate {version}, with its imports made relative.
# SPDX-License-Identifier: MIT. The licence is at the head of {entry}.py, and in {licence}.
"""


@dataclass(frozen=True)
class Copy:
    """One module as an exported folder holds it."""

    text: str
    modules: frozenset[str]
    """Modules of this package that it imports, or asks for by name."""
    packages: frozenset[str]
    """Packages of others that it imports."""


def write_code(folder: pathlib.Path, model: ModelSpec) -> None:
    """Write the code of such a model, and its licence, into `folder`."""
    components = sorted({options.module_name() for options in options_within(model)})
    copies: dict[str, Copy] = {}
    waiting = [ENTRY, *components]
    while waiting:
        module = waiting.pop()
        if module not in copies:
            copies[module] = copy_module(module)
            waiting += copies[module].modules
    assert len({flat_name(module) for module in copies}) == len(copies), "two modules would be one file"
    packages = sorted({package for copy in copies.values() for package in copy.packages})
    named = [
        "\n\n# Not used here: transformers requires the packages that this file names, and copies its modules.",
        *(f"import {package}  # noqa" for package in packages),
        *(f"from .{flat_name(module)} import __name__ as _  # noqa" for module in sorted({*copies} - {ENTRY})),
    ]
    # transformers copies modules alone when it saves a loaded model again, so a module must hold the licence
    head = "".join(f"# {line}".rstrip() + "\n" for line in licence().splitlines())
    folder.mkdir(parents=True, exist_ok=True)
    for module, copy in copies.items():
        text = f"{head}{copy.text}{chr(10).join(named)}\n" if module == ENTRY else copy.text
        (folder / f"{flat_name(module)}.py").write_text(text, encoding="utf-8")
    (folder / LICENCE).write_text(licence(), encoding="utf-8")


def flat_name(module: str) -> str:
    """Return the name of a module's copy, without its suffix."""
    return module.replace(".", "_")


@functools.cache
def copy_module(module: str) -> Copy:
    """Return a module's source with relative imports, and without the imports that only type checkers run."""
    source = file_of(module).read_text(encoding="utf-8")
    lines = source.splitlines(keepends=True)
    modules, packages = set(), set()
    for node in _statements(ast.parse(source), lines):
        match node:
            case ast.ImportFrom(module=str(name), names=names) if name.split(".")[0] == "speciate":
                target = REPLACED.get(name, name)
                if file_of(target).is_file():
                    modules.add(target)
                    first = lines[node.lineno - 1]
                    lines[node.lineno - 1] = re.sub(r"from\s+speciate\S*", f"from .{flat_name(target)}", first, count=1)
                else:  # the names are modules of a package
                    modules |= {f"{name}.{alias.name}" for alias in names}
                    _replace(node, lines, [_import_module(name, alias) for alias in names])
            case ast.ImportFrom(module=str(name)):
                packages.add(name.split(".")[0])
            case ast.Import(names=names):
                packages |= {alias.name.split(".")[0] for alias in names}
            case ast.Call(
                func=ast.Name(id="options_of"), args=[ast.Constant(value=str(slot)), ast.Constant(value=kind)]
            ):
                modules.add(options_of(slot, str(kind)).module_name())
    assert "speciate" not in packages, f"{module} imports the package itself; name what it uses of it"
    header = HEADER.format(
        path=file_of(module).relative_to(PACKAGE.parent), version=VERSION, entry=flat_name(ENTRY), licence=LICENCE
    )
    others = packages - sys.stdlib_module_names - {"__future__"}
    return Copy(header + "".join(lines), frozenset(modules), frozenset(others))


def _statements(tree: ast.AST, lines: list[str]) -> Iterator[ast.AST]:
    """Yield every node of `tree`; blank the lines of blocks for type checkers, and yield nothing of them."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
                _replace(node, lines, [])
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=others):
                for other in others:
                    yield other
                    yield from _statements(other, lines)
            case _:
                yield node
                yield from _statements(node, lines)


def _replace(node: ast.stmt, lines: list[str], by: list[str]) -> None:
    """Put other lines, indented alike, in the place of a statement; the numbers of the lines after it stay."""
    last = node.end_lineno or node.lineno
    text = "".join(f"{' ' * node.col_offset}{line}\n" for line in by)
    lines[node.lineno - 1 : last] = [text, *[""] * (last - node.lineno)]


def _import_module(package: str, alias: ast.alias) -> str:
    """Return the relative import of one module of `package`, under the name that it has in the source."""
    return f"from . import {flat_name(f'{package}.{alias.name}')} as {alias.asname or alias.name}"


def licence() -> str:
    """Return the text of the project's licence, from the installed package or from the checkout.

    Raises:
        ValueError: neither has it.
    """
    files = [PACKAGE.parents[1] / "LICENSE"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        distribution = importlib.metadata.distribution("speciate")
        installed = [file for file in distribution.files or () if file.name == "LICENSE"]
        files = [*(pathlib.Path(str(distribution.locate_file(file))) for file in installed), *files]
    for file in files:
        if file.is_file():
            return file.read_text(encoding="utf-8")
    raise ValueError(
        f"{files[0]}: is missing, and the licence goes with every copy of the code; install speciate again"
    )


@contextlib.contextmanager
def imported_code(folder: pathlib.Path) -> Iterator[types.ModuleType]:
    """Import the code in an exported folder for the block; yield its entry module. Nothing of this package runs."""
    package = types.ModuleType("speciate_exported")
    package.__path__ = [str(folder)]
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[package.__name__] = package
    importlib.invalidate_caches()
    try:
        yield importlib.import_module(f"{package.__name__}.{flat_name(ENTRY)}")
    finally:
        sys.dont_write_bytecode = writes
        for name in [name for name in sys.modules if name.split(".")[0] == package.__name__]:
            del sys.modules[name]
