"""Define cases in Snakemake: a wrong study file before any job, and a second workflow in the same folder."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import yaml
from tests.bad_input import small
from tests.bad_input.case import Case, Place
from tests.bad_input.small import ROOT, Command, Ended

# copy the profile too: it makes half-made files again, so the files that another workflow is writing are not an error
# before Snakemake looks at the lock
COPIED = ("Snakefile", "workflow", "profiles", "src", "containers", "config.yaml", "studies")
SNAKEMAKE = str(ROOT / ".envs/host/bin/snakemake")
GIVEN = ("--configfile", "study.yaml", "--cores", "1")


def workspace(place: Place) -> None:
    """Make a copy of what the workflow needs."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place.folder / name)
    (place.folder / ".envs").symlink_to(ROOT / ".envs")


def in_workspace(*change: tuple[str, object]) -> Callable[[Place], Command]:
    """Put a study into a copy of the repository."""

    def make(place: Place) -> Command:
        place.study(*change)
        workspace(place)
        return Command("data", (*GIVEN, "data"))

    return make


def with_image(content: bytes | None) -> Callable[[Place], Command]:
    """Put a file of this content under the pinned image's name, beside an Apptainer that only tells its version."""

    def make(place: Place) -> Command:
        place.study()
        workspace(place)
        (place.folder / ".envs").unlink()
        images = place.folder / ".envs" / "images"
        images.mkdir(parents=True)
        (place.folder / ".envs" / "host").symlink_to(ROOT / ".envs" / "host")
        pinned = yaml.safe_load((ROOT / "containers" / "images.lock.yaml").read_text())["study"]
        if content is not None:
            (place.folder / pinned["file"]).write_bytes(content)
        apptainer = place.folder / "bin" / "apptainer"
        apptainer.parent.mkdir()
        apptainer.write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
        apptainer.chmod(0o755)
        place.environment["PATH"] = f"{apptainer.parent}:{os.environ['PATH']}"
        return Command("data", (*GIVEN, "--workflow-profile", "profiles/container", "--", "data"))

    return make


CLUSTER = {
    *("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr", "sshare", "srun", "kubectl"),
    *("apptainer", "singularity", "nvidia-smi"),
}
"""Commands that this machine may have, and that a case brings itself."""
SLURM = {
    "sbatch": "exit 1",
    "squeue": "exit 1",
    "scancel": "exit 1",
    "sinfo": "case $* in *%G*) echo '(null)';; *%m*) echo 8000;; *) echo 'main*';; esac",
    "scontrol": "echo 'MinJobAge               = 300 sec'",
}
"""What a small Slurm without GPUs answers."""


def on_cluster(profile: str, commands: dict[str, str], *change: tuple[str, object]) -> Callable[[Place], Command]:
    """Put a study where a profile finds these commands, and no other of a cluster: command -> what its script does."""

    def make(place: Place) -> Command:
        place.study(*change)
        workspace(place)
        folder = place.folder / "bin"
        folder.mkdir()
        for file in {
            file.name: file for where in ("/bin", "/usr/bin") for file in pathlib.Path(where).iterdir()
        }.values():
            if file.name not in CLUSTER:
                (folder / file.name).symlink_to(file)
        for name, text in commands.items():
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
        place.environment["PATH"] = str(folder)
        return Command("data", (*GIVEN[:2], "--workflow-profile", f"profiles/{profile}", "--", "data"))

    return make


