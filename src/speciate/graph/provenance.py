"""What makes a stage stale: the code it runs. And what its outputs came from: versions and digests.

Snakemake does not see imports. Each rule therefore carries `params: code=digest(...)`: a hash over the verb's own file,
every file of this package that it imports, however deep, and the files of the kinds that its spec names. A stage is
remade when one of those changes, and not when a file is touched, checked out again, or only its comments or docstrings
change.
"""

import ast
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator

from speciate.config.components import options_within
from speciate.config.definitions import PACKAGE

# The schema acts on a stage only through the values in its spec, and the spec is an input of its own; these run
# nothing of a stage, and the last two nothing that its outputs could show: where metrics are sent, and paths that a
# person leaves out.
OUTSIDE = (
    *(
        "speciate.config.run",
        "speciate.config.data",
        "speciate.config.study",
        "speciate.config.extends",
        "speciate.config.components",
    ),
    *("speciate.config.stage_specs", "speciate.graph.study_graph", "speciate.graph.data_graph"),
    *("speciate.training.logs.sinks", "speciate.graph.run_paths"),
)


def sha256(file: pathlib.Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def short_digest(*parts: str) -> str:
    """Ten hex digits that stand for `parts`, for use in a path."""
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:10]


def source_of(module: str) -> pathlib.Path | None:
    """The file of a module of this package, or None where it is not ours or is a package's empty `__init__`."""
    parts = module.split(".")
    if parts[0] != "speciate":
        return None
    file = PACKAGE.joinpath(*parts[1:]).with_suffix(".py")
    return file if file.is_file() else None


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """`tree` and every statement in it; expressions, most of a tree, hold neither imports nor docstrings."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            inner = getattr(node, field, None)
            if isinstance(inner, list):
                waiting += inner


@functools.cache
def _read(module: str) -> tuple[frozenset[str], str]:
    """The names that a module imports anywhere in it, and its meaning: its syntax tree without docstrings.

    Comments, layout and time stamps are no part of that. A template beside the module that shares its stem
    (`report.html.jinja`) is part of it, as it is.

    Raises:
        ValueError: it is no module of this package.
    """
    file = source_of(module)
    if file is None:
        raise ValueError(f"{module} is no module of speciate")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # `from speciate.data import tokens` imports a module, `from speciate.data.tokens.fitted import read` a name of one
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            first.value.value = ""
    templates = sorted(file.parent.glob(f"{file.stem}.*.jinja"))
    meaning = "\n".join([ast.dump(tree), *(template.read_text(encoding="utf-8") for template in templates)])
    return frozenset(found), meaning


def imports_of(module: str) -> frozenset[str]:
    """The modules of this package that `module`'s source imports anywhere in it, itself not included."""
    return frozenset(name for name in _read(module)[0] if source_of(name) and name != module)


def closure(modules: Iterable[str]) -> list[str]:
    """`modules` and every module of this package that they import, however deep, sorted; the schema left out."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen and module not in OUTSIDE:
            seen.add(module)
            waiting += imports_of(module)
    return sorted(seen)


@functools.cache
def _digest(modules: frozenset[str]) -> str:
    return short_digest(*(f"{module}\n{_read(module)[1]}" for module in closure(modules)))


def digest(verb: str, *specs: object) -> str:
    """What `speciate VERB` would run on `specs`: a digest of its import closure and its kinds' closures."""
    kinds = {options.module_name() for spec in specs for options in options_within(spec)}
    return _digest(frozenset({f"speciate.stages.{verb}", *kinds}))
