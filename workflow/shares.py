"""Let short jobs share one submission to a cluster, in which they run one after the other.

A profile asks for it with `resources: share_minutes`. Stages of data that is not sharded share a job, so do the tables
and figures at the end, and as many short runs as fit in that time. A run that takes longer has a job of its own, which
its evaluation and measurement do not share: what fails in a share is not allowed to cost a long training. Snakemake's
groups would sum up what their members ask for; here a share asks for what the largest of them needs.
"""

import functools
import signal
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from speciate.graph.expected_time import evaluation_seconds, training_seconds
from speciate.graph.study_graph import StudyGraph

Run = tuple[str, int]
Group = Callable[[Any], str | None]

MOST_RUNS = 100
"""Runs that share a job at most: the command line of the job names each of them."""
ALL = "share"
"""The name that stands for every share where Snakemake asks how many connected parts may join."""
SHARDED = {
    "sort": "sorted",
    "sign": "sorted",
    "cluster": "clustered",
    "assign_splits": "clustered",
    "write_splits": "split",
    "sketch": "split",
}
"""Stages of a sharded study that follow one another within a shard -> their share."""


class Shares:
    """Names the share of each job; None for a job that has a submission of its own."""

    def __init__(self, workflow: Any, graph: StudyGraph) -> None:
        self.graph = graph
        self.minutes = setting(workflow, "share_minutes")
        self.fetches_here = bool(setting(workflow, "fetch_on_login_node"))
        self.workflow = workflow

    @functools.cached_property
    def is_sharded(self) -> bool:
        """Whether any domain of the study is cut into shards."""
        return any(len(self.graph.shards(domain)) > 1 for domain in self.graph.study.domains)

    @functools.cached_property
    def runs(self) -> dict[Run, str]:
        """The share of each short run."""
        return packed(self.graph, self.minutes, with_training=True) if self.minutes else {}

    @functools.cached_property
    def evaluations(self) -> dict[Run, str]:
        """The share of what follows each long run."""
        return packed(self.graph, self.minutes, with_training=False) if self.minutes else {}

    def named(self, name: str | None) -> str | None:
        """Return the name of a share if jobs are shared at all, and let all its jobs join."""
        # Snakemake makes these settings after it has read the rules
        settings = self.workflow.group_settings
        if not self.workflow.is_main_process:
            # what a cluster's job was given by name is one share, whatever the profile of the main process says
            name = None if settings.local_groupid == "local" else str(settings.local_groupid)
        elif not self.minutes:
            name = None
        if name is not None:
            self.workflow.parent_groupids[name] = ALL
            settings.group_components = {**settings.group_components, ALL: 1 << 20}
        return name

    def data(self, stage: str) -> Group:
        """Return the share of a data stage's jobs."""

        def share(wildcards: Any) -> str | None:
            name = SHARDED.get(stage) if self.is_sharded else "data"
            return None if stage == "fetch" and self.fetches_here else self.named(name)

        return share

    def card(self, wildcards: Any) -> str | None:
        """Return the share of the data card."""
        return self.named("card" if self.is_sharded else "data")

    def run(self, wildcards: Any) -> str | None:
        """Return the share of a training."""
        return self.named(self.runs.get((wildcards.ablation, int(wildcards.seed))))

    def evaluation(self, wildcards: Any) -> str | None:
        """Return the share of a run's evaluation and measurement: that of its training, if it has one."""
        run = (wildcards.ablation, int(wildcards.seed))
        return self.named(self.runs.get(run) or self.evaluations.get(run))

    def tables(self, wildcards: Any) -> str | None:
        """Return the share of what is made of all runs."""
        return self.named("report")

    def figure(self, wildcards: Any) -> str | None:
        """Return the share of a figure: one of the data card can be drawn before any run has ended."""
        return self.card(wildcards) if wildcards.figure in self.graph.figures("data") else self.tables(wildcards)


def setting(workflow: Any, name: str) -> int:
    """Return a number that the profile gives under `resources`; 0 where it gives none."""
    resource = workflow.global_resources.get(name)
    value = None if resource is None else resource.value
    return value if isinstance(value, int) else 0


