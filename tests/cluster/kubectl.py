#!/usr/bin/env python3
"""Stand in for kubectl: keep every manifest in the folder KUBECTL_FOLDER, and run each Job's command on this machine.

A volume claim is taken to be the folder in which the tests run. Nothing that Snakemake's profile does not ask for is
understood.
"""

import json
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(os.environ["KUBECTL_FOLDER"])


def create() -> None:
    """Keep the manifest on standard input, and start its one container as a process."""
    job = json.load(sys.stdin)
    name = job["metadata"]["name"]
    with (FOLDER / f"{name}.json").open("x") as file:
        json.dump(job, file)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container.get("env", [])}
    ended = f'"$@"; echo $? > {FOLDER / name}.ended'
    with (FOLDER / f"{name}.log").open("w") as log:
        subprocess.Popen(
            ["/bin/sh", "-c", ended, "sh", *container["command"]],
            cwd=container["workingDir"],
            env={key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | variables,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def get(name: str) -> None:
    """Print a Job with its state."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        raise SystemExit(f'Error from server (NotFound): jobs.batch "{name}" not found')
    ended = FOLDER / f"{name}.ended"
    status = {"active": 1}
    if ended.exists() and ended.read_text().strip():
        status = {"succeeded": 1} if ended.read_text().strip() == "0" else {"failed": 1}
    print(json.dumps({**json.loads(file.read_text()), "status": status}))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["create", "-f", "-"]:
            create()
        case ["get", "job", name, "--namespace", _, "-o", "json"]:
            get(name)
        case ["get", "pods", *_]:
            print(json.dumps({"kind": "PodList", "items": []}))
        case other:
            raise SystemExit(f"kubectl stand-in: {other}")
