"""Test that the real pip accepts only the pinned file, from a folder instead of a network."""

import hashlib
import io
import pathlib
import tarfile
import zipfile

import pytest

from speciate.data.fetch.pip import Pin, check_sha256, download, file_selection_arguments

PURE = "tiny-1.0-py3-none-any.whl"
FOREIGN = "tiny-1.0-cp37-cp37m-win_amd64.whl"


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Make a folder that is the only place where pip may look."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    (tmp_path / "out").mkdir()
    return tmp_path


def put_wheel(folder: pathlib.Path, file: str, requires_python: str = ">=3.6") -> Pin:
    """Write a wheel that pip accepts; return its pin."""
    path = folder / "links" / file
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny/words.txt", file)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        metadata = f"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\nRequires-Python: {requires_python}\n"
        wheel.writestr("tiny-1.0.dist-info/METADATA", metadata + "Requires-Dist: not-there==9\n")
    return Pin("tiny", "1.0", file, hashlib.sha256(path.read_bytes()).hexdigest())


def test_the_pinned_file_comes_byte_for_byte(folder: pathlib.Path) -> None:
    pin = put_wheel(folder, PURE)
    download(pin, "words", folder / "out" / "archive")
    assert (folder / "out" / "archive").read_bytes() == (folder / "links" / PURE).read_bytes()
    assert [file.name for file in (folder / "out").iterdir()] == ["archive"]


@pytest.mark.parametrize(("file", "python"), [(FOREIGN, ">=3.6"), (PURE, "<3")])
def test_another_machines_wheel_comes_all_the_same(folder: pathlib.Path, file: str, python: str) -> None:
    put_wheel(folder, "tiny-1.0-py3-none-any.whl")
    pin = put_wheel(folder, file, python)
    download(pin, "words", folder / "out" / "archive")
    check_sha256(folder / "out" / "archive", pin, "words")


def test_other_bytes_than_the_pinned_ones_are_refused(folder: pathlib.Path) -> None:
    good = put_wheel(folder, PURE)
    wrong = Pin(good.name, good.version, good.file, "0" * 64)
    with pytest.raises(ValueError, match=f"source words: tiny==1.0 .*expected sha256 {'0' * 64}, got {good.sha256}"):
        download(wrong, "words", folder / "out" / "archive")
    assert list((folder / "out").iterdir()) == []


def test_a_release_that_is_not_there_is_named(folder: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"source words: tiny==1.0 \(tiny-1.0-py3-none-any.whl\): pip could not fetch"):
        download(Pin("tiny", "1.0", PURE, "0" * 64), "words", folder / "out" / "archive")


def test_without_a_network_it_says_so(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(
        ValueError, match=r"source words: tiny==1.0 .*cannot reach its package index; check the network"
    ):
        download(Pin("tiny", "1.0", PURE, "0" * 64), "words", folder / "out" / "archive")
    assert list((folder / "out").iterdir()) == []


def test_an_sdist_comes_too(folder: pathlib.Path) -> None:
    backend = (
        "def _metadata(folder):\n    import os\n    os.mkdir(folder + '/tiny-1.0.dist-info')\n"
        "    with open(folder + '/tiny-1.0.dist-info/METADATA', 'w') as file:\n"
        "        file.write('Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n')\n"
        "    return 'tiny-1.0.dist-info'\n"
        "def prepare_metadata_for_build_wheel(folder, config_settings=None):\n    return _metadata(folder)\n"
        "def build_wheel(*args, **kwargs):\n    raise NotImplementedError\n"
    )
    project = "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    path = folder / "links" / "tiny-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        for name, text in (("backend.py", backend), ("pyproject.toml", project), ("PKG-INFO", "Name: tiny\n")):
            info = tarfile.TarInfo(f"tiny-1.0/{name}")
            info.size = len(text)
            sdist.addfile(info, io.BytesIO(text.encode()))
    pin = Pin("tiny", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    download(pin, "words", folder / "out" / "archive")
    assert (folder / "out" / "archive").read_bytes() == path.read_bytes()


def test_tags_are_those_of_the_file() -> None:
    assert file_selection_arguments("gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl") == [
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", "3.11", "--abi", "cp311"),
        *("--platform", "manylinux_2_24_x86_64", "--platform", "manylinux_2_28_x86_64", "--ignore-requires-python"),
    ]
    assert file_selection_arguments("a-1-py2.py3-none-any.whl")[2:] == [
        *("--implementation", "py", "--abi", "none", "--platform", "any", "--ignore-requires-python")
    ]
    with pytest.raises(ValueError, match="neither a wheel nor an sdist"):
        file_selection_arguments("a-1.whl")
