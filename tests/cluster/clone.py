"""Run the workflow in a clone of the repository, as a user does, and take the sha256 of what it makes."""

import functools
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from tests.bad_input.small import text_of

ROOT = pathlib.Path(__file__).parents[2]
COPIED = ("Snakefile", "config.yaml", "studies", "workflow", "profiles", "src", "containers")
SNAKEMAKE = str(ROOT / ".envs/host/bin/snakemake")
PATIENCE = float(os.environ.get("SPECIATE_PATIENCE", "1800"))
"""Seconds after which a step of a scenario counts as hanging; on a busy machine it may need more."""
TIMES = {"timing.json", "run.json", "made_by.json", "made_by", "manifest.json", "report.html"}
"""Files, and folders of files, that hold times, machines or job numbers."""

LAST = 40
"""Lines of what Snakemake has said that are shown when it hangs."""
CLONES: list["Clone"] = []
"""All that were made, so that the session can end what a failed test has left running."""

Found = TypeVar("Found")


def until(what: str, look: Callable[[], Found], patience: float = PATIENCE) -> Found:
    """Return what `look` finds as soon as it is true."""
    ends = time.monotonic() + patience
    while not (found := look()):
        assert time.monotonic() < ends, f"waited {patience:.0f} s for {what}"
        time.sleep(0.2)
    return found


def write_texts(folder: pathlib.Path) -> None:
    """Write the texts of the tiny study: two domains, with one pair of nearly equal documents."""
    code = [f"x = {seed}\n# {text_of(seed, 60)}" for seed in range(24)]
    code[20] = code[3] + " more"
    prose = [text_of(1000 + seed, 60) for seed in range(20)]
    folder.mkdir()
    for name, texts in {"code0": code[::2], "code1": code[1::2], "prose": prose}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def environment() -> dict[str, str]:
    """Return the environment of a user's shell, with pip's settings for what runs in a container."""
    # those of the second row choose other kernels for the same processor, which an image never sees
    dropped = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "OMP_NUM_THREADS", "SNAKEMAKE", "SPECIATE")
    dropped += ("OPENBLAS_", "MKL_", "ONEDNN_", "ATEN_", "NPY_")
    shell = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    settings = pip_settings()
    inside = {f"APPTAINERENV_PIP_{name}": value for name, value in settings.items()}
    bound = {"APPTAINER_BIND": str(pathlib.Path(settings["CERT"]).parent)} if "CERT" in settings else {}
    return shell | inside | bound


@functools.cache
def pip_settings() -> dict[str, str]:
    """Return what this machine's pip is told of indexes and certificates; folders of its own are of no use inside."""
    pip = [ROOT / ".envs/study/bin/python", "-m", "pip", "config", "list"]
    lines = subprocess.run(pip, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.partition("=") for line in lines]
    found = {name.rpartition(".")[2].replace("-", "_").upper(): value.strip("'") for name, _, value in pairs}
    return {name: found[name] for name in ("CERT", "INDEX_URL", "TRUSTED_HOST", "DEFAULT_TIMEOUT") if name in found}


class Clone:
    """Hold a clone of the repository with its own results."""

    def __init__(self, folder: pathlib.Path, study: str = "studies/tiny.yaml") -> None:
        self.folder, self.study = folder, study
        self.processes: list[subprocess.Popen[str]] = []
        self.extra: dict[str, str] = {}
        """Variables of Snakemake's environment besides those of a user's shell."""
        self.home = folder / "results" / pathlib.Path(study).stem
        CLONES.append(self)

    @classmethod
    def make(cls, folder: pathlib.Path, study: str = "studies/tiny.yaml") -> "Clone":
        """Copy what git has and a user needs, with the environments and images of this clone."""
        folder.mkdir(parents=True)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, folder / name)
        (folder / ".envs").symlink_to(ROOT / ".envs")
        shutil.copy(pathlib.Path(__file__).with_name("tiny.yaml"), folder / "studies")
        write_texts(folder / "texts")
        return cls(folder, study)

    def copy(self, folder: pathlib.Path) -> "Clone":
        """Copy the clone with its data, and with nothing that was trained."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("tiny", "locks", "log"))
        return Clone(folder, self.study)

    def start(self, *arguments: str, targets: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start Snakemake; its output goes to `said-N.txt`."""
        command = [SNAKEMAKE, "--configfile", self.study, *arguments, "--", *targets]
        with (self.folder / f"said-{len(self.processes)}.txt").open("w") as said:
            said.write(" ".join(command) + "\n")
            said.flush()
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment() | self.extra,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def said(self, process: subprocess.Popen[str] | None = None) -> str:
        """Return what the last Snakemake, or this one, has said so far."""
        number = self.processes.index(process) if process else len(self.processes) - 1
        return (self.folder / f"said-{number}.txt").read_text()

    def finish(self, process: subprocess.Popen[str], patience: float = PATIENCE) -> str:
        """Wait until Snakemake has ended well; return what it said."""
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            last = "\n".join(self.said(process).splitlines()[-LAST:])
            raise AssertionError(
                f"{self.folder}: Snakemake is not done after {patience:.0f} s; it said last:\n{last}"
            ) from None
        assert process.returncode == 0, self.said(process)
        return self.said(process)

    def run(self, *arguments: str, targets: tuple[str, ...] = ()) -> str:
        """Run Snakemake until it has ended well; return what it said."""
        return self.finish(self.start(*arguments, targets=targets))

    def refused(self, *arguments: str, targets: tuple[str, ...] = ()) -> str:
        """Run Snakemake, which must fail; return what it said."""
        process = self.start(*arguments, targets=targets)
        process.wait(PATIENCE)
        assert process.returncode != 0, self.said()
        return self.said()

    def end(self) -> None:
        """End every Snakemake that still runs."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that the run has."""
        found = (self.home / "checkpoints").glob("arm-seed0/*/step*")
        return sorted(int(path.name.removeprefix("step")) for path in found)

    def digests(self) -> dict[str, str]:
        """Return file -> sha256 of the data and of the study's results, without files that hold times."""
        return {
            file.relative_to(self.folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in self.files()
        }

    def files(self) -> Iterator[pathlib.Path]:
        """Yield those files."""
        for top in (self.folder / "results/data", self.home):
            for file in sorted(top.rglob("*")):
                parts = file.relative_to(top).parts
                logs = parts[0] in ("logs", "benchmarks", "checkpoints")
                if file.is_file() and not logs and not TIMES & set(parts):
                    yield file
