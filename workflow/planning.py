"""Let Snakemake plan a study of many runs in less time, by a third for 10,000 runs.

What it decides and says stays the same. Each function does nothing where Snakemake is not as expected.
"""

import atexit
import functools
import gc
import os
from collections.abc import Iterable
from typing import Any

OBJECTS_BETWEEN_COLLECTIONS = 50_000
"""So many new objects before Python looks for garbage among them, instead of 700."""


def in_less_time() -> None:
    """Set up everything by which a plan takes less time."""
    # A plan is a graph that stays: each look for garbage in it finds none, and together they take a third of the time.
    gc.set_threshold(max(OBJECTS_BETWEEN_COLLECTIONS, gc.get_threshold()[0]), *gc.get_threshold()[1:])
    # Python looks again at its end, when all memory is given back anyway.
    atexit.register(gc.freeze)
    remember_signatures()
    format_without_copies()
    compare_no_paths()


def remember_signatures() -> None:
    """Let Snakemake look at the signature of a function once, not for every job and every value that it computes.

    A study of 10,000 runs has 700,000 such looks at some fifty functions of its rules.
    """
    from snakemake import common, resources, rules

    look = vars(common).get("get_function_params")
    if look is None or hasattr(look, "cache_info"):
        return
    remembered = functools.cache(look)

    @functools.wraps(look)
    def look_once(function: Any) -> Any:
        try:
            return remembered(function)
        except TypeError:  # it cannot be hashed
            return look(function)

    look_once.cache_info = remembered.cache_info  # type: ignore[attr-defined]
    for module in (common, resources, rules):
        if vars(module).get("get_function_params") is look:
            vars(module)["get_function_params"] = look_once


class Names(dict[str, Any]):
    """The names that a message or a command of a job may use, each looked up when it is used."""

    def __init__(self, job: Any, variables: dict[str, Any]) -> None:
        super().__init__(variables)
        self._job = job

    def __missing__(self, name: str) -> Any:
        match name:
            case "input" | "output" | "params" | "threads" | "resources" | "log" | "jobid" | "name":
                return getattr(self._job, name)
            case "wildcards":
                return self._job._format_wildcards
            case "rule" | "rulename":
                return self._job.rule.name
            case "bench_iteration":
                return None
        return self._job.rule.workflow.globals[name]


def format_without_copies() -> None:
    """Let Snakemake fill in messages and commands from the names that they use.

    It makes three dictionaries of some 500 names for each text, and four texts for each job.
    """
    from snakemake import utils
    from snakemake.jobs import Job

    copying = vars(Job).get("format_wildcards")
    if copying is None or hasattr(copying, "__wrapped__"):
        return

    @functools.wraps(copying)
    def format_wildcards(job: Any, string: str, **variables: Any) -> Any:
        try:
            formatter = utils.SequenceFormatter(separator=" ", element_formatter=utils.QuotedFormatter())
            return formatter.vformat(string, (), Names(job, variables))
        except Exception:  # Snakemake says what is wrong, if anything is
            return copying(job, string, **variables)

    Job.format_wildcards = format_wildcards


def compare_no_paths() -> None:
    """Let Snakemake compare the paths of all outputs only where one may be within another, which it refuses."""
    from snakemake.dag import DAG

    compare = vars(DAG).get("check_directory_outputs")
    if compare is None or hasattr(compare, "__wrapped__"):
        return

    @functools.wraps(compare)
    def check_directory_outputs(dag: Any) -> None:
        if may_contain_another({str(file) for job in dag.jobs for file in job.output}):
            compare(dag)

    DAG.check_directory_outputs = check_directory_outputs


def may_contain_another(files: Iterable[str]) -> bool:
    """Return whether one path may be a folder above another; False only where none is."""
    files = frozenset(files)
    # paths that need a look at their parts: a//b, ./a, a/../b, or absolute ones beside relative ones
    if any(os.path.normpath(file) != file for file in files) or len(set(map(os.path.isabs, files))) > 1:
        return True
    folders: set[str] = set()
    waiting = set(map(os.path.dirname, files))
    while waiting:
        folder = waiting.pop()
        if folder not in folders:
            folders.add(folder)
            waiting.add(os.path.dirname(folder))
    return not files.isdisjoint(folders)
