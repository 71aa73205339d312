"""Test that the machine is named, in every form in which systems name it."""

import os
import pathlib
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

from speciate import machine

ROOT = pathlib.Path(__file__).parents[1]
X86 = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz\nflags\t\t: fpu avx\n"
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"),
        (ARM, "aarch64 cpu implementer 0x41 cpu part 0xd0c"),
        (None, "aarch64"),
    ],
)
def test_the_processor_is_named(
    text: str | None, expected: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    assert machine.processor.__wrapped__() == expected


def test_instructions_and_threads_are_those_of_torch() -> None:
    described = machine.describe()
    assert described["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert described["threads"] == torch.get_num_threads()
    assert described["processor"]


def test_without_torch_they_are_those_of_numpy() -> None:
    program = (
        "import numpy, sys; from speciate import machine; assert 'torch' not in sys.modules; print(machine.describe())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    assert f"'instructions': {found[-1] if found else ''!r}, 'threads': 3" in done.stdout


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"processor": "AMD EPYC", "instructions": "AVX512", "threads": 1}, "AMD EPYC, AVX512, 1 thread"),
        ({"processor": "AMD EPYC", "instructions": "", "threads": 4}, "AMD EPYC, 4 threads"),
    ],
)
def test_in_words(described: dict[str, object], words: str) -> None:
    assert machine.in_words(described) == words


def test_a_process_lives_until_it_is_gone_whatever_becomes_of_its_number() -> None:
    own = machine.this_process()
    assert machine.is_alive(own) is True
    assert machine.is_alive({**own, "start": own["start"] - 1}) is False  # the number is used again
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = {**own, "pid": child.pid, "start": machine.start_of(child.pid)}
        assert machine.is_alive(process) is True
        child.kill()
        while machine.is_alive(process):
            pass  # until it is a zombie, which nobody has waited for yet
        assert child.returncode is None
    assert machine.is_alive(process) is False


def test_of_a_process_elsewhere_nothing_can_be_told() -> None:
    own = machine.this_process()
    assert machine.is_alive({**own, "host": "elsewhere"}) is None
    assert machine.is_alive({**own, "namespace": "pid:[1]"}) is None  # in another container of this machine
    assert machine.is_alive({**own, "boot": "before"}) is False  # the machine was restarted
    assert machine.is_alive({**own, "pid": None}) is None
