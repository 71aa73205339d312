"""Test that archives are treated as untrusted: every defect ends in a message that names the archive."""

import bz2
import gzip
import io
import lzma
import pathlib
import stat
import tarfile
import zipfile

import pytest
import zstandard

from speciate.data.fetch.archive import Globs, extract_members, read_members
from speciate.data.fetch.encodings import decode_utf8
from speciate.data.reading_errors import ReadingError

ALL = Globs(["*"])
TEXTS = {"a/one.py": b"one = 1\n", "a/two.txt": b"two", "b/tests/three.py": b"three = 3\n"}


def make_zip(path: pathlib.Path, texts: dict[str, bytes]) -> pathlib.Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in texts.items():
            archive.writestr(name, data)
    return path


def make_tar(path: pathlib.Path, texts: dict[str, bytes], mode: str = "w:gz") -> pathlib.Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in texts.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = [make_zip, make_tar]


@pytest.mark.parametrize("make", MAKERS)
def test_wanted_members_come_in_order(tmp_path: pathlib.Path, make) -> None:
    archive = make(tmp_path / "archive", TEXTS)
    assert dict(read_members(archive, "s", ALL)) == TEXTS
    assert list(read_members(archive, "s", Globs(["*.py"], ["*/tests/*"]))) == [("a/one.py", b"one = 1\n")]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_tars_compression_is_told_by_content(tmp_path: pathlib.Path, pack) -> None:
    tar = make_tar(tmp_path / "archive", TEXTS, "w").read_bytes()
    (tmp_path / "archive").write_bytes(pack(tar[:700]) + pack(tar[700:]))  # as two streams, as some programs do
    assert dict(read_members(tmp_path / "archive", "s", ALL)) == TEXTS


def test_a_compressed_member_comes_decompressed(tmp_path: pathlib.Path) -> None:
    packed = {"x.bz2": bz2.compress(b"in") + bz2.compress(b"side"), "y.gz": gzip.compress(b"too") + bytes(512)}
    packed |= {"z.zst": zstandard.compress(b"wide"), "w.xz": lzma.compress(b"old")}
    archive = make_zip(tmp_path / "archive", packed)
    members = {"x.bz2": b"inside", "y.gz": b"too", "z.zst": b"wide", "w.xz": b"old"}
    assert dict(read_members(archive, "s", ALL)) == members


def test_a_name_that_is_not_utf8_is_read_under_one_that_can_be_written(tmp_path: pathlib.Path) -> None:
    with tarfile.open(tmp_path / "archive", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("café.py"))
    assert dict(read_members(tmp_path / "archive", "s", ALL)) == {"caf\\xe9.py": b""}


def test_a_zip_method_that_is_not_read_is_not_called_damage(tmp_path: pathlib.Path) -> None:
    archive = make_zip(tmp_path / "archive", {"a.py": b"text" * 9})
    data = bytearray(archive.read_bytes())
    for header, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        data[data.index(header) + offset] = 93  # zstd, of which PKZIP has had a method since 2020
    archive.write_bytes(bytes(data))
    message = r"^source s: member a\.py is compressed by zip's method 93; read are stored, deflate, bzip2, lzma$"
    with pytest.raises(ReadingError, match=message):
        list(read_members(archive, "s", ALL))


def test_a_damaged_header_in_the_middle_does_not_end_a_tar_silently(tmp_path: pathlib.Path) -> None:
    tar = bytearray(make_tar(tmp_path / "tar", TEXTS, "w").read_bytes())
    tar[1024 + 10] ^= 1  # in the second member's name
    (tmp_path / "tar").write_bytes(bytes(tar))
    with pytest.raises(ReadingError, match=r"source s: the archive is damaged, .*: bad checksum at offset 1024"):
        list(read_members(tmp_path / "tar", "s", ALL))
    for end in (1024, 2048, 3072):  # between two members, and before the blocks that end a tar
        (tmp_path / "tar").write_bytes(make_tar(tmp_path / "whole", TEXTS, "w").read_bytes()[:end])
        with pytest.raises(ReadingError, match=f"source s: the archive is damaged, .*: empty header at offset {end}"):
            list(read_members(tmp_path / "tar", "s", ALL))


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_is_read_to_its_checksum(tmp_path: pathlib.Path, pack) -> None:
    packed = bytearray(pack(make_tar(tmp_path / "tar", TEXTS, "w").read_bytes() + bytes(1 << 20) + b"end"))
    packed[{gzip.compress: -8, bz2.compress: -3, lzma.compress: -1}[pack]] ^= 1  # in what ends each of the formats
    (tmp_path / "tar").write_bytes(bytes(packed))
    with pytest.raises(ReadingError, match="source s: the archive is damaged"):
        list(read_members(tmp_path / "tar", "s", ALL))


