"""Test that the generator runs out of a wheel that is not installed, and only if it is the pinned one."""

import hashlib
import pathlib
import zipfile
from typing import Any

import pytest

from speciate.data.fetch.sources.generator import Options, fetch, read
from speciate.data.passage import Passage
from speciate.data.shard import Shard

# A wheel of the same shape: its parent packages must not run, and its items show index, template and hash seed.
SOURCE = """
import dataclasses
from reasoning_gym.factory import base

@dataclasses.dataclass
class GSMSymbolicDatasetConfig:
    seed: int
    size: int

class GSMSymbolicDataset:
    def __init__(self, config):
        self.seed = config.seed
        self.task_indices = [base + i % 3 for i in range(config.size)]
    def __getitem__(self, i):
        words = "-".join({"alpha", "beta", "gamma", "delta"})
        question = f"{words} {self.seed + i}?SUFFIX"
        return {"question": question, "metadata": {"answer_cot": f"#### {i}"}}
"""
SUFFIX = " Give the result as your final answer. Do not include units."


def wheel(path: pathlib.Path, source: str = SOURCE.replace("SUFFIX", SUFFIX)) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        for parent in ("", "arithmetic/", "coaching/"):
            archive.writestr(f"reasoning_gym/{parent}__init__.py", "raise ImportError('a parent ran')")
        archive.writestr("reasoning_gym/factory.py", "base = 24")
        archive.writestr("reasoning_gym/arithmetic/gsm_symbolic/__init__.py", "")
        archive.writestr("reasoning_gym/arithmetic/gsm_symbolic/gsm_symbolic.py", source)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def options(sha256: str, **settings: Any) -> Options:
    pin = {"version": "1", "file": "reasoning_gym-1-py3-none-any.whl", "sha256": sha256}
    return Options.model_validate({"kind": "generator", "dataset": "gsm_symbolic", **pin, **settings})


def test_items_are_question_and_answer_grouped_by_template(tmp_path: pathlib.Path) -> None:
    settings = options(wheel(tmp_path / "archive"), num_items=4, seed=7)
    passages = list(read(settings, "gsm", tmp_path / "archive"))
    assert [passage.id for passage in passages] == ["item0", "item2", "item3"]  # template 25 is dropped
    assert [passage.group for passage in passages] == ["template24", "template26", "template24"]
    assert [passage.text.split(" ", 1)[1] for passage in passages] == ["7?\n#### 0", "9?\n#### 2", "10?\n#### 3"]
    assert list(read(settings, "gsm", tmp_path / "archive")) == passages  # including sets of strings


def test_the_instruction_can_stay(tmp_path: pathlib.Path) -> None:
    settings = options(wheel(tmp_path / "archive"), num_items=1, instruction=True)
    (passage,) = read(settings, "gsm", tmp_path / "archive")
    assert passage == Passage("item0", "template24", passage.text)
    assert passage.text.endswith(f"0?{SUFFIX}\n#### 0")


def test_code_of_another_wheel_never_runs(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mark").touch()
    wheel(tmp_path / "archive", f"import os; os.remove({str(tmp_path / 'mark')!r})")
    with pytest.raises(ValueError, match=f"source gsm: reasoning-gym==1 .*expected sha256 {'0' * 64}, got "):
        list(read(options("0" * 64), "gsm", tmp_path / "archive"))
    assert (tmp_path / "mark").exists()


def test_a_generator_that_fails_is_named(tmp_path: pathlib.Path) -> None:
    settings = options(wheel(tmp_path / "archive", "raise RuntimeError('no such task')"))
    with pytest.raises(ValueError, match="source gsm: generator gsm_symbolic failed: RuntimeError: no such task"):
        list(read(settings, "gsm", tmp_path / "archive"))
    changed = options(wheel(tmp_path / "archive", SOURCE.replace("SUFFIX", " Answer!")))
    with pytest.raises(ValueError, match="item 0 does not end with 'Give the result"):
        list(read(changed, "gsm", tmp_path / "archive"))


@pytest.mark.network
def test_the_real_generators_items_are_those_of_a_full_installation(tmp_path: pathlib.Path) -> None:
    pin = {"version": "0.1.25", "file": "reasoning_gym-0.1.25-py3-none-any.whl"}
    settings = options("7f17a3eddb13c015d7d4a755ed576a061df889faf9468bcc2cca334ebe9e0435", **pin, instruction=True)
    fetch(settings, "gsm", tmp_path / "archive", Shard())
    texts = [passage.text for passage in read(settings, "gsm", tmp_path / "archive")]
    # the digest of the same join over create_dataset("gsm_symbolic", seed=0, size=20000) with all the package's
    # dependencies installed
    assert len(texts) == 19104
    assert (
        hashlib.sha256("\0".join(texts).encode()).hexdigest()
        == "226ed614980abca0f8ddebfd8be7602f028ba419dbd380ab0e2f6339321b2b24"
    )