def packed(graph: StudyGraph, minutes: int, with_training: bool) -> dict[Run, str]:
    """Return the share of each run, in the study's order, so that no share is expected to take more than `minutes`.

    A run that starts from another run is never in its share or an earlier one, so no two shares wait for each other.
    """
    study = graph.study
    filled: dict[int, tuple[int, float, int]] = {}
    shares = {}
    for ablation in study.ablations:
        for seed in study.seeds:
            run = graph.run(ablation, seed)
            seconds = evaluation_seconds(run, study)
            if with_training:
                seconds += training_seconds(run, study.block_length)
            if seconds > 60 * minutes:
                continue
            depth = len(ancestors(graph, ablation)) if with_training else 0
            number, full, members = filled.get(depth, (0, 0.0, 0))
            if full + seconds > 60 * minutes or members == MOST_RUNS:
                number, full, members = number + 1, 0.0, 0
            filled[depth] = (number, full + seconds, members + 1)
            shares[ablation, seed] = f"{'runs' if with_training else 'evaluations'}{depth}_{number}"
    return shares


def ancestors(graph: StudyGraph, ablation: str) -> list[str]:
    """Return the ablations from which an ablation starts, one after the other."""
    found: list[str] = []
    parent = graph.run(ablation, graph.study.seeds[0]).parent
    while parent is not None and parent not in found:
        found.append(parent)
        parent = graph.run(parent, graph.study.seeds[0]).parent
    return found


def ask_for_the_largest(workflow: Any, minutes: int) -> None:
    """Let a share ask for what its largest member needs, since its members run one after the other.

    Snakemake adds up the members' cores and memory where they could run at the same time, and their time limits where
    not: eighteen figures would ask for 18 cores, or for nine hours. The time limit is that of the longest member, and
    the time that a share is expected to take.
    """
    from snakemake.common.tbdstring import TBDString
    from snakemake.iocontainers import ResourceList
    from snakemake.jobs import GroupJob

    # `resources: runtime` limits each job; by default Snakemake would limit the sum over all that run at a time
    workflow.resource_scopes.update({"runtime": "local"})
    longest = setting(workflow, "runtime")

    def asked(job: Any) -> dict[str, Any]:
        return {name: value for name, value in job.resources.items() if not isinstance(value, TBDString)}

    def resources(self: Any) -> ResourceList:
        if self._resources is None:
            self._resources = merged(map(asked, self.jobs), minutes, longest)
        return ResourceList(fromdict=self._resources)

    GroupJob.resources = property(resources)


def merged(members: Iterable[dict[str, Any]], minutes: int, longest: int = 0) -> dict[str, Any]:
    """Return what a share asks for: the largest number of each kind, and the texts of the member with most memory."""
    together: dict[str, Any] = {}
    for member in sorted(members, key=lambda each: each.get("mem_mb", 0)):
        for name, value in member.items():
            if isinstance(value, int) and isinstance(together.get(name), int):
                together[name] = max(together[name], value)
            else:
                together[name] = value
    if "runtime" in together:
        together["runtime"] = min(together["runtime"] + minutes, longest or together["runtime"] + minutes)
    return {**together, "_nodes": 1}


def keep_within(workflow: Any, environment: MutableMapping[str, str]) -> None:
    """Let a job that a cluster started use the cores and memory it was given, not all of its node.

    Snakemake starts the members of a share itself, as many at a time as the node has cores. And one member that fails
    does not stop the others, which may belong to other runs.
    """
    if workflow.is_main_process:
        return
    cores = environment.get("SPECIATE_CORES") or environment.get("SLURM_CPUS_PER_TASK", "")
    if cores.isdigit():
        workflow.global_resources["_cores"] = int(cores)
    memory = environment.get("SLURM_MEM_PER_NODE", "")
    if memory.isdigit() and int(memory):
        workflow.global_resources["mem_mb"] = int(memory)
    # `sbatch --signal` warns every process of the job; only a training has something to do about it, and listens
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    # what Slurm tells a job goes on into a container that `--cleanenv` keeps from everything else
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        if name in environment:
            environment[f"APPTAINERENV_{name}"] = environment[name]
    from snakemake.scheduling.job_scheduler import JobScheduler

    JobScheduler.keepgoing = property(lambda self: True, lambda self, value: None)


def fetch_here(workflow: Any) -> None:
    """Let the login node fetch, where the nodes of the cluster have no network."""
    if setting(workflow, "fetch_on_login_node"):
        workflow._localrules.add("fetch")
