"""Bring what the tests of clusters need, with the ordinary package manager of Debian: Slurm, munge, and Apptainer."""

import os
import pathlib
import shutil
import subprocess

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol", "srun")
SLURM_PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
APPTAINER = pathlib.Path(__file__).parents[1] / "containers" / "get_apptainer.sh"


class Missing(Exception):
    """Say which part is missing, and what would bring it."""


def need_root_on_debian(part: str) -> None:
    """Raise Missing where packages cannot be installed."""
    if shutil.which("apt-get") is None:
        raise Missing(f"{part}: not installed, and only Debian's apt-get can bring it")
    if os.geteuid() != 0:
        raise Missing(f"{part}: not installed, and only root can install it")


def slurm() -> None:
    """Install Slurm and munge where a program of theirs is missing."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        need_root_on_debian(f"Slurm ({', '.join(absent)})")
        options = ("-y", "-q", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0")
        quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (("update", "-q"), ("install", *options, *SLURM_PACKAGES)):
            done = subprocess.run(["apt-get", *command], env=quiet, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Missing(f"Slurm: apt-get {command[0]} failed: {done.stderr.strip()[-500:]}")
        absent = [name for name in PROGRAMS if shutil.which(name) is None]
        if absent:
            raise Missing(
                f"Slurm: {', '.join(absent)} are still missing after {' '.join(SLURM_PACKAGES)} are installed"
            )


def namespaces() -> None:
    """Raise Missing unless mounts and processes of our own can be had, in which a second Slurm disturbs nobody."""
    if os.geteuid() != 0:
        raise Missing("Slurm: its nodes need root")
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "true"], check=False, capture_output=True
    )
    if done.returncode:
        raise Missing(f"Slurm: no namespaces of our own: {done.stderr.decode().strip()}")


def apptainer(folder: pathlib.Path) -> pathlib.Path | None:
    """Return the folder of an Apptainer to put before PATH; None if there is one in PATH."""
    if shutil.which("apptainer"):
        return None
    if not (folder / "usr/bin/apptainer").exists():
        need_root_on_debian("Apptainer")
    done = subprocess.run([APPTAINER, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"Apptainer: {done.stderr.strip()[-500:]}")
    return folder / "usr/bin"
