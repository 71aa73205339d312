"""Check before the first job that what the profile needs is there; each error says in one line what to do."""

import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

from speciate.graph.study_graph import StudyGraph

Run = Callable[[list[str]], str]

SLURM = {
    "sbatch": "submits jobs",
    "squeue": "tells their states",
    "scancel": "ends them when Snakemake is interrupted",
    "sinfo": "tells the partitions",
    "scontrol": "tells how long Slurm remembers a job",
}
"""Commands that the plugin for Slurm cannot do without, and why."""
LONGEST_PAUSE = 3
"""How many looks at its jobs Slurm must remember a job that has ended."""


def executor_of(workflow: Any) -> str:
    """Return the name of the executor: `local`, `slurm`, `cluster-generic`, `kubernetes`."""
    module = type(workflow.scheduler._executor).__module__
    return module.removeprefix("snakemake_executor_plugin_").replace("_", "-").rpartition(".")[2]


def output_of(command: list[str]) -> str:
    """Return what a command prints; empty if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def check(workflow: Any, graph: StudyGraph) -> None:
    """Check what the profile of a workflow needs that is about to run.

    Raises:
        ValueError: something is missing; says what, and what to do.
    """
    executor, settings = executor_of(workflow), workflow.resource_settings
    wants_gpus = any(run.training.device == "cuda" for run in graph.study.runs())
    if executor == "slurm":
        pause = max(
            workflow.executor_settings.init_seconds_before_status_checks,
            workflow.remote_execution_settings.seconds_between_status_checks,
        )
        check_commands("slurm", SLURM, shutil.which)
        check_slurm(output_of, pause, workflow.executor_settings.status_command or "squeue")
        partitions = partitions_of(settings.default_resources)
        if wants_gpus:
            check_gres(output_of, partitions)
        limit_memory(workflow, output_of, partitions)
    elif executor == "cluster-generic":
        check_submit_command((workflow.executor_settings.submit_cmd or "").split())
    elif executor == "local" and (wants_gpus or "--nv" in workflow.deployment_settings.apptainer_args.split()):
        check_local_gpu(output_of, wants_gpus)


def check_tasks(workflow: Any, graph: StudyGraph, environment: pathlib.Path, *, in_container: bool) -> None:
    """Raise ValueError where a task is about to run whose environment is not there.

    Args:
        workflow: a workflow that is about to run.
        graph: the study.
        environment: the folder of the environment with what evaluation alone needs.
        in_container: whether jobs run in an image, which holds no such environment.
    """
    waiting = {job.wildcards.task for job in workflow.dag.needrun_jobs() if job.rule.name.endswith("evaluate_tasks")}
    needing = [task for task in graph.tasks if graph.study.evaluation.tasks[task].environment == "evaluation"]
    named = ", ".join(f"evaluation.tasks.{task}" for task in needing if task in waiting)
    if named and in_container:
        raise ValueError(f"{named}: needs packages that no container image holds; take a profile without containers")
    if named and not (environment / "bin" / "python").exists():
        raise ValueError(f"{named}: needs packages that are not installed; `make evaluation-environment` installs them")


def check_apptainer(find: Callable[[str], str | None] = shutil.which) -> None:
    """Raise ValueError unless Apptainer, or Singularity under its old name, is there."""
    if not find("apptainer") and not find("singularity"):
        raise ValueError(
            "this profile runs every rule in a container by Apptainer, and neither apptainer nor singularity is in "
            "PATH; install it, load its module (`module load apptainer`), or take a profile without containers"
        )


def check_commands(profile: str, commands: dict[str, str], find: Callable[[str], str | None]) -> None:
    """Raise ValueError unless every command is there."""
    missing = [name for name in commands if not find(name)]
    if missing:
        why = ", ".join(f"{name} ({commands[name]})" for name in missing)
        raise ValueError(
            f"the profile {profile} needs {why}, not in PATH here; start it on a login node of the cluster, or take "
            "another profile"
        )


def check_submit_command(words: list[str]) -> None:
    """Raise ValueError unless the command that submits jobs is there; a script of ours says what it lacks itself."""
    if not words or not shutil.which(words[0]):
        raise ValueError(f"cluster-generic-submit-cmd: {words[0] if words else 'is empty'}: there is no such command")
    if not words[0].endswith(("profiles/cluster-generic/submit.py", "profiles/kubernetes/submit.py")):
        return
    done = subprocess.run([*words, "--check"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError((done.stderr.strip().splitlines() or [f"{words[0]} --check failed"])[-1])


def check_slurm(run: Run, pause: int, status_command: str) -> None:
    """Raise ValueError if Slurm does not answer, or forgets jobs before anybody looks at them."""
    config = run(["scontrol", "show", "config"])
    if not config:
        raise ValueError("Slurm's controller does not answer `scontrol show config`; no job was submitted")
    ages = [line.partition("=")[2].split() for line in config.splitlines() if line.startswith("MinJobAge")]
    age = int(ages[0][0]) if ages and ages[0] and ages[0][0].isdigit() else None
    if status_command == "squeue" and age is not None and age < LONGEST_PAUSE * pause:
        raise ValueError(
            f"Slurm forgets a job {age} s after its end (MinJobAge), and this profile looks every {pause} s: set "
            "slurm-init-seconds-before-status-checks and seconds-between-status-checks to at most "
            f"{age // LONGEST_PAUSE}"
        )


def partitions_of(default_resources: Any) -> list[str]:
    """Return the partitions that the profile names; none where it leaves that to Slurm."""
    parsed = getattr(default_resources, "parsed", None) or {}
    name = getattr(parsed.get("slurm_partition"), "value", None) or parsed.get("slurm_partition")
    return str(name).split(",") if isinstance(name, str) else []


def check_gres(run: Run, partitions: Iterable[str]) -> None:
    """Raise ValueError unless a node of the partitions has GPUs."""
    chosen = [word for name in partitions for word in ("--partition", name)]
    if "gpu" not in run(["sinfo", "--noheader", "--format", "%G", *chosen]):
        where = f"partition {', '.join(partitions)}" if partitions else "any partition"
        raise ValueError(
            f"the study trains with `device: cuda`, and Slurm knows no GPU in {where} (`sinfo --format %G`); name a "
            "partition that has GPUs in the profile (slurm_partition), or train with `device: auto`"
        )


def limit_memory(workflow: Any, run: Run, partitions: Iterable[str]) -> None:
    """Let no job ask for more memory than the largest node has, unless the profile gives the limit itself."""
    if workflow.global_resources.get("mem_mb") is not None:
        return
    chosen = [word for name in partitions for word in ("--partition", name)]
    sizes = [word.rstrip("+") for word in run(["sinfo", "--noheader", "--format", "%m", *chosen]).split()]
    largest = max((int(size) for size in sizes if size.isdigit()), default=0)
    if largest:
        workflow.global_resources["mem_mb"] = largest


def check_local_gpu(run: Run, wants_gpus: bool) -> None:
    """Raise ValueError unless this machine has a GPU that its driver knows."""
    if "GPU" not in run(["nvidia-smi", "--list-gpus"]):
        why = "the study trains with `device: cuda`" if wants_gpus else "the profile asks for --nv"
        raise ValueError(f"{why}, and `nvidia-smi` shows no GPU on this machine; no job was run")
