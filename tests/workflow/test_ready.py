"""Test that what a profile needs is looked for before the first job, and named in one line."""

import pathlib
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import ready
from tests.workflow.conftest import ROOT

CONFIG = "Configuration data as of today\nMinJobAge               = 300 sec\nMaxJobCount = 10000\n"


def answers(**outputs: str) -> Callable[[list[str]], str]:
    """Return a stand-in for commands: the first word of each, and what it prints."""
    return lambda command: outputs.get(command[0].replace("-", "_"), "")


def only(*names: str) -> Callable[[str], str | None]:
    """Return a stand-in for PATH that has these commands."""
    return lambda name: f"/usr/bin/{name}" if name in names else None


def test_every_command_of_slurm_is_needed_but_sacct() -> None:
    names = tuple(ready.SLURM)
    assert set(names) == {"sbatch", "squeue", "scancel", "sinfo", "scontrol"}
    ready.check_commands("slurm", ready.SLURM, only(*names))
    for missing in names:
        with pytest.raises(ValueError, match=rf"^the profile slurm needs {missing} \(.*login node") as error:
            ready.check_commands("slurm", ready.SLURM, only(*(name for name in names if name != missing)))
        assert "\n" not in str(error.value)


def test_apptainer_under_either_name() -> None:
    for name in ("apptainer", "singularity"):
        ready.check_apptainer(only(name))
    with pytest.raises(ValueError, match="neither apptainer nor singularity is in PATH"):
        ready.check_apptainer(only("sbatch"))


@pytest.mark.parametrize(("pause", "forgets"), [(100, False), (101, True), (20, False)])
def test_slurm_remembers_a_job_for_three_looks(pause: int, forgets: bool) -> None:
    if not forgets:
        ready.check_slurm(answers(scontrol=CONFIG), pause, "squeue")
        return
    with pytest.raises(ValueError, match=r"300 s after its end \(MinJobAge\).*to at most 100$"):
        ready.check_slurm(answers(scontrol=CONFIG), pause, "squeue")
    ready.check_slurm(answers(scontrol=CONFIG), pause, "sacct")  # asks the database


def test_a_controller_that_does_not_answer() -> None:
    with pytest.raises(ValueError, match="controller does not answer"):
        ready.check_slurm(answers(), 20, "squeue")


def test_gpus_of_a_partition_and_of_this_machine() -> None:
    asked: list[list[str]] = []

    def sinfo(command: list[str]) -> str:
        asked.append(command)
        return "gpu:a100:4\n(null)\n"

    ready.check_gres(sinfo, ["fast"])
    assert asked[0][-2:] == ["--partition", "fast"]
    with pytest.raises(ValueError, match="Slurm knows no GPU in partition slow"):
        ready.check_gres(answers(sinfo="(null)\n"), ["slow"])
    ready.check_local_gpu(answers(nvidia_smi="GPU 0: NVIDIA A100 (UUID: GPU-1)\n"), True)
    with pytest.raises(ValueError, match="`nvidia-smi` shows no GPU"):
        ready.check_local_gpu(answers(), True)


@pytest.mark.parametrize(("given", "sizes", "limit"), [(None, "8000\n190000+\n", 190000), (64000, "190000", 64000)])
def test_the_largest_node_limits_memory_unless_the_profile_does(given: int | None, sizes: str, limit: int) -> None:
    workflow = SimpleNamespace(global_resources={} if given is None else {"mem_mb": given})
    ready.limit_memory(workflow, answers(sinfo=sizes), [])
    assert workflow.global_resources == {"mem_mb": limit}


def test_executors_by_the_names_of_their_profiles() -> None:
    def executor(module: str) -> Any:
        made = type("Executor", (), {"__module__": module})()
        return SimpleNamespace(scheduler=SimpleNamespace(_executor=made))

    assert ready.executor_of(executor("snakemake_executor_plugin_slurm")) == "slurm"
    assert ready.executor_of(executor("snakemake_executor_plugin_cluster_generic")) == "cluster-generic"
    assert ready.executor_of(executor("snakemake.executors.local")) == "local"


def test_a_command_that_is_not_there_says_nothing(tmp_path: pathlib.Path) -> None:
    assert ready.output_of([str(tmp_path / "none")]) == ""
    assert ready.output_of(["false"]) == ""
    assert ready.output_of(["echo", "yes"]) == "yes\n"


def test_the_scripts_of_the_profiles_say_what_they_lack(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python3").symlink_to(sys.executable)
    (bare / "env").symlink_to("/usr/bin/env")
    monkeypatch.chdir(ROOT)
    with pytest.raises(ValueError, match="submit-cmd: none: there is no such command"):
        ready.check_submit_command(["none"])
    ready.check_submit_command(["true"])  # a command of the user's own is not asked
    kubernetes = ["profiles/kubernetes/submit.py", "--namespace", "mine", "--claim", "study:/study", "--image", "mine"]
    for words, lacks in (
        (["profiles/cluster-generic/submit.py"], "sbatch, squeue, scancel"),
        (kubernetes, "kubectl"),
    ):
        monkeypatch.setenv("PATH", str(bare))
        with pytest.raises(ValueError, match=f"calls {lacks}") as error:
            ready.check_submit_command(words)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("waiting", "built", "in_container", "message"),
    [
        (["exam"], False, False, r"^evaluation\.tasks\.exam: .*`make evaluation-environment` installs them$"),
        (["exam"], True, True, r"^evaluation\.tasks\.exam: .*take a profile without containers$"),
        (["exam"], True, False, None),
        (["copying"], False, False, None),
        ([], False, False, None),
    ],
)
def test_the_environment_of_a_task_that_is_about_to_run_is_there(
    tmp_path: pathlib.Path, waiting: list[str], built: bool, in_container: bool, message: str | None
) -> None:
    named = [*(("evaluate_tasks", {"task": task}) for task in waiting), ("train", {})]
    jobs = [SimpleNamespace(rule=SimpleNamespace(name=n), wildcards=SimpleNamespace(**given)) for n, given in named]
    workflow = SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda: iter(jobs)))
    tasks = {name: SimpleNamespace(environment=where) for name, where in (("copying", "study"), ("exam", "evaluation"))}
    graph: Any = SimpleNamespace(tasks=tuple(tasks), study=SimpleNamespace(evaluation=SimpleNamespace(tasks=tasks)))
    if built:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/python").symlink_to(sys.executable)
    if message is None:
        ready.check_tasks(workflow, graph, tmp_path, in_container=in_container)
        return
    with pytest.raises(ValueError, match=message):
        ready.check_tasks(workflow, graph, tmp_path, in_container=in_container)
