"""Test the package as others install it: what the wheel holds, and what works without torch."""

import configparser
import email
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
import yaml
from tests.figures import planted, planted_data
from tests.stages.test_draw import ARMS, spec_of

from speciate import cli
from speciate.config.run import canonical_json

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LIGHT = ("analysis", "config", "figures", "graph", "reporting", "training_logs")
"""Packages that need no extra; neither do the verbs below."""
LIGHT_VERBS = ("compare", "draw", "manifest", "report", "card", "present", "config", "describe", "training_logs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Build the wheel from a copy, because a build leaves folders next to the sources."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder))
    command = [sys.executable, "-I", "-m", "pip", "wheel", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_every_source_and_template(wheel: pathlib.Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("speciate/")}
    sources = {file.relative_to(ROOT / "src").as_posix() for file in (ROOT / "src").rglob("*.py")}
    templates = {file.relative_to(ROOT / "src").as_posix() for file in (ROOT / "src").rglob("*.jinja")}
    assert {"speciate/stages/report.html.jinja", "speciate/__main__.py"} <= held
    assert held == sources | templates


def test_what_a_build_leaves_next_to_the_sources_is_ignored(wheel: pathlib.Path) -> None:
    left = [path for path in (*wheel.parent.iterdir(), *(wheel.parent / "src").iterdir()) if path.is_dir()]
    new = [str(path.relative_to(wheel.parent)) for path in left if path.name not in ("src", "speciate")]
    assert {"build", "src/speciate.egg-info"} <= set(new)
    done = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input="".join(f"{name}/\n" for name in new),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [f"{name}/" for name in new], done.stderr


def test_the_wheel_brings_the_command_and_says_what_it_needs(wheel: pathlib.Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    scripts = configparser.ConfigParser()
    scripts.read_string(archive.read(f"{folder}/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {
        "speciate": "speciate.cli:main",
        "speciate-lm-eval": "speciate.evaluation.downstream.lm_eval_model:main",
    }
    metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    assert metadata["Version"] == cli.VERSION == yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"]
    assert metadata.get_all("Provides-Extra") == ["torch", "data", "evaluation", "harness", "all"]
    core = [needed.lower() for needed in metadata.get_all("Requires-Dist", []) if "extra ==" not in needed]
    names = {needed.partition(">")[0] for needed in core}
    assert names == {"jinja2", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic", "pyyaml", "scipy"}


def test_every_module_that_an_extra_brings_is_one_of_its_packages() -> None:
    named = {"huggingface_hub": "datasets", "profanity_check": "alt-profanity-check"}
    for extra, modules in cli.EXTRAS.items():
        packages = {needed.partition(">")[0] for needed in PROJECT["optional-dependencies"][extra]}
        for module in modules.split():
            assert named.get(module, module.replace("_", "-")) in packages, module


def test_what_needs_no_extra_imports_without_them() -> None:
    lines = f"""
import importlib, importlib.abc, pathlib, sys
from speciate import cli
class Blocked(importlib.abc.MetaPathFinder):  # None in sys.modules would do, but scipy looks there for torch
    def find_spec(self, name, path, target=None):
        if cli._extra_of(name):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
package = pathlib.Path(cli.__file__).parent
files = [file for room in {LIGHT!r} for file in package.joinpath(room).rglob("*.py")]
files += [file for name, file in cli.verb_files().items() if name in {LIGHT_VERBS!r}]
for file in files:
    importlib.import_module(".".join(("speciate", *file.relative_to(package).with_suffix("").parts)))
print(len(files))
"""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", lines], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40


@pytest.mark.slow
@pytest.mark.network
def test_installed_outside_the_clone_it_draws_a_studys_tables(wheel: pathlib.Path, tmp_path: pathlib.Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python, command = tmp_path / "venv/bin/python", tmp_path / "venv/bin/speciate"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words: object, status: int = 0) -> str:
        done = subprocess.run(
            [*map(str, words)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert "speciate VERB" in run(command, "--help")
    assert run(command, "--version") == run(python, "-m", "speciate", "--version") == f"speciate {cli.VERSION}\n"
    needs = "needs torch, which is not installed: pip install 'speciate[torch]'"
    assert run(command, "train", "--spec", "x", status=cli.FAILED) == f"speciate train: error: {needs}\n"
    for name, table in {**planted.tables(ARMS, num_layers=2, num_steps=60), **planted_data.tables()}.items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "spec.json").write_text(canonical_json(spec_of("load")))
    run(command, "draw", "--spec", "spec.json", "--tables", ".", "--output-folder", "figures")
    assert sorted(file.name for file in (tmp_path / "figures").iterdir()) == [
        *("load.json", "load.png", "load.svg", "narrow"),
    ]
