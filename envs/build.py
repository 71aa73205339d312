"""Builds the environments under .envs/ from the hashed locks in this folder; what is up to date is left alone.

    python3 envs/build.py host study        `dev` adds the developers' tools to `study`
    python3 envs/build.py evaluate          an environment of its own, which sees the packages of `study` beside its own

Torch comes first and decides the rest. One version of it has several builds: on some machines a CPU file that pip's
find-links names, elsewhere the registry's build with CUDA. A known CPU file is taken where there is one, otherwise what
pip prefers of the builds whose hash is known; then comes the lock of that build's own needs. One call with all hashes
would not do: pip ranks a link that shows an allowed hash before any file on disk, whatever their versions.

`.envs/<name>/build.json` records what was installed. It is written last, so that an interrupted build is never taken
for a whole one. Only the standard library is used; the Python that runs this file becomes the environments'.
"""

import argparse
import fcntl
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

LOCKS = pathlib.Path(__file__).resolve().parent
HOME = LOCKS.parent / ".envs"
PYTHONS = ((3, 11), (3, 13))
"""Oldest and newest Python that the locks were resolved for."""
INPUTS = {
    "host": ("pip.lock", "host.lock"),
    "study": ("pip.lock", "torch-cpu.lock", "study.lock", "study-cuda.lock"),
    "dev": ("dev.lock",),
    "evaluate": ("pip.lock", "evaluate.lock"),
}
"""The lock files that decide what an environment holds."""
INSTALL = ("-I", "-m", "pip", "install", "--require-hashes", "--no-build-isolation", "--no-compile", "--no-input")
SELDOM_IMPORTED = r"/transformers/models/(?!auto/|gpt2/|llama/|mixtral/|mamba)|/tests?/|/torch/testing/_internal/"
"""Not compiled ahead: half of all source, and hardly ever imported."""
REASONS = {
    r"DO NOT MATCH THE HASHES": "a file is not the one that the lock names; it was not installed",
    r"In --require-hashes mode, all": "a package needs another that the lock does not name",
    r"No space left on device": "the disk is full",
    r"connection broken by|Failed to establish|name resolution": "the package index is out of reach",
    r"No matching distribution": "the package index has no file for this Python and system",
    r"ensurepip": "this Python cannot make environments (Debian, Ubuntu: apt-get install python3-venv)",
}


class Failed(Exception):
    """A command failed; the message says why, as far as its output tells."""


def run(log: pathlib.Path, *command: str) -> None:
    """Runs a command, its output in `log`; on a terminal, shows what it is busy with."""
    said: list[str] = []
    with log.open("a", encoding="utf-8") as kept:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for line in (raw.decode(errors="replace") for raw in process.stdout or ()):
            kept.write(line)
            said.append(line)
            if sys.stdout.isatty() and line.lstrip().startswith(("Collecting ", "Downloading ", "Installing ")):
                print(f"\r\x1b[K{line.strip()[:100]}", end="", flush=True)
        if sys.stdout.isatty():
            print("\r\x1b[K", end="", flush=True)
    if process.wait():
        text = "".join(said)
        reason = next((reason for pattern, reason in REASONS.items() if re.search(pattern, text)), "see the log")
        last = ([line for line in said if line.startswith("ERROR:")] or said or [""])[-1].strip()
        raise Failed(f"{reason}\n  {last}\n  everything pip said: {log}")


def install_torch(python: pathlib.Path, log: pathlib.Path) -> dict[str, str]:
    """Installs a known build of torch, without its needs; returns what is known of it and the lock of its needs."""
    cpu = (LOCKS / "torch-cpu.lock").read_text()
    registry = re.search(r"^torch==.*(?:\n\s+--hash.*)+", (LOCKS / "study-cuda.lock").read_text(), re.MULTILINE)
    assert registry, "study-cuda.lock has no torch"
    requirement = re.findall(r"^torch==[^\s;]+", cpu, re.MULTILINE)[0]
    with tempfile.TemporaryDirectory() as folder:
        known, report = pathlib.Path(folder, "torch.txt"), pathlib.Path(folder, "report.json")
        known.write_text(" ".join([requirement, *re.findall(r"--hash=\S+", cpu + registry[0])]) + "\n")
        options = ("--no-deps", "--report", str(report))
        try:
            run(log, str(python), *INSTALL, *options, "--no-index", "-r", str(LOCKS / "torch-cpu.lock"))
        except Failed as error:
            if "No matching distribution" not in str(error):
                raise
            run(log, str(python), *INSTALL, *options, "-r", str(known))
        (found,) = json.loads(report.read_text())["install"]
    sha256 = found["download_info"]["archive_info"]["hashes"]["sha256"]
    return {
        "file": found["download_info"]["url"].rpartition("/")[2].replace("%2B", "+"),
        "lock": "study.lock" if sha256 in cpu else "study-cuda.lock",
        "sha256": sha256,
        "version": found["metadata"]["version"],
    }


