"""Try a failed job again as its end demands.

Snakemake tries every failed job again, as often as the rule or the profile says, and always in the same way. Here

- an error that would only come again is not tried again;
- a job that was killed for lack of memory asks for twice as much, up to the memory of the largest node;
- a training that a time limit, a preemption or its node ended goes on from its checkpoint, as often as it takes: as
  long as it gets further each time, such an end does not count as a failure;
- a job whose stage has ended well is finished, whatever became of the processes that had started it;
- of a share of jobs only those are tried again that had not ended well. What the others made stays.

Where Snakemake is not as expected here, it does as it always did.
"""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from causes import Cause, end_of
from failures import Failures, jobs_of
from memory import Memory, let_grow, limit_of

NO_FAULT = (Cause.TIME, Cause.PREEMPTED, Cause.NODE, Cause.SAVED)
"""Ends after which a training goes on."""
CLUSTER_LOGS = ".snakemake/cluster_logs"
"""Where the profile cluster-generic lets schedulers write the logs of their jobs: NAME-NUMBER.log."""


class Retries:
    """Decides on each failed job of a workflow."""

    def __init__(self, workflow: Any, failures: Failures, memory: Memory) -> None:
        self.workflow, self.failures, self.memory = workflow, failures, memory
        self.reached: dict[int, int] = {}
        """The furthest step of each training, by the number of its job."""

    def handle(self, job: Any, handle: Any, *rest: Any, **named: Any) -> None:
        """Let Snakemake handle a failed job or share, with as many attempts as are due."""
        attempts = [self.failures.attempts[each.jobid] for each in jobs_of(job) if each.jobid in self.failures.attempts]
        causes = [attempt.cause() for attempt in attempts if not attempt.is_done()]
        final = any(attempt.is_final() for attempt in attempts)
        if Cause.MEMORY in causes and not final:
            final = not self.grow(job)
        if final:
            with restarts(job, 0):
                handle(job, *rest, **named)
        elif any(cause in NO_FAULT for cause in causes) and self.advanced(job):
            before = job.attempt
            with restarts(job, before):
                handle(job, *rest, **named)
            job.attempt = before
        else:
            handle(job, *rest, **named)

    def grow(self, job: Any) -> bool:
        """Let the next attempt ask for more memory; return whether it may."""
        limit = limit_of(self.workflow)
        if limit is not None and job.resources.get("mem_mb", 0) >= limit:
            for each in jobs_of(job):
                if each.jobid in self.failures.attempts:
                    self.failures.attempts[
                        each.jobid
                    ].limit = f"it had {limit} MB, and no job may ask for more (`resources: mem_mb` in the profile)"
            return False
        for each in jobs_of(job):
            if not self.is_done(each):
                self.memory.note_kill(each.rule.name, dict(each.wildcards.items()))
        return True

    def advanced(self, job: Any) -> bool:
        """Return whether a training has got further than in any attempt before, and note how far."""
        further = False
        for each in jobs_of(job):
            attempt = self.failures.attempts.get(each.jobid)
            step = 0 if attempt is None else attempt.step()
            if step > self.reached.get(each.jobid, 0):
                self.reached[each.jobid] = step
                further = True
        return further

    def is_done(self, job: Any) -> bool:
        """Return whether a member of a failed share ended well, and all its files are there."""
        attempt = self.failures.attempts.get(job.jobid)
        return (
            attempt is not None and attempt.is_done() and all(pathlib.Path(str(file)).exists() for file in job.output)
        )

    def done(self, job: Any) -> set[Any]:
        """Return the members of a failed share that ended well; none of a job that stands alone."""
        return {each for each in jobs_of(job) if self.is_done(each)} if hasattr(job, "groupid") else set()


@contextlib.contextmanager
def restarts(job: Any, count: int) -> Iterator[None]:
    """Let the rules of a job, or of a share of jobs, have so many retries while the block runs."""
    rules = {id(each.rule): each.rule for each in jobs_of(job)}.values()
    before = [rule.restart_times for rule in rules]
    try:
        for rule in rules:
            rule.restart_times = count
        yield
    finally:
        for rule, retries in zip(rules, before, strict=True):
            rule.restart_times = retries


