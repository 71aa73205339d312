"""Test that checkpoints are complete or absent, verified, and of this model."""

import os
import pathlib
import stat

import numpy as np
import pytest
import torch
from torch import nn

from speciate.machine import processor
from speciate.training.checkpoint import lock, store
from speciate.training.checkpoint.state import State
from speciate.training.checkpoint.weights import load_weights, save_weights


def state(step: int = 3) -> State:
    torch.manual_seed(step)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    return State(step, model, optimizer, [f'{{"step": {step}}}\n'], {"steps": np.arange(step)})


def test_a_checkpoint_brings_everything_back(tmp_path: pathlib.Path) -> None:
    saved, loaded = state(3), state(0)
    store.save(tmp_path, saved)
    expected = torch.rand(2)  # draw the numbers that follow the saved random state
    torch.manual_seed(99)
    assert store.restore(tmp_path, loaded)
    assert loaded.step == 3
    assert loaded.metrics == saved.metrics
    assert loaded.telemetry["steps"].tolist() == [0, 1, 2]
    assert torch.equal(loaded.model.weight, saved.model.weight)
    assert torch.equal(torch.rand(2), expected)
    first, second = (each_state.optimizer.state_dict()["state"][0]["exp_avg"] for each_state in (saved, loaded))
    assert torch.equal(first, second)


@pytest.mark.parametrize("keep", [1, 2])
def test_only_the_newest_are_kept(tmp_path: pathlib.Path, keep: int) -> None:
    for step in (1, 2, 10):
        store.save(tmp_path, state(step), keep=keep)
    assert {path.name for path in tmp_path.iterdir()} == {"step10", "step2"} - ({"step2"} if keep == 1 else set())


def test_other_threads_and_versions_are_told_in_one_line(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    store.save(tmp_path, state(3))
    assert store.restore(tmp_path, state(0), log=messages.append)
    assert messages == []
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    assert store.restore(tmp_path, state(0), log=messages.append)
    versions = f"torch {torch.__version__} (now 2.0.0), numpy {np.__version__} (now 1.0)"
    monkeypatch.setattr(np, "__version__", "1.0")
    monkeypatch.setattr(torch, "__version__", "2.0.0")
    assert store.restore(tmp_path, state(0), log=messages.append)
    here = processor()
    monkeypatch.setattr(store, "processor", lambda: "an abacus")
    assert store.restore(tmp_path, state(0), log=messages.append)
    threads_text, end = f"threads {threads} (now {threads + 1})", "results may differ in the last bits from here on"
    assert messages == [
        f"{tmp_path}/step3: was written with {threads_text}; {end}",
        f"{tmp_path}/step3: was written with {versions}, {threads_text}; {end}",
        f"{tmp_path}/step3: was written with {versions}, {threads_text}, processor {here} (now an abacus); {end}",
    ]


def test_its_files_have_the_modes_of_the_umask(tmp_path: pathlib.Path) -> None:
    before = os.umask(0o027)
    try:
        store.save(tmp_path / "run", state(3))
    finally:
        os.umask(before)
    files = list((tmp_path / "run" / "step3").iterdir())
    assert len(files) > 4
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}


def test_nothing_there_is_no_error(tmp_path: pathlib.Path) -> None:
    assert not store.restore(tmp_path, state())


@pytest.mark.parametrize("name", ["model.safetensors", "train_state.pt", "telemetry.safetensors", "metrics.jsonl"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: pathlib.Path, name: str) -> None:
    store.save(tmp_path, state(3))
    file = tmp_path / "step3" / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=f"no checkpoint is intact .step3: {name} changed"):
        store.restore(tmp_path, state())


def test_the_previous_one_serves_where_the_newest_is_damaged(tmp_path: pathlib.Path) -> None:
    store.save(tmp_path, state(1))
    (tmp_path / "step2").mkdir()  # what a machine that died during removal may leave behind
    loaded = state(0)
    assert store.restore(tmp_path, loaded)
    assert loaded.step == 1


def test_an_interrupted_save_leaves_the_old_one(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(tmp_path, state(1))
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        store.save(tmp_path, state(2))
    loaded = state(0)
    assert store.restore(tmp_path, loaded)
    assert loaded.step == 1


def test_files_and_folders_are_on_the_disk_before_and_after_the_rename(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync = tmp_path / "checkpoints" / "run" / "code", os.fsync
    synced: list[tuple[int, bool]] = []

    def watched(descriptor: int) -> None:
        synced.append((os.fstat(descriptor).st_ino, (folder / "step3").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    with lock.exclusive(folder.parent):
        # these folders hold the names of the new folders
        assert synced == [(tmp_path.stat().st_ino, False), (folder.parents[1].stat().st_ino, False)]
        synced.clear()
        store.save(folder, state(3))
    inode = {path: path.stat().st_ino for path in (folder.parent, folder, *folder.rglob("*"))}
    step = folder / "step3"
    files = {inode[file] for file in step.iterdir()}
    before = [each for each, renamed in synced if not renamed]
    assert len(files) == 5
    assert before[0] == inode[folder.parent]  # it holds the name of the folder of the code
    assert set(before[1:-1]) == files
    assert before[-1] == inode[step]
    assert [each for each, renamed in synced if renamed] == [inode[folder], inode[folder.parent]]


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: pathlib.Path) -> None:
    def train_beside() -> None:
        with lock.exclusive(tmp_path):
            pass

    with lock.exclusive(tmp_path), pytest.raises(ValueError, match="another process is training this run"):
        train_beside()
    train_beside()


def test_weights_of_another_model_are_refused(tmp_path: pathlib.Path) -> None:
    save_weights(nn.Linear(3, 2), tmp_path / "weights")
    with pytest.raises(ValueError, match="holds another model's weights; they differ in bias, weight"):
        load_weights(nn.Linear(3, 4), tmp_path / "weights")
    with pytest.raises(ValueError, match="they differ in bias"):
        load_weights(nn.Linear(3, 2, bias=False), tmp_path / "weights")
    (tmp_path / "weights").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        load_weights(nn.Linear(3, 2), tmp_path / "weights")


def test_a_tied_weight_is_written_once_and_comes_back_tied(tmp_path: pathlib.Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.second = nn.Linear(2, 2, bias=False)
            self.second.weight = self.first.weight

    model, other = Tied(), Tied()
    save_weights(model, tmp_path / "weights")
    load_weights(other, tmp_path / "weights")
    assert torch.equal(other.second.weight, model.first.weight)
    assert other.second.weight is other.first.weight
