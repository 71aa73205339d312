#!/usr/bin/env python3
"""Print `running`, `success` or `failed` for a Job: `status.py NAMESPACE/NAME`.

Of a failed Job, why its pod ended is noted where the workflow looks for it: .snakemake/cluster_logs/.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

LOGS = pathlib.Path(".snakemake/cluster_logs")


def ask(*words: str) -> Any:
    """Return what kubectl says as JSON; None where it does not answer."""
    try:
        done = subprocess.run(
            ["kubectl", *words, "-o", "json"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return {"missing": True} if "NotFound" in done.stderr else None
    return json.loads(done.stdout)


def status_of(job: dict[str, Any] | None) -> str:
    """Return the word that Snakemake wants. A Job that is gone has failed: it was deleted before it was seen to end."""
    if job is None:
        return "running"
    state = job.get("status", {})
    if job.get("missing") or state.get("failed"):
        return "failed"
    return "success" if state.get("succeeded") else "running"


def reasons(job: dict[str, Any], pods: dict[str, Any]) -> list[str]:
    """Return why a Job and its pods ended, such as DeadlineExceeded, OOMKilled or Evicted."""
    lines = [f"job: {each.get('reason', '')} {each.get('message', '')}" for each in job["status"].get("conditions", [])]
    for pod in pods.get("items", []):
        lines.append(f"pod: {pod['status'].get('reason', '')} {pod['status'].get('message', '')}")
        for container in pod["status"].get("containerStatuses", []):
            end = container.get("state", {}).get("terminated")
            if end:
                lines.append(f"container: {end.get('reason', '')}, exit code {end['exitCode']}")
    return lines


def main(number: str) -> None:
    """Print the status."""
    namespace, _, name = number.partition("/")
    job = ask("get", "job", name, "--namespace", namespace)
    status = status_of(job)
    if status == "failed" and job is not None and "status" in job:
        pods = ask("get", "pods", "--namespace", namespace, "--selector", f"job-name={name}") or {}
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"pod-{name}.log").write_text("\n".join(reasons(job, pods)) + "\n")
    print(status)


if __name__ == "__main__":
    main(sys.argv[1])
