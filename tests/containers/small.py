"""Make small Debian packages, wheels and web servers for the tests of the image's builder."""

import contextlib
import functools
import http.server
import io
import lzma
import pathlib
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping


def tar(files: Mapping[str, tuple[str, int]], links: Mapping[str, str]) -> bytes:
    """Return a packed tar archive of name -> (content, mode) and of symbolic links."""
    with tarfile.open(fileobj=(made := io.BytesIO()), mode="w") as archive:
        for name, (content, mode) in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            archive.addfile(member, io.BytesIO(content.encode()))
        for name, target in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return lzma.compress(made.getvalue())


def deb(files: Mapping[str, tuple[str, int]], links: Mapping[str, str] = {}, name: str = "tiny") -> bytes:
    """Return a Debian package (deb(5)): an ar archive of three members."""
    control = f"Package: {name}\nVersion: 1.0\nDescription: small\n"
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": tar({"./control": (control, 0o644)}, {}),
        "data.tar.xz": tar(files, links),
    }
    made = b"!<arch>\n"
    for member, content in parts.items():
        made += f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


def wheel(
    folder: pathlib.Path, members: Mapping[str, str], metadata: str, executable: tuple[str, ...] = ()
) -> pathlib.Path:
    """Write the wheel of a package `tiny`."""
    file = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in {**members, "tiny-1.0.dist-info/METADATA": metadata}.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o755 if name in executable else 0o644) << 16
            archive.writestr(info, content)
    return file


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serve files, and print nothing."""

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """Serve a folder on the loopback address; give its URL."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
