"""Digest the code that a stage runs, so that a change of the code makes the stage stale.

Snakemake does not see imports. Each rule therefore carries `params: code=digest(...)`: a hash over the stage's own
file, every file of this package that it imports, however deep, and the files of the components that its spec names. A
stage is remade when one of these changes what it does. It is not remade for a touched file, a fresh checkout, a
comment, a docstring or an option's text, the help of a command line, or a log line.
"""

import ast
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator

from speciate.config.components import Strict, options_within
from speciate.config.definitions import PACKAGE
from speciate.config.run import RunSpec, canonical_json

OUTSIDE = (
    # settings reach a stage as values in its spec, which is a separate input
    "speciate.config",
    # the command line, and the graph of paths: what calls a stage, not what it does
    *("speciate.cli", "speciate.graph"),
    # the names of processors, for logs and metadata: another processor must not make a stage stale
    "speciate.machine",
    # progress, log lines and metadata of a run; tests/graph/test_outside.py shows that no later stage reads them
    "speciate.training.logs",
    # locks decide when something may happen, never what
    *("speciate.training.checkpoint.lock", "speciate.training.distributed.gpu_slots"),
)
"""Modules and packages that change no byte of any stage's output."""
INSIDE = ("speciate.config.contracts", "speciate.training.logs.run_files")
"""The exceptions within these packages: defaults of hooks, and the files that a run writes."""


def short_digest(*parts: str) -> str:
    """Return ten hex digits that stand for `parts`, for use in a path."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:10]


def source_of(module: str) -> pathlib.Path | None:
    """Return the file of a module of this package; None if it is another package's or an empty `__init__`."""
    parts = module.split(".")
    if parts[0] != "speciate":
        return None
    file = PACKAGE.joinpath(*parts[1:]).with_suffix(".py")
    return file if file.is_file() else None


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield `tree` and every statement in it, silent ones removed; expressions, most of a tree, hold no statement."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = vars(node).get(field)
            if isinstance(inner, list):
                inner[:] = [child for child in inner if not (isinstance(child, ast.stmt) and _is_silent(child))]
                waiting += inner
        if isinstance(node, ast.stmt):
            _forget_help(node)


def _is_silent(node: ast.stmt) -> bool:
    """Tell whether a statement changes no output: a text by itself, a log line, an import for type checkers."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="log"))):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
    return False


def _forget_help(node: ast.stmt) -> None:
    """Remove the help texts from a statement that declares a command-line argument."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="add_argument")) as call):
            call.keywords = [keyword for keyword in call.keywords if keyword.arg not in ("help", "metavar")]


@functools.cache
def _read(module: str) -> tuple[frozenset[str], str]:
    """Return the names that a module imports anywhere in it, and its meaning: its syntax tree without silent
    statements.

    The text of a template next to the module with the same stem (`report.html.jinja`) is part of the meaning.

    Raises:
        ValueError: it is not a module of this package.
    """
    file = source_of(module)
    if file is None:
        raise ValueError(f"{module} is not a module of speciate")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from speciate.data.tokens import read` imports a module, `from speciate.io import atomic_write` a name
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    templates = sorted(file.parent.glob(f"{file.stem}.*.jinja"))
    meaning = "\n".join([ast.dump(tree), *(template.read_text(encoding="utf-8") for template in templates)])
    return frozenset(imported), meaning


def is_outside(module: str) -> bool:
    """Tell whether a module changes no byte of any stage's output."""
    return _is_within(module, OUTSIDE) and not _is_within(module, INSIDE)


def _is_within(module: str, packages: Iterable[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports_of(module: str) -> frozenset[str]:
    """Return the modules of this package that the source of `module` imports anywhere in it, without itself."""
    return frozenset(name for name in _read(module)[0] if source_of(name) and name != module)


def closure(modules: Iterable[str]) -> list[str]:
    """Return `modules` and every module of this package that they import, however deep, sorted; outsiders left out."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen and not is_outside(module):
            seen.add(module)
            waiting += imports_of(module)
    return sorted(seen)


@functools.cache
def _digest(modules: frozenset[str]) -> str:
    return short_digest(*(f"{module}\n{_read(module)[1]}" for module in closure(modules)))


def digest(verb: str, *specs: object) -> str:
    """Return a digest of what `speciate VERB` would run on `specs`: its imports and those of its components."""
    kinds = {options.module_name() for spec in specs for options in options_within(spec)}
    return _digest(frozenset({f"speciate.stages.{verb}", *kinds}))


def spec_digest(*specs: Strict) -> str:
    """Return a digest of what the specs of a stage say; that of one spec names its file."""
    return short_digest(*map(canonical_json, specs))


def made_by(spec: RunSpec) -> dict[str, str]:
    """Return the digests of a run's spec and of the code that trains it, as run.json records them."""
    return {"spec": spec_digest(spec), "code": digest("train", spec)}
