"""Print a study with everything that it extends, and where each key is set.

The output is a study file that stands by itself: it extends nothing and describes the same study. What was filled from
a checkpoint that a run starts from says so. Keys that no file sets are left out; docs/config.md has their defaults. The
study is checked first, as before a run.

Example:
    speciate config --study studies/moe.yaml
"""

import argparse
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from speciate.config.extends import extended_files, read_yaml
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.study import Study, parse_study

Path = tuple[str, ...]
"""The keys that lead to a value."""
LONGEST_PADDING = 64
"""Columns up to which comments are aligned; after a longer line, its comment follows at once."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--study", type=pathlib.Path, required=True, help="the study file")
    parser.add_argument("--plain", action="store_true", help="print no comments")


def main(arguments: argparse.Namespace) -> None:
    """Check the study and print it."""
    filled = fill_from_checkpoints(read_yaml(arguments.study), str(arguments.study))
    settings = filled.settings
    parse_study(settings, str(arguments.study))
    settings = {key: settings[key] for key in Study.model_fields if key in settings}  # in the order of the docs
    print(study_text(settings, None if arguments.plain else origins(arguments.study) | dict(filled.origins)), end="")


def origins(file: pathlib.Path) -> dict[Path, str]:
    """Return where each value of a study is set last, as FILE:LINE by its path.

    Files are shown relative to the current folder. In the order in which files are merged, the last one that sets a
    value is the one that it comes from.
    """
    text = file.read_text(encoding="utf-8")
    found: dict[Path, str] = {}
    for name in extended_files(yaml.safe_load(text)):
        found |= origins(file.parent / name)
    shown = os.path.relpath(file)
    return found | {path: f"{shown}:{line}" for path, line in _lines(text)}


def _lines(text: str) -> Iterator[tuple[Path, int]]:
    """Yield each key of a YAML text, as its path and its line (from 1), what is merged by `<<` included."""
    loader = yaml.SafeLoader(text)
    try:
        yield from _lines_within(loader, loader.get_single_node(), ())
    finally:
        loader.dispose()


def _lines_within(loader: yaml.SafeLoader, node: yaml.Node | None, above: Path) -> Iterator[tuple[Path, int]]:
    if not isinstance(node, yaml.MappingNode):
        return
    loader.flatten_mapping(node)
    for key, value in node.value:
        path = (*above, str(loader.construct_object(key)))
        yield path, key.start_mark.line + 1
        yield from _lines_within(loader, value, path)


def study_text(settings: Mapping[str, Any], where: Mapping[Path, str] | None) -> str:
    """Return a study's plain data as YAML, one value a line, with a comment on each value that `where` has."""
    rows = list(_rows(settings, ()))
    width = max((len(text) for text, path in rows if where and path in where), default=0)
    lines = []
    for text, path in rows:
        origin = _origin_of(path, where) if where and path else None
        lines.append(f"{text:{min(width, LONGEST_PADDING)}}  # {origin}" if origin else text)
    return "\n".join(lines) + "\n"


def _origin_of(path: Path, where: Mapping[Path, str]) -> str | None:
    """Return where a value was set; `router: hash` sets `router.kind`, too."""
    return where.get(path) or (where.get(path[:-1]) if path[-1] == "kind" else None)


def _rows(settings: Mapping[str, Any], above: Path) -> Iterator[tuple[str, Path]]:
    """Yield the lines of a mapping in YAML, each with its value's path; the line of a mapping has none."""
    indent = "  " * len(above)
    for key, value in settings.items():
        path = (*above, str(key))
        if isinstance(value, Mapping) and value:
            yield f"{indent}{_inline(key)}:", ()
            yield from _rows(value, path)
        else:
            yield f"{indent}{_inline(key)}: {_inline(value)}", path


def _inline(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")
