"""Start a study from a frozen tree: what its jobs read is written once, and later edits change none of them."""

import logging
import pathlib
import shlex
from collections.abc import Mapping
from typing import Any

from as_module import prefix_for_own
from snakemake.persistence import ParamsChange, PersistenceBase
from snakemake.shell import shell

from speciate.graph.frozen import SourceTree
from speciate.graph.study_graph import StudyGraph


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
    shell.prefix(f"set -euo pipefail; export {names}; " if for_all else prefix_for_own(names))


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


def remake(others: Mapping[str, str], logger: logging.Logger) -> None:
    """Let the jobs that make the files `others` be stale, and say why: file -> message.

    Snakemake asks its records whether a job's parameters have changed, if it has records of the job at all. For these
    jobs the answers become yes: something else has made their files, whatever was planned.
    """
    if not others:
        return
    for message in others.values():
        logger.info(message)
    has_metadata, params_changed = PersistenceBase.has_metadata, PersistenceBase.params_changed

    def others_of(job: Any) -> set[str]:
        return {str(path) for path in job.output} & set(others)

    def has_metadata_or_made_otherwise(self: Any, job: Any) -> bool:
        return bool(others_of(job)) or has_metadata(self, job)

    def params_changed_or_made_otherwise(self: Any, job: Any, file: Any = None) -> Any:
        files = others_of(job)
        if not files:
            return params_changed(self, job, file)
        return ParamsChange(only_old={others[file] for file in files}, files=files)

    PersistenceBase.has_metadata = has_metadata_or_made_otherwise
    PersistenceBase.params_changed = params_changed_or_made_otherwise
