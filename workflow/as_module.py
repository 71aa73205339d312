"""Let another Snakefile import these rules as a Snakemake module, beside rules and modules of its own.

A module's paths get the prefix that the importing Snakefile gives, its `onstart` is not run, and what it sets for the
whole process, such as the prefix of shell commands, holds for the rules of the others too. What must differ then
stands here.
"""

from collections.abc import Callable
from typing import Any

from snakemake.path_modifier import PathModifier

COMMAND = "python -m speciate "
"""What each rule's command holds."""


def is_module(workflow: Any) -> bool:
    """Tell whether the Snakefile that is being read is imported by another one."""
    return not workflow.modifier.is_main_snakefile()


def take_prefix(workflow: Any) -> str:
    """Return the folder of all results, with the module's prefix, and let Snakemake change no path itself.

    It would change inputs and outputs, but neither parameters nor what the graph of the study says.
    """
    results = str(workflow.modifier.path_modifier.replace_prefix("results"))
    workflow.modifier.path_modifier = PathModifier(None, None, workflow)
    return results


def keep_start(workflow: Any) -> None:
    """Let the `onstart` of a module run before the importing Snakefile's own; Snakemake would ignore it."""
    name = workflow.modifier.namespace
    starts: dict[str, Callable[[str], None]] | None = vars(workflow).get("speciate_starts")
    if starts is None:
        starts = workflow.speciate_starts = {}
        others = [workflow._onstart]

        def start(log: str) -> None:
            for module_start in [*starts.values(), *others]:
                module_start(log)

        def onstart(function: Callable[[str], None]) -> None:
            if workflow.modifier.is_main_snakefile():
                others[:] = [function]
            elif workflow.modifier.namespace in starts:
                starts[workflow.modifier.namespace] = function

        workflow._onstart, workflow.onstart = start, onstart
    # a module is read anew by each `use rule`; the last reading counts
    starts[name] = lambda log: None


def set_default_target(workflow: Any, earlier: str | None) -> None:
    """Let `all` be the default target, unless the importing Snakefile has one already."""
    if earlier is None and workflow.modifier.avail_rulename("all") is not None:
        workflow.default_target = workflow.modifier.modify_rulename("all")
    else:
        workflow.default_target = earlier


def prefix_for_own(before: str, exports: str) -> str:
    """Return the prefix of shell commands by which only Speciate's own get the exports, and run what comes before.

    Bash holds its command, with this prefix, in BASH_EXECUTION_STRING. The quotes keep the pattern from matching
    itself.
    """
    first, last = COMMAND[:6], COMMAND[6:]
    return f'set -euo pipefail; case "$BASH_EXECUTION_STRING" in *"{first}""{last}"*) {before}export {exports};; esac; '
