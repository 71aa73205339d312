"""Test that each process gets a GPU of its own; the number of GPUs is faked, so no test here needs one."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
import torch

from speciate.config.run import TrainingSpec
from speciate.training.distributed import devices, gpu_slots

HOLD = """
import sys, time
from speciate.training.distributed.gpu_slots import free_gpu
with free_gpu(2) as index:
    print(index, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def locks(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv(gpu_slots.FOLDER_VARIABLE, str(tmp_path))
    for variable in devices.SCHEDULER_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pretend to torch that there are two GPUs; return which ones were chosen."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_no_two_holders_have_one_slot(locks: pathlib.Path) -> None:
    with gpu_slots.free_gpu(2) as first, gpu_slots.free_gpu(2) as second:
        assert (first, second) == (0, 1)
        why = r"all 2 GPUs are in use; run at most as many jobs at a time as there are GPUs \(--resources gpu=2\)"
        with pytest.raises(ValueError, match=why), gpu_slots.free_gpu(2):
            pass
    with gpu_slots.free_gpu(2) as again:
        assert again == 0


def test_a_killed_holder_frees_its_slot(locks: pathlib.Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(devices.__file__).parents[3])}
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        held = [int(holder.stdout.readline()) for holder in holders if holder.stdout]
        assert sorted(held) == [0, 1]
        with pytest.raises(ValueError, match="all 2 GPUs are in use"), gpu_slots.free_gpu(2):
            pass
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        with gpu_slots.free_gpu(2) as index:
            assert index == held[0]
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_auto_is_a_gpu_where_there_is_one(gpus: list[int]) -> None:
    with (
        devices.acquire_device(TrainingSpec()) as first,
        devices.acquire_device(TrainingSpec(device="cuda"), local_rank=1) as second,
    ):
        assert (str(first), str(second)) == ("cuda:0", "cuda:1")
    with devices.acquire_device(TrainingSpec(device="cpu")) as device:
        assert str(device) == "cpu"
    assert gpus == [0, 1]


@pytest.mark.parametrize("variable", devices.SCHEDULER_VARIABLES)
def test_gpus_that_a_scheduler_gave_are_taken_in_order_of_rank(
    gpus: list[int], locks: pathlib.Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "4,7")
    with gpu_slots.free_gpu(1), devices.acquire_device(TrainingSpec(), local_rank=1) as device:
        assert str(device) == "cuda:1"
    why = "process 2 of this node has no GPU; torch finds 2"
    with pytest.raises(ValueError, match=why), devices.acquire_device(TrainingSpec(), local_rank=2):
        pass


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with devices.acquire_device(TrainingSpec()) as device:
        assert str(device) == "cpu"
    why = r"training\.device: is cuda, but torch finds no GPU"
    with pytest.raises(ValueError, match=why), devices.acquire_device(TrainingSpec(device="cuda")):
        pass
