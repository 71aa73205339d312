"""Test that what ended a job is read from the words of those who ended it."""

import pathlib

import pytest
from causes import TAIL, Cause, cause_of, end_of

# what Slurm 22 writes into the log of a job, as seen
TIME = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T20:18:42 DUE TO TIME LIMIT ***"
PREEMPTED = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T20:18:42 DUE TO PREEMPTION ***"
NODE = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-30T20:18:42 DUE TO NODE FAILURE, SEE SLURMCTLD LOG ***"
CANCELLED = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-30T20:18:42 ***"
CGROUP = "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the step tasks have been OOM Killed."
OLD_CGROUP = "slurmstepd: error: Detected 2 oom-kill event(s) in step 7.batch cgroup."
ACCOUNTED = "slurmstepd: error: StepId=7.0 exceeded memory limit (314572800 > 262144000), being killed"
STATUS_137 = "CalledProcessError: Command 'set -euo pipefail; speciate' returned non-zero exit status 137."


def plugin(state: str) -> str:
    """Return what the plugin for Slurm says of a job whose state it has from squeue."""
    return f"SLURM-job '7' failed, SLURM status is: '{state}'. Detailed failure reason unavailable"


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        ([plugin("OUT_OF_MEMORY")], Cause.MEMORY),
        ([plugin("FAILED"), CGROUP], Cause.MEMORY),
        ([plugin("FAILED"), OLD_CGROUP], Cause.MEMORY),
        ([plugin("FAILED"), ACCOUNTED], Cause.MEMORY),
        (["", "srun: error: n1: task 0: Out Of Memory\n" + STATUS_137], Cause.MEMORY),
        ([STATUS_137], Cause.MEMORY),  # the kernel's killer on a machine without a scheduler
        (["Command 'x' died with <Signals.SIGKILL: 9>."], Cause.MEMORY),
        (["container: OOMKilled, exit code 137"], Cause.MEMORY),
        (["speciate sort: error: Unable to allocate 3. GiB: not enough memory"], Cause.MEMORY),
        # a job that is ended for another reason is killed as well
        ([plugin("TIMEOUT")], Cause.TIME),
        ([plugin("FAILED"), f"{TIME}\n{STATUS_137}"], Cause.TIME),
        (["job: DeadlineExceeded Job was active longer than specified deadline", "exit code 137"], Cause.TIME),
        ([plugin("PREEMPTED"), STATUS_137], Cause.PREEMPTED),
        ([plugin("CANCELLED"), PREEMPTED], Cause.PREEMPTED),
        ([plugin("NODE_FAIL")], Cause.NODE),
        ([f"{NODE}\n{STATUS_137}"], Cause.NODE),
        ([plugin("CANCELLED"), f"{CANCELLED}\n{STATUS_137}"], Cause.CANCELLED),
        # a stage's own error, a bug, and nothing at all
        (["speciate clean: error: source mine: no file matches my/de"], Cause.OTHER),
        (["returned non-zero exit status 1.", "KeyError: 137"], Cause.OTHER),
        (["step 137/200, loss 3.1"], Cause.OTHER),
        ([], Cause.OTHER),
    ],
)
def test_the_cause_of_an_end(texts: list[str], cause: Cause) -> None:
    assert cause_of(texts) is cause


def test_only_the_end_of_a_log_is_read(tmp_path: pathlib.Path) -> None:
    log = tmp_path / "7.log"
    log.write_text(CGROUP + "\n" + "x" * TAIL)
    assert end_of(log) == "x" * TAIL
    assert end_of(tmp_path / "none") == ""
