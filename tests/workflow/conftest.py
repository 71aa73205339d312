"""Run the smoke study for real, once for all tests of the workflow, in a copy of the repository."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COPIED = ("Snakefile", "config.yaml", "studies", "workflow", "profiles", "src", "containers")
SMOKE = ("--configfile", "studies/smoke.yaml")


class Workspace:
    """Hold a copy of what the workflow needs, with its own results."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / ".envs").symlink_to(ROOT / ".envs")
        self.results = folder / "results" / "smoke"

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in the copy as a user would; return output and errors in one text."""
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
        return subprocess.run(
            [str(ROOT / ".envs/host/bin/snakemake"), *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def smoke(self, *arguments: str) -> str:
        """Run the smoke study; if it fails, fail the test with its whole output."""
        done = self.snakemake(*SMOKE, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def stale(self) -> dict[str, int]:
        """Return rule -> number of jobs that a run would execute, from a dry run and without the final `all`."""
        return jobs_in(self.smoke("--dry-run"))

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace a text; fail if it is not there."""
        text = (self.folder / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (self.folder / file).write_text(text.replace(old, new, 1))


def jobs_in(output: str) -> dict[str, int]:
    """Return rule -> number of jobs that a dry run announces, without the final `all`."""
    if "Nothing to be done" in output:
        return {}
    table = output.split("Job stats:", 1)[1].split("\n\n", 1)[0]
    counts = {name: int(count) for name, count in re.findall(r"^(\w+)\s+(\d+)\s*$", table, re.MULTILINE)}
    return {name: count for name, count in counts.items() if name not in ("total", "all")}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Run the smoke study from nothing. Tests that edit files in it must restore them."""
    workspace = Workspace(tmp_path_factory.mktemp("smoke") / "clone")
    (workspace.folder / "first.txt").write_text(workspace.smoke("--cores", "2"))
    return workspace
