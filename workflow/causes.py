"""Find out what ended a job, from everything that was written about it.

No source is always there: `sacct` needs a database that many clusters lack, a job that was killed writes nothing more,
and only local jobs have an exit status. So the words are looked for in all of them: what the executor says of the job
(Slurm's state, Kubernetes' reason), the scheduler's own log of the job, where slurmstepd writes why it killed it, and
the job's log.
"""

import pathlib
import re
from collections.abc import Iterable
from enum import Enum

TAIL = 1 << 16
"""Bytes of a log's end that are read."""


class Cause(Enum):
    """What ended a job."""

    TIME = "it reached its time limit"
    PREEMPTED = "another job took its place (preemption)"
    NODE = "its node failed"
    MEMORY = "it was killed for lack of memory"
    SAVED = "it was told to end, and saved"
    CANCELLED = "it was cancelled"
    OTHER = ""


WORDS = (
    # slurmstepd and the states of squeue and sacct. A job that is cancelled for one of these reasons says so as well.
    (Cause.TIME, r"DUE TO TIME LIMIT|status is: '(TIMEOUT|DEADLINE)'|DeadlineExceeded"),
    (Cause.PREEMPTED, r"DUE TO PREEMPTION|status is: 'PREEMPTED'|Preempted|Evicted"),
    (Cause.NODE, r"DUE TO NODE FAILURE|status is: '(NODE_FAIL|BOOT_FAIL)'|NodeLost"),
    (
        Cause.MEMORY,
        # the kernel's killer in a cgroup (Slurm 20 and later), the same in a job's state, Slurm's own accounting
        # (OverMemoryKill), Kubernetes, and what a stage says whose allocation is refused
        r"oom[-_]kill|status is: 'OUT_OF_MEMORY'|[Ee]xceeded (job |step )?memory limit|memory limit \(\d+ > \d+\)"
        r"|OOMKilled|^speciate \w+: error: .*(not enough memory|can't allocate memory|MemoryError)",
    ),
    # a training that was told in time (`sbatch --signal`)
    (Cause.SAVED, r"^speciate train: .* received; saved, and the same command resumes the run$"),
    (Cause.CANCELLED, r"status is: 'CANCELLED'|\*\*\* (JOB|STEP) \S+ .*CANCELLED AT"),
    # 128 + 9: the kernel's killer where nobody else reports it
    (Cause.MEMORY, r"exit (status|code) (137|-9)\b|Signals\.SIGKILL|\(137\)"),
)
"""What each cause is known by, the surest first."""


def cause_of(texts: Iterable[str]) -> Cause:
    """Return what ended a job, of which these texts tell."""
    everything = "\n".join(texts)
    return next((cause for cause, words in WORDS if re.search(words, everything, re.MULTILINE)), Cause.OTHER)


def end_of(file: pathlib.Path) -> str:
    """Return the end of a log; empty where there is none."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, log.seek(0, 2) - TAIL))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
