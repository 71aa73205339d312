"""Test the environment builder on an index and a folder of tiny wheels made here, with the real pip and no network."""

import hashlib
import json
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CPU, REGISTRY = "2.13.0+cpu", "2.13.0"


def wheel(folder: pathlib.Path, name: str, version: str, requires: str = "") -> str:
    """Write a wheel with nothing but metadata; return its lock line."""
    folder.mkdir(exist_ok=True)
    file, home = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{home}/METADATA", metadata + (f"Requires-Dist: {requires}\n" if requires else ""))
        archive.writestr(f"{home}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{home}/RECORD", "")
    return f"{name}=={version.split('+')[0]} \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


class Machine:
    """Hold a clone with the real builder and small locks, an index, and a folder of local files."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.envs, self.index, self.files = folder / "envs", folder / "index", folder / "files"
        self.envs.mkdir()
        shutil.copy(ROOT / "envs/build.py", self.envs)
        self.locks = {
            "pip": wheel(self.index, "installer", "1.0"),
            "host": wheel(self.index, "workflow", "1.0"),
            "study": wheel(self.index, "small", "1.0"),
            "dev": wheel(self.index, "linter", "1.0"),
            "evaluate": wheel(self.index, "benchmarks", "1.0", "small") + wheel(self.index, "small", "1.0"),
            "torch-cpu": wheel(self.files, "torch", CPU, "small"),
            "study-cuda": wheel(self.index, "torch", REGISTRY, "large") + wheel(self.index, "large", "1.0"),
        }
        for name, text in self.locks.items():
            (self.envs / f"{name}.lock").write_text(text)
        for file in self.index.glob("*.whl"):
            page = self.index / "simple" / file.name.split("-")[0] / "index.html"
            page.parent.mkdir(parents=True)
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
            page.write_text(f'<a href="{file.as_uri()}#sha256={sha256}">{file.name}</a>')

    def build(self, *names: str) -> subprocess.CompletedProcess[str]:
        """Run the builder with pip configured for this machine and nothing else."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
        pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": str(self.files)}
        pip["PIP_INDEX_URL"] = (self.index / "simple").as_uri()
        command = [sys.executable, str(self.envs / "build.py"), *names]
        return subprocess.run(command, capture_output=True, text=True, env={**kept, **pip}, check=False)

    def installed(self, name: str) -> set[str]:
        """Return the packages of an environment as 'name-version', without those of an empty environment."""
        found = (self.envs.parent / ".envs" / name / "lib").glob("python3*/site-packages/*.dist-info")
        return {item.stem for item in found if not item.name.startswith(("pip-", "setuptools-"))}

    def record(self, name: str) -> pathlib.Path:
        """Return the file in which the builder records what an environment holds."""
        return self.envs.parent / ".envs" / name / "build.json"


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Machine:
    return Machine(tmp_path)


def test_a_known_cpu_file_on_disk_is_taken_before_the_registrys_build(machine: Machine) -> None:
    done = machine.build("study")
    assert done.returncode == 0, done.stderr
    assert machine.installed("study") == {"installer-1.0", f"torch-{CPU}", "small-1.0"}
    record = json.loads(machine.record("study").read_text())
    sha256 = machine.locks["torch-cpu"].split("sha256:")[1].strip()
    assert record["lock"] == "study.lock"
    assert record["torch"] == {"file": f"torch-{CPU}-py3-none-any.whl", "sha256": sha256, "version": CPU}


def test_without_one_the_registrys_build_comes_with_its_own_needs(machine: Machine) -> None:
    shutil.rmtree(machine.files)
    done = machine.build("study")
    assert done.returncode == 0, done.stderr
    assert machine.installed("study") == {"installer-1.0", f"torch-{REGISTRY}", "large-1.0"}
    assert json.loads(machine.record("study").read_text())["lock"] == "study-cuda.lock"


def test_an_unknown_build_is_refused_and_nothing_counts_as_built(machine: Machine) -> None:
    wheel(machine.files, "torch", CPU, "small, other")
    done = machine.build("study")
    assert done.returncode == 1
    assert re.match(r"envs: error: a file is not the one that the lock names", done.stderr)
    assert "Traceback" not in done.stderr
    assert not machine.record("study").exists()


def test_built_once_and_again_when_its_lock_changes_or_its_record_is_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = runpy.run_path(str(machine.envs / "build.py"))
    built: list[str] = []

    def build(name: str, folder: pathlib.Path, log: pathlib.Path) -> dict[str, object]:
        built.append(name)
        (folder / "bin").mkdir(parents=True, exist_ok=True)
        (folder / "bin" / "python").touch()
        return {}

    ensure = builder["ensure"]
    monkeypatch.setitem(ensure.__globals__, "build", build)
    ensure("host")
    ensure("host")
    assert built == ["host"]
    ensure("study")
    (machine.envs / "host.lock").write_text("another")
    ensure("study")
    ensure("host")
    assert built == ["host", "study", "host"]
    machine.record("host").unlink()  # the state after an interrupted build
    ensure("host")
    (machine.record("host").parent / "bin" / "python").unlink()  # as if its Python had been removed from the machine
    ensure("host")
    assert built == ["host", "study", "host", "host", "host"]


