"""Turn a tree of files into an image whose bytes depend on nothing but names, contents and executable bits.

What runs here is the tree's own Python and the pinned mksquashfs, each started by its own dynamic loader. So they run
on any Linux and without a container.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from typing import IO

from containers import images, wheels
from containers.debian import Failed
from envs import build as environments

EPOCH = 1735689600
"""The time of every file in an image."""
LOADER = "usr/lib64/ld-linux-x86-64.so.2"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
ABOUT = "usr/share/speciate"
ABOUT_TEXT = """\
The packages that a study of Speciate needs, and nothing of Speciate itself: image {name}.

packages.tsv lists every package with its sha256 and its licence. The texts of licences are in \
usr/share/doc/PACKAGE/copyright for a
package of Debian, and in usr/local/lib/python{python}/dist-packages/NAME-VERSION.dist-info/ for a wheel. What Speciate
adds to them, which is the files in this folder, stands under LICENSE.
"""


def run_inside(tree: pathlib.Path, program: str, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    """Start a program of a tree with the tree's own loader and libraries."""
    command = [str(tree / LOADER), "--library-path", str(tree / LIBRARIES), str(tree / program), *arguments]
    clean = {"PATH": "/nonexistent", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PYTHONHOME": str(tree / "usr")}
    clean |= {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "SOURCE_DATE_EPOCH": str(EPOCH)}
    return subprocess.Popen(command, env=clean, **options)  # type: ignore[call-overload,no-any-return]


def compile_modules(tree: pathlib.Path) -> None:
    """Compile Python's modules ahead: an image is read-only, and importing torch from source takes many seconds.

    It is one process in sorted order, since the bytes of a compiled file depend on what its process read before.
    """
    folders = [f"usr/lib/python{wheels.PYTHON}", wheels.SITE]
    options = ["-q", "-p", "/", "--invalidation-mode", "unchecked-hash", "-x", environments.SELDOM_IMPORTED]
    # some packages bring templates that are no Python, so that a status of 1 says nothing
    process = run_inside(
        tree, "usr/bin/python3", "-S", "-m", "compileall", *options, *folders, cwd=tree, stdout=subprocess.DEVNULL
    )
    process.wait()
    if not list((tree / wheels.SITE / "torch/__pycache__").glob("*.pyc")):
        raise Failed(f"the image's Python does not run in {tree}; is its file system mounted noexec?")


def write_lists(tree: pathlib.Path, name: str, rows: Iterable[tuple[str, ...]]) -> None:
    """Write what is in the image, and under which licences."""
    folder = tree / ABOUT
    folder.mkdir(parents=True)
    lines = [("kind", "name", "version", "sha256", "licence")]
    for kind, package, version, sha256, licence in sorted(rows):
        lines.append((kind, package, version, sha256, licence or f"/usr/share/doc/{package}/copyright"))
    (folder / "packages.tsv").write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "README").write_text(ABOUT_TEXT.format(name=name, python=wheels.PYTHON), encoding="utf-8")
    shutil.copyfile(images.ROOT / "LICENSE", folder / "LICENSE")


def write_environment(tree: pathlib.Path, name: str, torch: pathlib.Path) -> None:
    """Make the tree's own Python the environment .envs/study of a whole workflow inside, in the folder /speciate."""
    folder = tree / "speciate/.envs/study"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    lock = f"{name}.lock"
    facts = {"file": torch.name, "lock": lock, "sha256": images.digest(torch), "version": torch.name.split("-")[1]}
    record = {"lock": lock, "locks": environments.locks_digest("study"), "python": wheels.PYTHON, "torch": facts}
    environments.write_record(folder / "build.json", record)


class Digested:
    """Pass bytes on to a stream, and take their sha256."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.sha256 = stream, hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write to the stream."""
        self.sha256.update(data)
        return self.stream.write(data)


def entries(tree: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
    """Yield name and path of everything in a tree, in an order that no file system decides."""
    for folder, folders, files in os.walk(tree):
        folders.sort()
        for name in sorted([*files, *folders]):
            path = pathlib.Path(folder, name)
            yield str(path.relative_to(tree)), path


def write_tar(tree: pathlib.Path, stream: Digested) -> None:
    """Write a tree as a tar archive: everything is root's, of one time, and readable by all."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        for name, path in entries(tree):
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = EPOCH, 0o755
            if path.is_symlink():
                member.type, member.linkname, member.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
                archive.addfile(member)
            elif path.is_dir():
                member.type = tarfile.DIRTYPE
                member.mode = 0o1777 if name in ("tmp", "var/tmp") else 0o755
                archive.addfile(member)
            else:
                facts = path.stat()
                member.size, member.mode = facts.st_size, 0o755 if facts.st_mode & 0o100 else 0o644
                with path.open("rb") as content:
                    archive.addfile(member, content)


def squash(tree: pathlib.Path, tools: pathlib.Path, file: pathlib.Path) -> str:
    """Pack a tree into a squashfs file; return the sha256 of the tar archive in between."""
    # the root folder is not in the archive: without these options it is of whoever packs it
    root = ["-root-mode", "755", "-root-uid", "0", "-root-gid", "0", "-all-root"]
    options = [*root, "-tar", "-quiet", "-no-progress", "-no-xattrs", "-comp", "zstd", "-Xcompression-level", "6"]
    said = file.with_suffix(".log")
    with said.open("wb") as kept:
        process = run_inside(
            tools, "usr/bin/mksquashfs", "-", str(file), *options, stdin=subprocess.PIPE, stdout=kept, stderr=kept
        )
        assert process.stdin
        stream = Digested(process.stdin)
        try:
            write_tar(tree, stream)
            process.stdin.close()
        except BrokenPipeError:
            pass
        finally:
            status = process.wait()
    if status:
        raise Failed(f"mksquashfs failed: {said.read_text(errors='replace').strip()}")
    return stream.sha256.hexdigest()


def move(tree: pathlib.Path, target: pathlib.Path) -> None:
    """Move a tree to where the user wants it."""
    if target.exists() and any(target.iterdir()):
        raise Failed(f"{target}: is not empty")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (tree / name).chmod(0o1777)
    for path in tree.iterdir():
        shutil.move(path, target / path.name)