def start(place: Place, *words: str) -> subprocess.Popen[str]:
    """Start a command, such as Snakemake, as a user starts it."""
    keep = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.Popen(
        words,
        cwd=place.folder,
        env={**keep, "PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(place.elsewhere)} | place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def told(said: str) -> tuple[str, ...]:
    """Return the lines of Snakemake's own error, without its mark and its file."""
    lines = [line for line in said.splitlines() if line.strip()]
    first = next(index for index, line in enumerate(lines) if line.startswith(("WorkflowError", "Error: Directory")))
    return tuple(line.strip() for line in lines[first:] if not line.strip().startswith(("WorkflowError", "File ")))


def refused(place: Place, command: Command) -> Ended:
    """Run the workflow until it is refused."""
    with start(place, SNAKEMAKE, *command.arguments) as process:
        said, _ = process.communicate(timeout=small.PATIENCE)
    return Ended(process.returncode, told(said), said)


def locked(process: dict[str, object] | None) -> Callable[[Place], Command]:
    """Put a study into a copy of the repository whose files are locked, by this process if it is known."""

    def make(place: Place) -> Command:
        command = in_workspace()(place)
        folder = place.folder / ".snakemake"
        (folder / "locks").mkdir(parents=True)
        (folder / "locks" / "0.output.lock").write_text("results/small/data.html\n")
        if process is not None:
            (folder / "speciate" / "started").mkdir(parents=True)
            record = {"process": process, "locks": ["0.output.lock"]}
            (folder / "speciate" / "started" / "12").write_text(json.dumps(record))
        return command

    return make


def mounted(before: str) -> Callable[[Place, Command], Ended]:
    """Run the workflow after some commands, which may mount file systems that nothing else sees."""

    def run(place: Place, command: Command) -> Ended:
        if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        line = f"({before}) 2> /dev/null; exec {SNAKEMAKE} {' '.join(command.arguments)}"
        with start(place, "unshare", "-rm", "bash", "-c", line) as process:
            said, _ = process.communicate(timeout=small.PATIENCE)
        return Ended(process.returncode, told(said), said)

    return run


def beside_another(place: Place, command: Command) -> Ended:
    """Run the workflow while another one works in the same folder."""
    with start(place, SNAKEMAKE, *command.arguments) as first:
        try:
            taken = place.folder / ".snakemake" / "speciate" / "started"
            patience = time.monotonic() + small.PATIENCE
            while not any(".lock" in file.read_text() for file in taken.glob("[!.]*")):
                assert first.poll() is None and time.monotonic() < patience, "it never took the lock"
                time.sleep(0.05)
            return refused(place, command)
        finally:
            os.killpg(first.pid, signal.SIGKILL)


SNAKEMAKE_FAILED = 1
"""The status of Snakemake itself, which has no other."""
CASES = [
    Case(
        "Workflow",
        "a wrong study file",
        in_workspace(("blok_length", 64)),
        "HERE/study.yaml: blok_length: unknown key",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Workflow",
        "the profile `container` and no image",
        with_image(None),
        "HERE: no such image; `make image` makes or fetches it",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Workflow",
        "another image under the pinned name",
        with_image(b"another image"),
        "HERE: has sha256 SHA256, but containers/images.lock.yaml pins SHA256; no job was run. Remove the file, and "
        "`make image` makes or fetches the pinned one",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Clusters",
        "the profile `container` and no Apptainer",
        on_cluster("container", {}),
        "this profile runs every rule in a container by Apptainer, and neither apptainer nor singularity is in PATH; "
        "install it, load its module (`module load apptainer`), or take a profile without containers",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Clusters",
        "the profile `slurm` where there is no Slurm",
        on_cluster("slurm", {}),
        "the profile slurm needs sbatch (submits jobs), squeue (tells their states), scancel (ends them when Snakemake "
        "is interrupted), sinfo (tells the partitions), scontrol (tells how long Slurm remembers a job), not in PATH "
        "here; start it on a login node of the cluster, or take another profile",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Clusters",
        "Slurm does not answer",
        on_cluster("slurm", SLURM | {"scontrol": "exit 1"}),
        "Slurm's controller does not answer `scontrol show config`; no job was submitted",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Clusters",
        "Slurm forgets a job before Snakemake looks at it",
        on_cluster("slurm", SLURM | {"scontrol": "echo 'MinJobAge               = 30 sec'"}),
        "Slurm forgets a job 30 s after its end (MinJobAge), and this profile looks every 20 s: set "
        "slurm-init-seconds-before-status-checks and seconds-between-status-checks to at most 10",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Clusters",
        "a study that trains on GPUs, and a Slurm without any",
        on_cluster("slurm", SLURM, ("base.training.device", "cuda")),
        "the study trains with `device: cuda`, and Slurm knows no GPU in any partition (`sinfo --format %G`); name a "
        "partition that has GPUs in the profile (slurm_partition), or train with `device: auto`",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Clusters",
        "a study that trains on GPUs, on a machine without any",
        on_cluster("default", {}, ("base.training.device", "cuda")),
        "the study trains with `device: cuda`, and `nvidia-smi` shows no GPU on this machine; no job was run",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Clusters",
        "the profile `cluster-generic` as it is, and no Slurm",
        on_cluster("cluster-generic", {}),
        "profiles/cluster-generic calls sbatch, squeue, scancel, not in PATH here; edit the scripts there",
        status=SNAKEMAKE_FAILED,
        run=refused,
    ),
    Case(
        "Clusters",
        "the profile `kubernetes` as it is",
        on_cluster("kubernetes", {"kubectl": "exit 1"}),
        "profiles/kubernetes/config.yaml names no image of yours yet: edit --image, --claim, --namespace",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Workflow",
        "two workflows in one folder: the second",
        in_workspace(),
        "HERE: is in use by Snakemake, process N on WHY, since WHY, study small; wait for it or end it, then start "
        "again",
        status=SNAKEMAKE_FAILED,
        run=beside_another,
        alone=False,
    ),
    Case(
        "Workflow",
        "a lock that Snakemake holds, or has left, on another machine",
        locked({"host": "elsewhere", "pid": 12, "start": 34, "since": "yesterday", "study": "small"}),
        "HERE: is in use by Snakemake, process 12 on elsewhere, since yesterday, study small, and from here it cannot "
        "be told whether that still lives; if it has ended: `snakemake --unlock`, then start again",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Workflow",
        "a lock that an earlier version has left",
        locked(None),
        "HERE: is in use by a Snakemake that has not said which process it is; if it has ended: `snakemake --unlock`, "
        "then start again",
        status=SNAKEMAKE_FAILED,
        run=refused,
        alone=False,
    ),
    Case(
        "Workflow",
        "a results folder that may only be read",
        in_workspace(),
        "no job was run: HERE/results: is on a file system that may only be read",
        status=SNAKEMAKE_FAILED,
        run=mounted("mkdir results; mount --bind results results; mount -o remount,ro,bind results"),
        alone=False,
    ),
    Case(
        "Workflow",
        "a file named `results`",
        in_workspace(),
        "HERE/results: is not a folder; move it away, results go into a folder of that name",
        status=SNAKEMAKE_FAILED,
        run=mounted("touch results"),
        alone=False,
    ),
    Case(
        "Workflow",
        "a folder in which Snakemake cannot keep its records",
        in_workspace(),
        "no job was run: HERE/.snakemake/locks: is on a file system that may only be read",
        status=SNAKEMAKE_FAILED,
        run=mounted("mkdir .snakemake; mount --bind .snakemake .snakemake; mount -o remount,ro,bind .snakemake"),
        alone=False,
    ),
    Case(
        "Workflow",
        "a full disk before the first job: the results",
        in_workspace(),
        "no job was run: the disk is full: HERE/results (No space left on device)",
        status=SNAKEMAKE_FAILED,
        run=mounted("mkdir results; mount -t tmpfs -o size=64k none results"),
        alone=False,
    ),
    Case(
        "Workflow",
        "a full disk before the first job: Snakemake's records",
        in_workspace(),
        "no job was run: the disk is full: HERE/.snakemake (No space left on device)",
        status=SNAKEMAKE_FAILED,
        run=mounted("mkdir .snakemake; mount -t tmpfs -o size=32k none .snakemake; cat /dev/zero > .snakemake/full"),
        alone=False,
    ),
]
