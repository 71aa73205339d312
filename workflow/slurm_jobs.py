"""Name Slurm's jobs after what they do, and look after them as the plugin for Slurm (2.8.0) does not.

The plugin names every job by one random id, since it asks `squeue` and `sacct` for jobs of that name. Here jobs are
named `train.dense.0` and `squeue` is asked for all jobs of the user, which the controller answers from an index. Apart
from that

- it doubles the time between two looks at the jobs up to three minutes, whatever the profile says. Here it is never
  longer than `seconds-between-status-checks`;
- it waits for ever for a job that was preempted and is not requeued, and for one that Slurm has forgotten (MinJobAge).
  Here the first has failed, and the second has ended: its files and its log tell how;
- it guesses an account from old jobs with `sacct`, which need not be there. Slurm knows the user's default.

Where the plugin is not as expected here, it does as it always did.
"""

import getpass
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

SAME_NAME = re.compile(r"[^A-Za-z0-9_.+-]")
PATIENCE = 3
"""How many looks in a row must find a job preempted, or not at all, before it counts as ended."""


def name_of(job: Any) -> str:
    """Return what a job is called in the queue: its rule and wildcards, or its share and how many jobs are in it."""
    if not hasattr(job, "groupid"):
        return SAME_NAME.sub("_", ".".join([job.rule.name, *parts_of(job)]))
    members = sorted(job.jobs, key=lambda each: (each.rule.name != "train", each.rule.name, parts_of(each)))
    rules = {each.rule.name for each in members}
    kind = next((kind for kind in ("train", "evaluate", "measure") if kind in rules), "")
    runs = [each for each in members if each.rule.name == kind]
    if kind:
        more = f"+{len(runs) - 1}" if len(runs) > 1 else ""
        return SAME_NAME.sub("_", ".".join([kind, *parts_of(runs[0])]) + more)
    if len(members) == 1:
        return name_of(members[0])
    return SAME_NAME.sub("_", f"{job.groupid}.{len(members)}-jobs")


def parts_of(job: Any) -> list[str]:
    """Return the values of a job's wildcards that say something to a reader."""
    return [str(value) for key, value in job.wildcards.items() if key != "key"]


def comment_of(job: Any, study: str) -> str:
    """Return what `squeue --format %k` shows: the study, and every member of a share."""
    members = sorted(getattr(job, "jobs", [job]), key=lambda each: (each.rule.name, parts_of(each)))
    text = f"{study}: " + ", ".join(" ".join([each.rule.name, *parts_of(each)]) for each in members)
    return text if len(text) <= 200 else text[:197] + "..."


def own_jobs(command: str) -> str:
    """Return the query for all jobs of the user that replaces a query for one name."""
    user = shlex.quote(getpass.getuser())
    return re.sub(r"--name(=|\s+)\S+", f"--user {user}", command)


class Looks:
    """Remembers how often in a row a job was found preempted, or not found."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], int] = {}

    def ended(self, states: dict[str, str], jobs: list[str]) -> dict[str, str]:
        """Return `states` with a final one for jobs of which Slurm will tell no more."""
        final = dict(states)
        for job in jobs:
            state = states.get(job, "unknown")
            for suspect, verdict in (("PREEMPTED", "CANCELLED"), ("unknown", "UNKNOWN")):
                seen = self.counts.get((job, suspect), 0) + 1 if state == suspect else 0
                self.counts[job, suspect] = seen
                if seen >= PATIENCE:
                    final[job] = verdict
        return final


def improve(workflow: Any, study: str) -> None:
    """Let the plugin of a workflow that is about to run do as described above."""
    try:
        import snakemake_executor_plugin_slurm as plugin

        executor = workflow.scheduler._executor
        name_jobs(plugin, study)
        end_all(plugin, executor)
        look_often(plugin, workflow.remote_execution_settings.seconds_between_status_checks)
        charge_default_account(plugin)
    except Exception as error:
        print(f"jobs are named and watched as the plugin for Slurm does it: {error}", file=sys.stderr)


def name_jobs(plugin: Any, study: str) -> None:
    """Name each job after what it does, and find jobs by their user."""
    submit = plugin.get_submit_command

    def get_submit_command(job: Any, params: dict[str, Any], **named: Any) -> str:
        named_params = {**params, "run_uuid": name_of(job), "comment_str": comment_of(job, study)}
        return str(submit(job, named_params, **named))

    def query_own(query: Callable[[str], str]) -> Callable[[str], str]:
        return lambda name: own_jobs(query(name))

    plugin.get_submit_command = get_submit_command
    plugin.query_job_status_squeue = query_own(plugin.query_job_status_squeue)
    plugin.query_job_status_sacct = query_own(plugin.query_job_status_sacct)


def end_all(plugin: Any, executor: Any) -> None:
    """Let no job be waited for of which Slurm will tell no more."""
    query, check, looks = plugin.query_job_status, executor.check_active_jobs, Looks()
    asked: list[str] = []

    async def query_job_status(command: str, logger: Any) -> tuple[Any, Any]:
        states, seconds = await query(command, logger)
        return (states if states is None else looks.ended(states, asked)), seconds

    async def check_active_jobs(active: list[Any]) -> Any:
        asked[:] = [info.external_jobid for info in active]
        async for info in check(active):
            yield info

    plugin.query_job_status = query_job_status
    executor.check_active_jobs = check_active_jobs


def look_often(plugin: Any, seconds: int) -> None:
    """Look at the jobs at least every so many seconds."""
    inherited = plugin.Executor.next_seconds_between_status_checks

    def later(self: Any, value: int) -> None:
        inherited.fset(self, min(value, seconds))

    plugin.Executor.next_seconds_between_status_checks = property(inherited.fget, later)


def charge_default_account(plugin: Any) -> None:
    """Name no account but the one that the profile names; one that cannot be checked here is left to Slurm."""
    validate = plugin.validate_account

    def validate_account(account: str, logger: Any) -> str:
        try:
            return str(validate(account, logger) or "")
        except FileNotFoundError:
            return ""

    def get_account_arg(self: Any, job: Any) -> Iterator[str]:
        if job.resources.get("slurm_account"):
            yield from named(self, job)
        else:
            yield ""

    named = plugin.Executor.get_account_arg
    plugin.validate_account = validate_account
    plugin.Executor.get_account_arg = get_account_arg
