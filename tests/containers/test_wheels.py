"""Test how the image's wheels are chosen and unpacked."""

import os
import pathlib
import re

import pytest
from containers import images, wheels
from containers.debian import Failed
from tests.containers.small import wheel


def test_markers_are_read_against_the_python_of_the_image(tmp_path: pathlib.Path) -> None:
    lock = tmp_path / "study.lock"
    lock.write_text(
        "# made by hand\nsame==1.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via\n"
        "old==1.0 ; python_full_version < '3.12' \\\n    --hash=sha256:cc\n"
        "new==2.0 ; python_full_version >= '3.12' \\\n    --hash=sha256:dd\n"
        "elsewhere==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:ee\n"
    )
    assert wheels.requirements(lock) == ["same==1.0 --hash=sha256:aa --hash=sha256:bb", "old==1.0 --hash=sha256:cc"]


def test_each_image_has_every_package_once_and_one_torch() -> None:
    for name, locks in images.LOCKS.items():
        pins = [pin for lock in locks for pin in wheels.requirements(images.ROOT / lock)]
        names = [re.split(r"[=\s\[]", pin)[0] for pin in pins]
        assert sorted(names) == sorted(set(names)), name
        assert "torch" in names and "numpy" in names and "colorama" not in names
        assert ("nvidia-cublas" in names) == (name == "study-cuda")


def test_wheels_that_no_index_gives_are_one_message(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch of another sha256 is not taken, and the message names the file that was looked for."""
    monkeypatch.setattr(wheels, "TORCH_INDEX", "http://127.0.0.1:9/")
    for name in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, says in (("torch-cpu.lock", "PIP_FIND_LINKS=FOLDER make image"), ("study.lock", "is out of reach")):
        (tmp_path / name).write_text("torch==2.13.0 \\\n    --hash=sha256:" + "0" * 64 + "\n")
        with pytest.raises(Failed, match=f"^{name}: .*{says}"):
            wheels.download([tmp_path / name], tmp_path / "wheels", tmp_path / "pip.log")


def test_a_wheel_is_unpacked_where_its_python_looks(tmp_path: pathlib.Path) -> None:
    members = {
        "tiny/__init__.py": "",
        "tiny/bin/helper": "binary",
        "tiny-1.0.data/scripts/run": "#!python\nprint(1)\n",
        "tiny-1.0.data/purelib/other.py": "x = 1\n",
        "tiny-1.0.data/data/share/tiny.txt": "data",
        "tiny-1.0.dist-info/entry_points.txt": "[console_scripts]\nTiny = tiny.cli:app.main\n[gui]\nno = x:y\n",
        "tiny-1.0.dist-info/LICENSE": "text",
    }
    metadata = "Metadata-Version: 2.1\nName: Tiny\nVersion: 1.0\nClassifier: License :: OSI Approved :: MIT License\n"
    file = wheel(tmp_path, members, metadata, executable=("tiny/bin/helper",))
    tree = tmp_path / "tree"
    name, version, _, licence = wheels.unpack(file, tree)
    assert (name, version, licence) == ("Tiny", "1.0", "MIT License")
    site = tree / "usr/local/lib/python3.11/dist-packages"
    assert (site / "tiny/bin/helper").stat().st_mode & 0o777 == 0o755
    assert (site / "tiny/__init__.py").stat().st_mode & 0o777 == 0o644
    assert (site / "other.py").exists() and (site / "tiny-1.0.dist-info/LICENSE").exists()
    assert (tree / "usr/local/share/tiny.txt").read_text() == "data"
    assert (tree / "usr/local/bin/run").read_text() == "#!/usr/bin/python3\nprint(1)\n"
    script = (tree / "usr/local/bin/Tiny").read_text()
    assert "from tiny.cli import app\n" in script and "sys.exit(app.main())" in script
    assert sorted(path.name for path in (tree / "usr/local/bin").iterdir()) == ["Tiny", "run"]