def keep_done(workflow: Any, share: Any, done: set[Any]) -> None:
    """Take the members that ended well out of a failed share: they are finished, and jobs that read them may begin."""
    dag = workflow.dag
    is_ready = share in dag._ready_jobs
    # a share is found by its members, so it must not stand in a set while they change
    for jobs in (dag._ready_jobs, dag._running, workflow.scheduler.failed):
        jobs.discard(share)
    is_failed = not is_ready
    share.jobs = frozenset(set(share.jobs) - done)
    for attribute in (
        "_toposorted",
        "_resources",
        "_scheduler_resources",
        "_input",
        "_output",
        "_log",
        "_all_products",
    ):
        setattr(share, attribute, None)
    share.finalize()
    for jobs in (workflow.scheduler.failed, dag._running) if is_failed else (dag._ready_jobs,):
        jobs.add(share)
    for job in done:
        dag.reason(job).mark_finished()
    dag._finished.update(done)
    waiting = [job for each in done for job in dag.depending[each] if dag.needrun(job)]
    for job in waiting:
        dag._n_until_ready[job] -= 1
    dag.update_ready([job for job in waiting if job not in share.jobs])


def note_ends(executor: Any, failures: Failures) -> None:
    """Let an executor tell `failures` what it says of a job that failed."""
    report, callback = executor.report_job_error, getattr(executor, "_callback", None)

    def report_job_error(info: Any, msg: Any = None, **named: Any) -> None:
        if callback is None:
            number = getattr(info, "external_jobid", None)
            name = str(number or "").rpartition("/")[2]
            own = pathlib.Path(CLUSTER_LOGS).glob(f"*-{name}.log") if name else ()
            logs = [*(pathlib.Path(str(log)) for log in named.get("aux_logs") or ()), *own]
            failures.note_end(info.job, [str(msg or ""), *map(end_of, logs)])
        report(info, msg, **named)

    def local_callback(info: Any, future: Any) -> None:
        error = future.exception()
        if error is not None:
            failures.note_end(info.job, [str(error)])
        callback(info, future)

    executor.report_job_error = report_job_error
    if callback is not None:
        executor._callback = local_callback


def decide(workflow: Any, failures: Failures) -> None:
    """Let the scheduler try failed jobs again as described above."""
    try:
        from snakemake.jobs import GroupJob

        scheduler = workflow.scheduler
        memory = Memory()
        retries = Retries(workflow, failures, memory)
        handle, postprocess = scheduler._handle_error, GroupJob.postprocess
        for executor in filter(None, (scheduler._executor, scheduler._local_executor)):
            note_ends(executor, failures)

        async def postprocess_apart(self: Any, error: bool = False, **named: Any) -> None:
            done = retries.done(self) if error else set()
            if not done:
                await postprocess(self, error=error, **named)
                return
            for job in self:
                named_job = {**named, "check_output_mtime": False}
                await job.postprocess(error=job not in done, **named_job)

        def handle_error(job: Any, *rest: Any, **named: Any) -> None:
            if named.get("postprocess_job", True) and all(map(retries.is_done, jobs_of(job))):
                # only what had started it was killed
                scheduler._tofinish.append(job)
                scheduler._open_jobs.release()
                for each in jobs_of(job):
                    failures.failed.pop(each.jobid, None)
                return
            done = retries.done(job)
            retries.handle(job, handle, *rest, **named)
            if done:
                keep_done(workflow, job, done)
                for each in done:
                    failures.failed.pop(each.jobid, None)

        let_grow(workflow, memory)
        GroupJob.postprocess = postprocess_apart
        scheduler._handle_error = handle_error
    except Exception as error:
        print(f"failed jobs are tried again as Snakemake does it: {error}", file=sys.stderr)
