"""Find the routers of a model.

Each file of `recording/reader` offers `read(path, module, scores) -> Site | None`, which recognises the modules that it
can read. The first file that recognises a module reads it.
"""

import functools
import importlib
import pathlib
import re
from collections.abc import Callable
from typing import Any

from torch import nn

from speciate.recording import reader
from speciate.recording.families import REFUSED, family_of, scores_of
from speciate.recording.router_call import Site

Read = Callable[[str, nn.Module, str | None], Site | None]

ROUTER_CLASS = re.compile(r"(Router|Gating|Experts|Moe|MoE|Indexer)$")
"""Names of classes that choose, or that are chosen from."""


class UnreadableModel(ValueError):
    """A model whose routing cannot be recorded; the message names its family and the reason."""


@functools.cache
def readers() -> tuple[Read, ...]:
    """Return what reads routers, in the order of the files' names, with the general one last."""
    names = sorted(file.stem for file in pathlib.Path(reader.__path__[0]).glob("[a-z]*.py"))
    names.sort(key=lambda name: name == "experts")
    return tuple(importlib.import_module(f"{reader.__name__}.{name}").read for name in names)


def find_sites(model: nn.Module, name: str = "the model") -> list[Site]:
    """Return the routers of a model, in the order in which modules are defined.

    Args:
        model: a model of transformers, or any module that holds one.
        name: what messages call it.

    Raises:
        UnreadableModel: it has no router, or one that cannot be read; names the family.
    """
    sites: list[Site] = []
    read_below: list[str] = []
    for path, module in model.named_modules():
        family = family_of(module)
        if family in REFUSED and ROUTER_CLASS.search(type(module).__name__):
            raise UnreadableModel(f"{name}: the routing of the family {family} is not recorded: {REFUSED[family]}")
        site = _read(path, module, scores_of(family, _config_of(model)))
        if site is not None:
            sites.append(site)
            read_below.append(path)
    missed = [
        (path, module)
        for path, module in model.named_modules()
        if ROUTER_CLASS.search(type(module).__name__) and not _is_below(path, read_below)
    ]
    if not sites and missed:
        path, module = missed[0]
        raise UnreadableModel(
            f"{name}: the routing of the family {family_of(module)} cannot be recorded: nobody has looked at "
            f"{path}, a {type(module).__name__}; docs/recorded_families.md lists the families that are read"
        )
    if not sites:
        raise UnreadableModel(f"{name}: has no router of experts and no sparse attention; every token takes one path")
    return sites


def _read(path: str, module: nn.Module, scores: str | None) -> Site | None:
    return next((site for read in readers() if (site := read(path, module, scores)) is not None), None)


def _config_of(model: nn.Module) -> Any:
    config = vars(model).get("config")
    return None if config is None else config.get_text_config()


def _is_below(path: str, blocks: list[str]) -> bool:
    return any(path == block or path.startswith(f"{block}.") for block in blocks)