def test_evaluation_has_packages_of_its_own_and_sees_those_of_the_study(machine: Machine) -> None:
    done = machine.build("evaluate")
    assert done.returncode == 0, done.stderr
    assert machine.installed("study") == {"installer-1.0", f"torch-{CPU}", "small-1.0"}
    assert machine.installed("evaluate") == {
        "installer-1.0",
        "benchmarks-1.0",
    }  # `small` and torch are seen, not copied
    python = machine.record("evaluate").parent / "bin" / "python"
    names = "import importlib.metadata as m; print(m.version('small'), m.version('torch'), m.version('benchmarks'))"
    seen = subprocess.run([python, "-I", "-c", names], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["1.0", CPU, "1.0"]
    before = json.loads(machine.record("evaluate").read_text())
    assert before["torch"]["file"] == f"torch-{CPU}-py3-none-any.whl"

    assert "building" not in machine.build("evaluate").stdout
    with (machine.envs / "study.lock").open("a") as lock:
        lock.write(wheel(machine.files, "more", "1.0"))
    assert "building .envs/evaluate" in machine.build("evaluate").stdout
    after = json.loads(machine.record("evaluate").read_text())
    assert after["requirements"] != before["requirements"]  # other packages of the study are another environment


def test_an_environment_is_named_by_what_its_lock_requires(machine: Machine) -> None:
    builder = runpy.run_path(str(machine.envs / "build.py"))
    lock, digest = machine.envs / "study.lock", builder["requirements_digest"]
    pins = "a==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n    # via b\nb==2 \\\n    --hash=sha256:bb\n"
    lock.write_text(pins)
    before = digest("study.lock")
    lock.write_text("# resolved again\nb==2 \\\n  --hash=sha256:bb # via c\na==1 --hash=sha256:aa --hash=sha256:ab\n")
    assert digest("study.lock") == before
    for other in (pins.replace("a==1", "a==2"), pins.replace(":ab", ":ac"), pins + "c==1 --hash=sha256:cc\n"):
        lock.write_text(other)
        assert digest("study.lock") != before


def test_an_environment_of_an_earlier_version_gets_its_name_without_being_built(machine: Machine) -> None:
    builder = runpy.run_path(str(machine.envs / "build.py"))
    record = machine.record("study")
    (record.parent / "bin").mkdir(parents=True)
    (record.parent / "bin" / "python").touch()
    record.write_text(json.dumps({"lock": "study.lock", "locks": builder["locks_digest"]("study")}))
    builder["ensure"]("study")
    assert json.loads(record.read_text())["requirements"] == builder["requirements_digest"]("study.lock")
    assert (record.parent / "bin" / "python").read_bytes() == b""


def test_the_locks_name_one_version_of_torch_and_share_every_other_package() -> None:
    def pins(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        text = (ROOT / "envs" / f"{name}.lock").read_text()
        for package, version, hashes in re.findall(r"^([\w.-]+)==([^\s;]+)[^\n]*\n((?:\s+--hash.*\n)+)", text, re.M):
            assert hashes
            found.setdefault(package, set()).add(version)
        assert len(re.findall(r"^[\w.-]+==", text, re.M)) == sum(map(len, found.values()))
        return found

    cpu, cuda = pins("study") | pins("torch-cpu"), pins("study-cuda")
    # only CPU builds need setuptools; only the registry's build needs packages from elsewhere
    assert {name: cuda[name] for name in cpu if name in cuda} == {name: cpu[name] for name in cpu if name in cuda}
    assert set(cpu) - set(cuda) <= {"setuptools"}
    assert all(re.match(r"cuda-|nvidia-|triton", name) for name in set(cuda) - set(cpu))
    for layer in ("dev", "evaluate"):
        assert all(versions == cpu[name] for name, versions in pins(layer).items() if name in cpu)
    assert all(pins("study")[name] == versions for name, versions in pins("pip").items())


def test_a_file_system_without_locks_is_told(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    script = runpy.run_path(str(ROOT / "envs/build.py"))
    asked: list[str] = []
    monkeypatch.setitem(script["main"].__globals__, "HOME", tmp_path / "envs")
    monkeypatch.setitem(script["main"].__globals__, "ensure", asked.append)
    monkeypatch.setattr("fcntl.flock", missing)
    monkeypatch.setattr(sys, "argv", ["build.py", "host"])
    script["main"]()
    assert asked == ["host"]
    assert "its file system has no locks" in capsys.readouterr().out