@pytest.mark.parametrize("make", MAKERS)
def test_two_archives_in_one_file_are_refused(tmp_path: pathlib.Path, make) -> None:
    first, second = make(tmp_path / "1", TEXTS).read_bytes(), make(tmp_path / "2", {"other": b"x"}).read_bytes()
    (tmp_path / "both").write_bytes(first + second)
    with pytest.raises(
        ReadingError, match=r"source s: the archive holds (another one behind its end|something before)"
    ):
        list(read_members(tmp_path / "both", "s", ALL))


def test_a_zip_that_lists_more_members_than_it_has_is_refused(tmp_path: pathlib.Path) -> None:
    archive = make_zip(tmp_path / "archive", TEXTS)
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x05\x06") + 10] += 1
    archive.write_bytes(bytes(data))
    with pytest.raises(ReadingError, match="it lists 4 members, of which 3 are found"):
        list(read_members(archive, "s", ALL))


def test_members_beyond_four_gigabytes_have_sizes_of_eight_bytes(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"zip64")
    assert dict(read_members(tmp_path / "z", "s", ALL)) == {"a": b"zip64"}
    with tarfile.open(tmp_path / "t", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "ä"}) as tar:
        info = tarfile.TarInfo("ä" * 200)
        info.size, info.mtime, info.pax_headers = 3, 1.5, {"LIBARCHIVE.creationtime": "1.25"}
        tar.addfile(info, io.BytesIO(b"pax"))
    assert dict(read_members(tmp_path / "t", "s", ALL)) == {"ä" * 200: b"pax"}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["../out.py", "/etc/out.py", "a/../../out.py", "..", "C:out.py", "a\\..\\..\\out.py"])
def test_a_member_that_escapes_is_refused_even_if_unwanted(tmp_path: pathlib.Path, make, name: str) -> None:
    archive = make(tmp_path / "archive", {name: b"x", **TEXTS})
    with pytest.raises(ValueError, match=r"source s: member .* escapes the archive's folder"):
        list(read_members(archive, "s", Globs(["*.txt"])))


def test_links_and_devices_are_refused(tmp_path: pathlib.Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "t", "w") as archive:
            info = tarfile.TarInfo("a/link.py")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(ValueError, match=r"source s: member a/link\.py is a link or a device"):
            list(read_members(tmp_path / "t", "s", ALL))
    with zipfile.ZipFile(tmp_path / "z", "w") as zipped:
        entry = zipfile.ZipInfo("a/link.py")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match=r"source s: member a/link\.py is a link"):
        list(read_members(tmp_path / "z", "s", ALL))


@pytest.mark.parametrize("make", MAKERS)
def test_two_members_of_one_name_are_refused(tmp_path: pathlib.Path, make) -> None:
    archive = make(tmp_path / "archive", {"a": b"1", "b": b"2"})
    if make is make_zip:
        archive.write_bytes(archive.read_bytes().replace(b"b", b"a"))
    else:
        archive.write_bytes(gzip.compress(_renamed(gzip.decompress(archive.read_bytes()))))
    with pytest.raises(ValueError, match="source s: two members are called a"):
        list(read_members(archive, "s", ALL))


def _renamed(tar: bytes) -> bytes:
    """Return the tar with its second member renamed to `a` too, and the checksum corrected."""
    header = bytearray(tar[1024:1536])
    header[0:1] = b"a"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return tar[:1024] + bytes(header) + tar[1536:]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.98])
