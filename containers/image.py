"""Build, check or fetch the container image of a study. It needs no root, no user namespaces and no tools of Debian.

make image                               make the pinned image, and fail unless its bytes are the pinned ones
make image ARGS='--pull URL'             fetch it instead, from a web server or a registry, and check it
make image ARGS=--update                 make it from the locks as they are, and pin what comes out
make image ARGS=--upgrade                the same, with Debian's newest packages
make image ARGS='study-cuda ...'         the image with the CUDA build of torch
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import platform
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from containers import debian, debian_index, images, pack, pull, sif, wheels
from containers.debian import Failed
from envs import build as environments


def log(text: str) -> None:
    """Print a line of progress."""
    print(f"image: {text}", file=sys.stderr, flush=True)


def check_machine(folder: pathlib.Path, gigabytes: float) -> None:
    """Refuse a machine on which the build would fail after minutes."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise Failed(f"the image is for Linux on x86_64, and this is {system} on {machine}; use the default profile")
    if not os.access(folder, os.W_OK):
        raise Failed(f"{folder}: is not writable")
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise Failed(f"{folder}: {free:.1f} GB are free, and building the image takes {gigabytes:.1f} GB")


def check_network(lock: debian.Lock, mirrors: list[str]) -> list[str]:
    """Return the places of Debian packages that answer; refuse if none does."""
    answering, reasons = [], []
    smallest = min(lock.image, key=lambda package: package.size)
    for base in debian.places(lock, mirrors):
        try:
            debian.download(smallest, [base])
        except Failed as error:
            reasons.append(str(error).partition("\n")[2].strip())
        else:
            answering.append(base)
    if not answering:
        raise Failed("no archive of Debian is in reach\n  " + "\n  ".join(reasons))
    return answering


@contextlib.contextmanager
def workplace(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a temporary folder that is removed however the build ends, and what a killed build left before it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"another `make image` works in {folder}") from None
        except OSError:
            log(f"{folder}: its file system has no locks; do not start a second `make image` there")
        else:
            for left in folder.glob(".building-*"):
                shutil.rmtree(left)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, end)
        work = pathlib.Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def make_tree(name: str, work: pathlib.Path, mirrors: list[str], whole: bool = False) -> tuple[pathlib.Path, str]:
    """Unpack all that the image holds below the work folder; return that tree and its build of torch.

    A `whole` tree is one in which the workflow itself is to run: its Python stands as .envs/study, too.
    """
    lock = debian.read_lock(images.DEBIAN)
    bases = check_network(lock, mirrors)
    log(f"fetching the wheels of {' and '.join(images.LOCKS[name])} for Python {wheels.PYTHON}")
    locks = [images.ROOT / path for path in images.LOCKS[name]]
    files = wheels.download(locks, work / "wheels", work / "pip.log")
    tree = work / "tree"
    log(f"fetching {len(lock.image)} packages of Debian from {bases[0]}")
    debian.skeleton(tree)
    debian.finish(tree, [debian.unpack(debian.download(package, bases), tree) for package in lock.image])
    log("unpacking the wheels")
    rows = [("wheel", *wheels.unpack(file, tree)) for file in files]
    torch = next(file for file in files if file.name.startswith("torch-"))
    if whole:
        pack.write_environment(tree, name, torch)
    shutil.rmtree(work / "wheels")
    rows += [("debian", package.name, package.version, package.sha256, "") for package in lock.image]
    pack.write_lists(tree, name, rows)
    log("compiling Python's modules")
    pack.compile_modules(tree)
    tools = work / "tools"
    debian.skeleton(tools)
    for package in lock.tools:
        debian.unpack(debian.download(package, bases), tools)
    return tree, torch.name


