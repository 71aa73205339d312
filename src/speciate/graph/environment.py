"""Name an environment by the lock that its packages were installed from.

A lock stands for the same packages on the host and in a container, so a change of the profile alone changes no name.
"""

import json
import os
import pathlib
import sys

from speciate.graph.provenance import short_digest

TOLD = "SPECIATE_ENVIRONMENT"
"""The variable by which the workflow tells its jobs the name of their image's environment."""


def environment_name(requirements: str, torch: str) -> str:
    """Return a digest of what a lock requires and of the build of torch that was installed with it."""
    return short_digest(requirements, torch)


def built_environment(folder: pathlib.Path) -> str:
    """Return the name of the environment in a folder; empty where nothing says what was installed."""
    try:
        built = json.loads((folder / "build.json").read_text(encoding="utf-8"))
        return environment_name(built.get("requirements") or built["locks"], built["torch"]["file"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def own_environment() -> str:
    """Return the name of the environment in which this process runs; empty where nothing says it."""
    return built_environment(pathlib.Path(sys.prefix)) or os.environ.get(TOLD, "")
