"""Define bad archives and downloads, which are untrusted files and are read without extracting them."""

import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable

from tests.bad_input.case import PIN, Case, Place, package, separately, wheel
from tests.bad_input.small import Command, Ended
from tests.data.fetch.sources.hub_server import COMMIT, Repo, serve

from speciate.cli import FAILED_FOR_NOW

GOOD = {"a.py": "alpha = 1\n", "b.py": "beta = 2\n"}
ENCRYPTED = 0x1


def archive(make: Callable[[], bytes]) -> Callable[[Place], Command]:
    """Return the command `clean` for this archive."""
    return lambda place: place.clean({"one": make()}, package())


def no_archive(place: Place) -> Command:
    """Return the command `clean` for an archive that does not exist."""
    command = place.clean({"one": b""}, package())
    (place.folder / "one").unlink()
    return command


def link() -> bytes:
    """Make a zip whose member is a symbolic link."""
    member = zipfile.ZipInfo("a.py")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w") as zipped:
        zipped.writestr(member, "/etc/passwd")
    return opened.getvalue()


def device() -> bytes:
    """Make a tar that contains a device."""
    opened = io.BytesIO()
    with tarfile.open(fileobj=opened, mode="w:gz") as tar:
        member = tarfile.TarInfo("a.py")
        member.type = tarfile.CHRTYPE
        tar.addfile(member)
    return opened.getvalue()


def encrypted() -> bytes:
    """Make a zip that declares its members encrypted."""
    data = bytearray(wheel({"a.py": "x = 1\n"}))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(header) + flags] |= ENCRYPTED
    return bytes(data)


def by_other_method() -> bytes:
    """Make a zip whose member says that it is compressed by zstd, which has a number there."""
    data = bytearray(wheel({"a.py": "x = 1\n"}))
    for header, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(header) + method] = 93
    return bytes(data)


def tarred() -> bytes:
    """Make a tar of the good members."""
    opened = io.BytesIO()
    with tarfile.open(fileobj=opened, mode="w") as tar:
        for name, text in GOOD.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return opened.getvalue()


def damaged() -> bytes:
    """Make a zip with one byte of a member changed."""
    opened = io.BytesIO()
    with zipfile.ZipFile(opened, "w") as zipped:
        zipped.writestr("a.py", "unmistakable = 1\n")
    return opened.getvalue().replace(b"unmistakable", b"unmistakeable"[:12], 1)


def other_wheel(place: Place) -> Command:
    """Return the command `clean` for a generator's wheel that differs from the pinned one: its code would be run."""
    source = {"kind": "generator", "dataset": "gsm_symbolic", "version": "0.1", "sha256": "0" * 64}
    return place.clean({"one": wheel(GOOD)}, {**source, "file": "reasoning_gym-0.1-py3-none-any.whl"})


def fetched(source: dict[str, object]) -> Callable[[Place], Command]:
    """Return the command `fetch` for this source."""
    arguments = ("--output", "archive")
    return lambda place: Command("fetch", ("--spec", place.spec(name="one", source=source), *arguments))


def of_folder_of(path: str) -> Callable[[Place], Command]:
    """Return the command `fetch` for a user's folder with one file."""

    def make(place: Place) -> Command:
        (place.folder / "my/de").mkdir(parents=True)
        (place.folder / "my/de/a.md").write_text("# Titel")
        return fetched({"kind": "files", "paths": [path]})(place)

    return make


of_folder = of_folder_of("my/de")


def by_pip(place: Place, command: Command) -> Ended:
    """Fetch with pip from a folder that holds another wheel with the pinned name."""
    links = place.elsewhere / "links"
    links.mkdir()
    metadata = {"tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"}
    metadata |= {"tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n", "tiny-1.0.dist-info/RECORD": ""}
    (links / str(PIN["file"])).write_bytes(wheel({**GOOD, **metadata}))
    place.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links), "PIP_CONFIG_FILE": os.devnull}
    return separately(place, command)


def without_network(place: Place, command: Command) -> Ended:
    """Fetch with pip from an index where nobody listens."""
    place.environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
    place.environment |= {"PIP_CONFIG_FILE": os.devnull}
    return separately(place, command)


def of_hub(**settings: object) -> Callable[[Place], Command]:
    """Return the command `fetch` for a dataset on the hub."""
    return fetched({"kind": "hub", "dataset": "me/tiny", "revision": COMMIT, **settings})


def from_hub(gated: bool = False, **environment: str) -> Callable[[Place, Command], Ended]:
    """Fetch from a hub on the loopback."""

    def run(place: Place, command: Command) -> Ended:
        repo = Repo({"train.jsonl": b'{"text": "one"}\n'}, gated=gated)
        with serve({"datasets/me/tiny": repo}) as hub:
            place.environment |= hub.environment(place.elsewhere) | environment
            done = separately(place, command)
        return Ended(done.status, tuple(line.replace(hub.endpoint, "HUB") for line in done.errors), done.said)

    return run