def test_a_cut_off_archive_is_refused(tmp_path: pathlib.Path, make, share: float) -> None:
    noise = bytes((index * index * 31 + index // 7) % 251 for index in range(60_000))
    reference = make(tmp_path / "archive", {f"m{index}": noise[index:] for index in range(3)}).read_bytes()
    (tmp_path / "cut").write_bytes(reference[: int(len(reference) * share)])
    with pytest.raises(ValueError, match=r"source s: .*damaged"):
        list(read_members(tmp_path / "cut", "s", ALL))


def test_a_corrupt_member_is_named(tmp_path: pathlib.Path) -> None:
    archive = make_zip(tmp_path / "archive", {"good": b"g", "bad": b"unmistakable" * 3})
    data = bytearray(archive.read_bytes())
    at = data.index(b"bad") + 3
    data[at + 2] ^= 0xFF
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="source s: member bad is damaged"):
        list(read_members(archive, "s", ALL))
    broken = make_zip(tmp_path / "b", {"x.bz2": bz2.compress(b"inside" * 99)[:-9], "y.gz": b"no"})
    for name in ("x.bz2", "y.gz"):
        with pytest.raises(ValueError, match=f"source s: member {name} cannot be decompressed"):
            list(read_members(broken, "s", Globs([name])))


def test_what_is_no_archive_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "page").write_text("<html>404</html>" * 99)
    with pytest.raises(ValueError, match="source s: the archive is damaged, cut off, or neither zip nor tar"):
        list(read_members(tmp_path / "page", "s", ALL))
    with pytest.raises(ValueError, match="source s: there is no archive"):
        list(read_members(tmp_path / "missing", "s", ALL))


@pytest.mark.parametrize("make", MAKERS)
def test_a_bomb_is_refused(tmp_path: pathlib.Path, make) -> None:
    archive = make(tmp_path / "archive", {"fine": b"x" * 100, "bomb": bytes(2_000_000)})
    with pytest.raises(ValueError, match="source s: member bomb holds more than 1000000 bytes"):
        list(read_members(archive, "s", ALL, member_bytes=1_000_000))
    assert [name for name, _ in read_members(archive, "s", Globs(["fine"]), member_bytes=1000)] == ["fine"]
    with pytest.raises(ValueError, match="at member bomb the archive exceeds 2000050 bytes"):
        list(read_members(archive, "s", ALL, total_bytes=2_000_050))
    nested = make(tmp_path / "nested", {"bomb.gz": gzip.compress(bytes(2_000_000))})
    with pytest.raises(ValueError, match=r"member bomb\.gz holds more than 1000000 bytes"):
        list(read_members(nested, "s", ALL, member_bytes=1_000_000))


def test_a_header_that_lies_about_the_size_does_not_help_a_bomb(tmp_path: pathlib.Path) -> None:
    archive = make_zip(tmp_path / "archive", {"bomb": bytes(2_000_000)})
    size = (2_000_000).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="source s: member bomb"):
        list(read_members(archive, "s", ALL, member_bytes=1_000_000))


def test_an_encrypted_member_is_refused(tmp_path: pathlib.Path) -> None:
    archive = make_zip(tmp_path / "archive", {"secret": b"x"})
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[data.index(b"PK\x03\x04") + 6] |= 1
    archive.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"source s: member secret is encrypted$"):
        list(read_members(archive, "s", ALL))


def test_what_is_not_utf8_is_named_with_its_offset() -> None:
    assert decode_utf8("grün".encode(), "here") == "grün"
    with pytest.raises(ValueError, match="source s: member m is not UTF-8: byte 0xe9 at offset 3"):
        decode_utf8(b"caf\xe9 noir", "source s: member m")


@pytest.mark.parametrize("make", MAKERS)
def test_wanted_members_are_copied_out_as_they_are(tmp_path: pathlib.Path, make) -> None:
    texts = {**TEXTS, "a/x.gz": gzip.compress(b"inside")}
    archive, folder = make(tmp_path / "archive", texts), tmp_path / "out"
    folder.mkdir()
    extract_members(archive, "s", Globs(["a/*"]), folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        pathlib.PurePosixPath(name).name: data for name, data in texts.items() if name.startswith("a/")
    }
    with pytest.raises(ValueError, match=r"source s: two members are called one\.py"):
        extract_members(make(tmp_path / "twice", {"a/one.py": b"", "b/one.py": b""}), "s", ALL, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"source s: include: no member matches \*\.gguf"):
        extract_members(archive, "s", Globs(["*.gguf"]), tmp_path / "empty")
    with pytest.raises(ValueError, match="escapes the archive's folder"):
        extract_members(make(tmp_path / "bad", {"../out": b""}), "s", ALL, tmp_path / "empty")
    with pytest.raises(ValueError, match="source s: there is no archive"):
        extract_members(tmp_path / "gone", "s", ALL, tmp_path / "empty")