def build(name: str, work: pathlib.Path, mirrors: list[str]) -> tuple[pathlib.Path, dict[str, Any]]:
    """Make an image in the work folder; return its file and what is to be pinned."""
    before = images.inputs(name)
    tree, torch = make_tree(name, work, mirrors)
    log("packing")
    file = work / "image.sif"
    tar_sha256 = pack.squash(tree, work / "tools", work / "image.sqfs")
    sif.wrap(work / "image.sqfs", file)
    sha256 = images.digest(file)
    return file, {
        "file": str(images.FOLDER / f"{name}-{sha256[:16]}.sif"),
        "sha256": sha256,
        "bytes": file.stat().st_size,
        "tar_sha256": tar_sha256,
        "debian": debian.SUITE,
        "python": wheels.PYTHON,
        "torch": torch,
        "requirements": environments.requirements_digest(f"{name}.lock"),
        "inputs": before,
    }


def keep(file: pathlib.Path, target: pathlib.Path) -> None:
    """Give an image its name, readable by all and writable by nobody."""
    file.chmod(0o444)
    file.replace(target)
    log(f"{target.relative_to(images.ROOT)} ({target.stat().st_size / 1e6:.0f} MB) is ready")


def is_there(image: images.Image) -> bool:
    """Tell whether the pinned image is there already; refuse another one under its name."""
    if not image.file.exists():
        return False
    found = images.digest(image.file)
    if found != image.pinned["sha256"]:
        raise Failed(
            f"{image.pinned['file']}: has sha256 {found}, but {images.LOCK.name} pins {image.pinned['sha256']}; "
            "remove it"
        )
    log(f"{image.pinned['file']} is there, with the pinned sha256 {found}")
    return True


def make(arguments: argparse.Namespace) -> None:
    """Do what the command line asks for."""
    name, folder = arguments.name, images.ROOT / images.FOLDER
    update = arguments.update or arguments.upgrade
    image = images.read(name)
    if not update and not arguments.tree:
        images.require_current(image)
        if is_there(image):
            return
    with workplace(folder) as work:
        if arguments.pull:
            pull.fetch(arguments.pull, work, image.pinned)
            keep(work / "image.sif", image.file)
            return
        check_machine(folder, images.SPACE[name])
        mirrors = arguments.mirror or [debian.MIRROR]
        if arguments.upgrade:
            log("asking Debian for its newest packages")
            debian.write_lock(images.DEBIAN, debian_index.resolve(mirrors[0]))
        if arguments.tree:
            tree, _ = make_tree(name, work, mirrors, whole=True)
            pack.move(tree, arguments.tree)
            return
        file, pinned = build(name, work, mirrors)
        if not update and pinned["sha256"] != image.pinned["sha256"]:
            same = "equal" if pinned["tar_sha256"] == image.pinned["tar_sha256"] else "other"
            raise Failed(
                f"the image that was built has sha256 {pinned['sha256']}, but {images.LOCK.name} pins "
                f"{image.pinned['sha256']} ({same} files inside); nothing was kept"
            )
        keep(file, images.ROOT / pinned["file"])
        if update:
            images.write(name, pinned)
            log(f"wrote {images.LOCK.relative_to(images.ROOT)}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="make image", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=sorted(images.LOCKS), default="study", help="which image")
    parser.add_argument("--update", action="store_true", help="pin the image that comes out, whatever was pinned")
    parser.add_argument("--upgrade", action="store_true", help="choose Debian's newest packages first, then --update")
    parser.add_argument("--pull", metavar="URL", help="fetch the pinned image (http, https, file, oras) and check it")
    parser.add_argument("--mirror", action="append", metavar="URL", help="archive of Debian to ask first; repeatable")
    parser.add_argument("--tree", type=pathlib.Path, metavar="FOLDER", help="write the image's files there; pack none")
    arguments = parser.parse_args()
    if arguments.pull and (arguments.update or arguments.upgrade or arguments.tree):
        parser.error("--pull fetches what is pinned; it goes with no other option")
    try:
        make(arguments)
    except Failed as error:
        raise SystemExit(f"image: error: {error}") from None
    except OSError as error:
        raise SystemExit(f"image: error: {error.filename or ''}: {error.strerror or error}") from None


if __name__ == "__main__":
    main()
