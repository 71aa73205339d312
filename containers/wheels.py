"""Download the wheels that the locks name, and unpack them for the image's Python.

pip only downloads and checks hashes, out here, where it is set up. A wheel is a zip archive with a fixed layout, so
unpacking it needs no Python of the image, and every machine unpacks it into the same bytes.
"""

import configparser
import email.message
import email.parser
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable

from containers.debian import Failed
from envs import build as environments
from packaging.markers import Marker

PYTHON = "3.11"
"""The Python of the image, which is Debian 12's."""
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
TARGET = {
    "implementation_name": "cpython",
    "implementation_version": f"{PYTHON}.2",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.2",
    "python_version": PYTHON,
    "sys_platform": "linux",
}
"""What the markers of a lock are read against; pip would read them against the Python that runs it."""
GLIBC = range(36, 4, -1)
"""Minor versions of the C library that wheels may need, the newest first: Debian 12 has 2.36."""
TORCH_LOCK = "torch-cpu.lock"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where CPU builds of torch are published; PyPI has only the build with CUDA."""
TORCH_ABSENT = (
    f"neither pip as it is set up here nor {TORCH_INDEX} gives the file with that sha256; "
    "download it and name its folder: PIP_FIND_LINKS=FOLDER make image"
)
SCRIPT = """\
#!/usr/bin/python3
import sys
from {module} import {name}
sys.exit({call}())
"""


def requirements(lock: pathlib.Path) -> list[str]:
    """Return the requirements of a hashed lock that hold for the image's Python, without their markers."""
    text = re.sub(r"\s*\\\n\s+", " ", lock.read_text(encoding="utf-8"))
    found = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        head, hashes = re.split(r"\s(?=--hash)", line, maxsplit=1)
        pin, _, marker = head.partition(";")
        if not marker.strip() or Marker(marker).evaluate(TARGET):
            found.append(f"{pin.strip()} {hashes}")
    return found


def download(locks: Iterable[pathlib.Path], folder: pathlib.Path, log: pathlib.Path) -> list[pathlib.Path]:
    """Download the wheels of some locks into `folder`, and return them, sorted by name."""
    folder.mkdir(parents=True, exist_ok=True)
    pins = folder / "requirements.txt"
    for lock in locks:
        pins.write_text("\n".join(requirements(lock)) + "\n", encoding="utf-8")
        said = pip_download(pins, folder, log)
        if said and lock.name == TORCH_LOCK:
            said = pip_download(pins, folder, log, "--index-url", TORCH_INDEX) and TORCH_ABSENT
        if said:
            last = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines()
            known = [reason for pattern, reason in environments.REASONS.items() if re.search(pattern, said)]
            reason = f"{known[0]}: " if known else ""
            raise Failed(f"{lock.name}: {reason}{last[-1].removeprefix('ERROR:').strip()}")
    pins.unlink()
    return sorted(folder.glob("*.whl"))


def pip_download(pins: pathlib.Path, folder: pathlib.Path, log: pathlib.Path, *options: str) -> str:
    """Run `pip download`; return what it said if it failed, otherwise nothing."""
    fits = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON]
    for abi in (f"cp{PYTHON.replace('.', '')}", "abi3", "none"):
        fits += ["--abi", abi]
    for glibc in GLIBC:
        fits += ["--platform", f"manylinux_2_{glibc}_x86_64"]
    fits += ["--platform", "manylinux2014_x86_64", "--platform", "linux_x86_64"]
    command = [
        sys.executable,
        "-I",
        "-m",
        "pip",
        "download",
        "-q",
        "--no-input",
        "--retries",
        "2",
        "--no-deps",
        "--require-hashes",
    ]
    command += [*fits, *options, "-r", str(pins), "--dest", str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    with log.open("a", encoding="utf-8") as kept:
        kept.write(done.stdout + done.stderr)
    return (done.stdout + done.stderr or "it failed without a word") if done.returncode else ""


def place(name: str) -> str:
    """Return where a member of a wheel goes in the image."""
    folder, _, rest = name.partition("/")
    if not folder.endswith(".data"):
        return f"{SITE}/{name}"
    kind, _, rest = rest.partition("/")
    tops = {"purelib": SITE, "platlib": SITE, "scripts": "usr/local/bin", "data": "usr/local"}
    return f"{tops.get(kind, f'usr/local/include/python{PYTHON}')}/{rest}"


def unpack(wheel: pathlib.Path, tree: pathlib.Path) -> tuple[str, str, str, str]:
    """Unpack a wheel below `tree`; return its name, version, sha256 and licence."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            if member.filename.startswith("/") or ".." in member.filename.split("/"):
                raise Failed(f"{wheel.name}: {member.filename}: leaves its folder")
            target = tree / place(member.filename)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            script = ".data/scripts/" in member.filename
            if script and (content := target.read_bytes()).startswith(b"#!python"):
                target.write_bytes(b"#!/usr/bin/python3\n" + content.partition(b"\n")[2])
            target.chmod(0o755 if script or member.external_attr >> 16 & 0o111 else 0o644)
        info = next(name.split("/")[0] for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        facts = email.parser.Parser().parsestr(archive.read(f"{info}/METADATA").decode("utf-8"))
    write_scripts(tree / SITE / info / "entry_points.txt", tree / "usr/local/bin")
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return str(facts["Name"]), str(facts["Version"]), digest, licence(facts)


def licence(facts: email.message.Message) -> str:
    """Return in a few words the licence that a wheel's metadata declare; its text is in its .dist-info folder."""
    declared = str(facts["License-Expression"] or "").strip()
    classes = [str(value).rpartition(" :: ")[2] for value in facts.get_all("Classifier", []) if "License ::" in value]
    lines = str(facts["License"] or "").strip().splitlines()
    return declared or "; ".join(classes) or (lines[0][:80] if lines else "see its .dist-info folder")


def write_scripts(declared: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the commands that a wheel's entry points declare."""
    if not declared.exists():
        return
    points = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    points.optionxform = str  # type: ignore[assignment,method-assign]  # names of commands keep their case
    points.read_string(declared.read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for command, reference in points["console_scripts"].items() if points.has_section("console_scripts") else ():
        module, _, call = reference.partition("[")[0].strip().partition(":")
        script = SCRIPT.format(module=module.strip(), name=call.strip().split(".")[0], call=call.strip())
        (folder / command).write_text(script, encoding="utf-8")
        (folder / command).chmod(0o755)