def build(name: str, folder: pathlib.Path, log: pathlib.Path) -> dict[str, object]:
    """Makes the environment `folder` anew; returns what is to be recorded of it."""
    shutil.rmtree(folder, ignore_errors=True)
    log.unlink(missing_ok=True)
    print(f"envs: building .envs/{name} with Python {sys.version.split()[0]}", flush=True)
    run(log, sys.executable, "-m", "venv", str(folder))
    python = folder / "bin" / "python"
    run(log, str(python), *INSTALL, "-r", str(LOCKS / "pip.lock"))
    record: dict[str, object] = {"lock": f"{name}.lock", "python": sys.version.split()[0]}
    if name == "study":
        torch = install_torch(python, log)
        record |= {"lock": torch.pop("lock"), "torch": torch}
        print(f"envs: torch is {torch['file']}; what it needs is in {record['lock']}", flush=True)
    packages = next((folder / "lib").glob("python3*/site-packages"))
    if name == "evaluate":
        record |= {"study": study_record()}
        # a line of a .pth file is a folder of packages; pip leaves alone what it finds there in the version of the lock
        (packages / "study.pth").write_text(f"{(HOME / 'study').resolve() / packages.relative_to(folder)}\n")
    run(log, str(python), *INSTALL, "-r", str(LOCKS / str(record["lock"])))
    compiling = [str(python), "-I", "-m", "compileall", "-q", "-j", "0", "-x", SELDOM_IMPORTED, str(packages)]
    subprocess.run(compiling, capture_output=True, check=False)  # fails on templates that are no Python; no harm
    return record


def study_record() -> dict[str, object]:
    """Returns what says which packages `.envs/study` holds; empty where it has not been built."""
    file = HOME / "study" / "build.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    return {key: known[key] for key in ("python", "requirements", "torch") if key in known}


def locks_digest(name: str) -> str:
    """Returns the digest of the locks that decide what an environment holds."""
    return hashlib.sha256(b"\x00".join((LOCKS / lock).read_bytes() for lock in INPUTS[name])).hexdigest()


def requirements_digest(lock: str) -> str:
    """Returns the digest of what a lock requires. Comments, their places and the order of lines change nothing."""
    text = re.sub(r"\s*\\\n\s+", " ", (LOCKS / lock).read_text())
    lines = (re.sub(r"\s+", " ", re.sub(r"(^|\s)#.*", "", line)).strip() for line in text.splitlines())
    return hashlib.sha256("\n".join(sorted(filter(None, lines))).encode()).hexdigest()


def ensure(name: str) -> None:
    """Builds what is missing or out of date. `dev` is a layer over `study`, with a record of its own.

    `evaluate` is a folder of its own over `study`, so that a second copy of torch takes neither time nor space; it is
    built anew when `study` has come to hold other packages.
    """
    if name == "evaluate":
        ensure("study")
    inside = "study" if name == "dev" else name
    folder, log = HOME / inside, HOME / f"{inside}.log"
    locks = locks_digest(name)
    written = folder / ("dev.json" if name == "dev" else "build.json")
    known = json.loads(written.read_text()) if written.is_file() else {}
    over = known.get("study") == study_record() if name == "evaluate" else True
    if (folder / "bin" / "python").exists() and known.get("locks") == locks and over:
        if "lock" in known and "requirements" not in known:  # an earlier version built it, from the same locks
            write_record(written, known)
        return
    if name == "dev":
        ensure("study")
    started = time.monotonic()
    if name == "dev":
        print("envs: adding the developers' tools to .envs/study", flush=True)
        run(log, str(folder / "bin" / "python"), *INSTALL, "-r", str(LOCKS / "dev.lock"))
        record: dict[str, object] = {"lock": "dev.lock"}
    else:
        record = build(name, folder, log)
    write_record(written, {**record, "locks": locks})
    print(f"envs: {name} is ready ({time.monotonic() - started:.0f} s)", flush=True)


def write_record(file: pathlib.Path, record: dict[str, object]) -> None:
    """Writes what was installed, with the digest of its lock, by which results name the environment that made them."""
    named: dict[str, object] = {"requirements": requirements_digest(str(record["lock"]))} if "lock" in record else {}
    if isinstance(study := record.get("study"), dict):  # what runs there runs on the study's packages too
        both = f"{study['requirements']} {named['requirements']}"
        named = {"requirements": hashlib.sha256(both.encode()).hexdigest(), "torch": study["torch"]}
    file.write_text(json.dumps({**record, **named}, indent=1, sort_keys=True) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="+", choices=tuple(INPUTS), help="environments to bring up to date")
    names = parser.parse_args().name
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        raise SystemExit(
            f"envs: error: needs Python 3.{PYTHONS[0][1]} to 3.{PYTHONS[1][1]}, not {sys.version.split()[0]}"
        )
    HOME.mkdir(exist_ok=True)
    with (HOME / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits, and finds it done
        except OSError:
            print(f"envs: {HOME}: its file system has no locks; do not start a second `make` here", flush=True)
        try:
            for name in names:
                ensure(name)
        except Failed as error:
            raise SystemExit(f"envs: error: {error}") from None


if __name__ == "__main__":
    main()
