"""Start a study from a frozen tree: what its jobs read is written once, and later edits change none of them."""

import os
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from as_module import prefix_for_own
from snakemake.shell import shell

from speciate.graph.frozen import SourceTree
from speciate.graph.study_graph import StudyGraph

KERNELS = (
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA"),
    *("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES"),
)
"""Variables by which a user's shell chooses other kernels for the same processor, which give other last bits."""
KEEP = "SPECIATE_KEEP_KERNELS"
"""The variable by which a user says that the choice is meant."""


def set_prefix(exports: Mapping[str, object], tree: pathlib.Path, *, for_all: bool) -> None:
    """Let every job import the package of this tree, with these variables; or only those of Speciate's own rules.

    The prefix replaces Snakemake's own, so it must repeat `pipefail`, by which a failure inside a pipe counts.
    Snakemake formats it, so braces are doubled.
    """
    values = [
        f"{name}={shlex.quote(str(value))}".replace("{", "{{").replace("}", "}}")
        + (':"$PATH"' if name == "PATH" else "")
        for name, value in {**exports, "PYTHONPATH": tree / "src"}.items()
    ]
    names = " ".join(values)
    unset = "" if KEEP in os.environ else f"unset {' '.join(KERNELS)}; "
    shell.prefix(f"set -euo pipefail; {unset}export {names}; " if for_all else prefix_for_own(unset, names))


def freeze(workflow: Any, source: SourceTree, graph: StudyGraph, key: str) -> pathlib.Path:
    """Write the frozen tree and all specs, and let the jobs that a cluster starts plan with them. Return the tree.

    Args:
        workflow: the Snakemake workflow that is about to start jobs.
        source: the tree.
        graph: the study.
        key: the key of the config that tells those jobs of the tree.
    """
    tree = source.write(graph.results / "source")
    settings = workflow.config_settings
    settings.config_args = [*settings.config_args, f"{key}={tree}"]
    graph.write_specs()
    return tree