CASES = [
    Case(
        "Download",
        "another sha256 than the pinned one",
        fetched(package()),
        "source one: tiny==1.0 (tiny-1.0-py3-none-any.whl): expected sha256 SHA256, got SHA256",
        run=by_pip,
    ),
    Case(
        "Download",
        "no network",
        fetched(package()),
        "source one: tiny==1.0 (tiny-1.0-py3-none-any.whl): pip cannot reach its package index; check the network "
        "and pip's settings (pip config list)",
        status=FAILED_FOR_NOW,
        run=without_network,
    ),
    Case(
        "Download",
        "another wheel than the one whose code may run",
        other_wheel,
        "source one: reasoning-gym==0.1 (reasoning_gym-0.1-py3-none-any.whl): expected sha256 SHA256, got SHA256",
    ),
    Case(
        "Download",
        "a hub that may not be asked",
        of_hub(),
        "source one: dataset me/tiny: cannot be read: HF_HUB_OFFLINE keeps the client off the network",
        run=from_hub(HF_HUB_OFFLINE="1"),
    ),
    Case(
        "Download",
        "a commit that the hub does not have",
        of_hub(revision="f" * 40),
        "source one: dataset me/tiny: revision: HUB has no ffffffffffffffffffffffffffffffffffffffff of it",
        run=from_hub(),
    ),
    Case(
        "Download",
        "a revision that is not pinned",
        of_hub(revision="unpinned"),
        "source one: dataset me/tiny: revision: is not pinned; its newest commit is "
        "0123456789abcdef0123456789abcdef01234567: write that in the study",
        run=from_hub(),
    ),
    Case(
        "Download",
        "a gated dataset",
        of_hub(),
        "source one: dataset me/tiny: is gated: accept its terms on HUB, then log in with `hf auth login` or set "
        "HF_TOKEN",
        run=from_hub(gated=True),
    ),
    Case(
        "Download",
        "a folder for its files",
        of_folder,
        "source one: paths: my/de is a folder: write my/de/* for the files in it, or my/de/**/* for those in its "
        "folders too",
    ),
    Case(
        "Download",
        "a file of no known format",
        of_folder_of("my/de/*"),
        "source one: paths: my/de/a.md has no known format: .jsonl, .txt, .parquet (the first two also .gz, .zst, "
        ".bz2, .xz); set `format: text` to read it as plain text",
    ),
    Case("Archive", "there is none", no_archive, "source one: there is no archive one"),
    Case(
        "Archive",
        "cut off",
        archive(lambda: wheel(GOOD)[:-40]),
        "source one: the archive is damaged, cut off, or neither zip nor tar: WHY",
    ),
    Case(
        "Archive",
        "empty",
        archive(lambda: b""),
        "source one: the archive is damaged, cut off, or neither zip nor tar: WHY",
    ),
    Case(
        "Archive",
        "a page of HTML in its place",
        archive(lambda: b"<html>not found</html>"),
        "source one: the archive is damaged, cut off, or neither zip nor tar: WHY",
    ),
    Case("Archive", "a member damaged", archive(damaged), "source one: member a.py is damaged or cut off: WHY"),
    Case(
        "Archive",
        "a bomb: 200 MB of zeros in 200 kB",
        archive(lambda: wheel({"a.py": bytes(200 << 20)})),
        "source one: member a.py holds more than 134217728 bytes, the limit",
    ),
    Case(
        "Archive",
        "a member above the archive's folder",
        archive(lambda: wheel({"../../a.py": "x"})),
        "source one: member '../../a.py' escapes the archive's folder",
    ),
    Case(
        "Archive",
        "a member with an absolute path",
        archive(lambda: wheel({"/etc/a.py": "x"})),
        "source one: member '/etc/a.py' escapes the archive's folder",
    ),
    Case("Archive", "a member that is a symbolic link", archive(link), "source one: member a.py is a link, not a file"),
    Case(
        "Archive",
        "a member that is a device",
        archive(device),
        "source one: member a.py is a link or a device, not a file",
    ),
    Case(
        "Archive",
        "two members of one name",
        archive(lambda: wheel({"a.py": "1", "b.py": "2"}).replace(b"b.py", b"a.py")),
        "source one: two members are called a.py",
    ),
    Case(
        "Archive",
        "a member compressed in a way that is not read",
        archive(by_other_method),
        "source one: member a.py is compressed by zip's method 93; read are stored, deflate, bzip2, lzma",
    ),
    Case(
        "Archive",
        "two tars joined to one file",
        archive(lambda: tarred() * 2),
        "source one: the archive holds another one behind its end; divide the two",
    ),
    Case(
        "Archive",
        "a tar with a damaged header in its middle",
        archive(lambda: tarred().replace(b"b.py", b"c.py")),
        "source one: the archive is damaged, cut off, or neither zip nor tar: bad checksum at offset N",
    ),
    Case("Archive", "encrypted", archive(encrypted), "source one: member a.py is encrypted"),
    Case(
        "Archive",
        "no member that is asked for",
        archive(lambda: wheel({"a.rst": "x"})),
        "source one: include: no member of tiny-1.0-py3-none-any.whl matches *.py, *.jsonl and no exclude",
    ),
    Case(
        "Archive",
        "a member that is not UTF-8",
        archive(lambda: wheel({"a.py": b"caf\xe9 = 1"})),
        "source one: member a.py is not UTF-8: byte 0xe9 at offset 3",
    ),
]
