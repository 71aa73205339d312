"""Name the environment in which a study's jobs run by the locks that its packages were installed from.

A lock stands for the same packages on the host and in a container, so a change of the profile alone changes no name.
"""

import json
import pathlib
from typing import Any

import yaml

from speciate.graph.provenance import short_digest

BUILT = ".envs/study/build.json"
IMAGES = "containers/images.lock.yaml"


def of_host(house: pathlib.Path) -> str:
    """Return the digest of the host's environment; empty where nothing says what was installed."""
    try:
        built = json.loads((house / BUILT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return _name(built.get("requirements") or built.get("locks"), built.get("torch", {}).get("file"))


def of_image(tree: pathlib.Path, name: str) -> str:
    """Return the digest of the environment in a pinned image."""
    pinned = yaml.safe_load((tree / IMAGES).read_text(encoding="utf-8"))[name]
    return _name(pinned.get("requirements") or pinned["sha256"], pinned.get("torch"))


def _name(*parts: Any) -> str:
    return short_digest(*map(str, parts))
