"""Test that a frozen tree is what was read, however the tree changes afterwards."""

import os
import pathlib
import time

import pytest

from speciate.config.extends import read_yaml
from speciate.config.pretrained.fill import fill_from_checkpoints
from speciate.config.study import parse_study
from speciate.graph import frozen
from speciate.graph.study_graph import StudyGraph

ROOT = pathlib.Path(__file__).parents[2]
STUDIES = [ROOT / "config.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write a tree of the kinds of files that jobs read, and some that they do not."""
    files = {
        "src/speciate/a.py": "A = 1\n",
        "src/speciate/page.html.jinja": "{{ a }}\n",
        "src/speciate/__pycache__/a.cpython-311.pyc": "compiled",
        "workflow/rules/train.smk": "rule train:\n",
        "Snakefile": "include\n",
        "containers/images.lock.yaml": "study: {}\n",
        "README.md": "no job reads this\n",
    }
    for name, text in files.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_text(text)
    return tmp_path / "tree"


def test_what_jobs_read_is_copied_with_the_settings(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    tree = frozen.read_tree(root, {"study": "ü", "seeds": [0, 1]})
    (root / "src/speciate/a.py").write_text("A = 2\n")  # after it was read
    folder = tree.write(tmp_path / "source")
    assert folder == tmp_path / "source" / tree.digest
    written = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert written == [
        "Snakefile",
        "containers/images.lock.yaml",
        "src/speciate/a.py",
        "src/speciate/page.html.jinja",
        "study.json",
        "workflow/rules/train.smk",
    ]
    assert (folder / "src/speciate/a.py").read_text() == "A = 1\n"
    assert frozen.read_settings(folder) == {"study": "ü", "seeds": [0, 1]}
    assert [path.name for path in (tmp_path / "source").iterdir()] == [tree.digest]


def test_the_digest_stands_for_content_and_settings(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    settings = {"study": "s"}
    first = frozen.read_tree(root, settings)
    os.utime(root / "src/speciate/a.py", (0, 0))
    (root / "README.md").write_text("other\n")
    (root / "src/speciate/__pycache__/b.pyc").write_text("compiled too")
    assert frozen.read_tree(root, settings).digest == first.digest
    assert frozen.read_tree(root, {"study": "t"}).digest != first.digest
    (root / "workflow/rules/train.smk").rename(root / "workflow/rules/other.smk")
    assert frozen.read_tree(root, settings).digest != first.digest


def test_a_tree_is_written_once_and_old_ones_go(root: pathlib.Path, tmp_path: pathlib.Path) -> None:
    home, old = tmp_path / "source", time.time() - (frozen.KEPT_DAYS + 1) * 24 * 3600
    first = frozen.read_tree(root, {}).write(home)
    (first / "mark").write_text("still the same folder")
    os.utime(first, (old, old))
    assert frozen.read_tree(root, {}).write(home) == first
    assert (first / "mark").is_file()
    os.utime(first, (old, old))
    second = frozen.read_tree(root, {"study": "t"}).write(home)
    assert [path.name for path in home.iterdir()] == [second.name]


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_a_job_of_a_cluster_plans_the_same_specs(tmp_path: pathlib.Path, file: pathlib.Path) -> None:
    settings = fill_from_checkpoints(read_yaml(file), str(file)).settings
    folder = frozen.read_tree(tmp_path, settings).write(tmp_path / "source")
    here, there = (
        StudyGraph(parse_study(each, str(file)), pathlib.Path("results")).specs().keys()
        for each in (settings, frozen.read_settings(folder))
    )
    assert here == there
