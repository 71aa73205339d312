"""Test what `make test-cluster` does where a part is missing; it must never be silently green."""

import subprocess

import pytest
from tests.cluster import __main__ as command
from tests.cluster import bring


class Ran:
    """Stands for pytest: remembers how it was called, and passes."""

    def __init__(self) -> None:
        self.command: list[str] = []
        self.parts = ""

    def __call__(self, words: list[str], **given: object) -> subprocess.CompletedProcess[str]:
        environment = given["env"]
        assert isinstance(environment, dict)
        self.command, self.parts = words, environment["SPECIATE_CLUSTER"]
        return subprocess.CompletedProcess(words, 0)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> Ran:
    """Let every part be there, and no pytest be started."""
    ran = Ran()
    monkeypatch.setattr(subprocess, "run", ran)
    for name in ("slurm", "namespaces"):
        monkeypatch.setattr(bring, name, lambda: None)
    monkeypatch.setattr(bring, "apptainer", lambda folder: None)
    monkeypatch.setattr(command, "image", lambda: None)
    monkeypatch.delenv("CI", raising=False)
    return ran


def lose(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    def missing(*_: object) -> None:
        raise bring.Missing(f"{part}: not installed, and only root can install it")

    monkeypatch.setattr(bring, part, missing)


def test_with_every_part_pytest_runs_in_namespaces_of_its_own(ran: Ran) -> None:
    assert command.main(["-k", "preempted"]) == 0
    assert set(ran.parts.split()) == {"slurm", "apptainer"}
    assert ran.command[0] == "unshare" and "--mount" in ran.command and "--pid" in ran.command
    assert ran.command[-2:] == ["-k", "preempted"]


@pytest.mark.parametrize("part", ["slurm", "apptainer"])
def test_a_missing_part_fails_and_is_named(
    part: str, ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(monkeypatch, part)
    assert command.main([]) == 1
    assert not ran.command
    assert f"test-cluster: error: {part}: not installed" in capsys.readouterr().err


def test_without_missing_runs_the_rest_and_says_what_was_not_run(
    ran: Ran, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(monkeypatch, "slurm")
    assert command.main(["--without-missing"]) == 0
    assert ran.parts == "apptainer" and ran.command[0] != "unshare"
    assert capsys.readouterr().err.splitlines()[-1].startswith("test-cluster: slurm was not tested: slurm: not instal")


def test_continuous_integration_may_leave_nothing_out(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert command.main(["--without-missing"]) == 2
    assert not ran.command
