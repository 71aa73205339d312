#!/usr/bin/env python3
"""Run a job script of Snakemake as a Job of Kubernetes, and print NAMESPACE/NAME of the Job.

Snakemake writes what the job asks for into the script's line `# properties = {...}`. `--dry-run` prints the manifest
instead of sending it.
"""

import argparse
import hashlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import time
from typing import Any

GRACE_SECONDS = 120
"""Seconds between the signal to end and the kill; a training saves its checkpoint in them."""
KEPT_SECONDS = 86_400
"""Seconds for which the cluster keeps a finished Job."""
# the first process of a container gets the signal alone, and passes it on to all
COMMAND = (
    "trap 'kill -TERM -1' TERM; sh {script} & job=$!; wait $job; end=$?; "
    "while kill -0 $job 2>/dev/null; do wait $job; end=$?; done; exit $end"
)


def name_of(properties: dict[str, Any], script: pathlib.Path) -> str:
    """Return a name that Kubernetes takes: rule and wildcards, or the share, and a digest that makes it unique."""
    values = [str(value) for key, value in (properties.get("wildcards") or {}).items() if key != "key"]
    words = "-".join([str(properties.get("rule") or properties.get("groupid")), *values]).lower()
    unique = hashlib.sha256(f"{script} {time.time_ns()}".encode()).hexdigest()[:10]
    return re.sub(r"[^a-z0-9]+", "-", words)[:45].strip("-") + f"-{unique}"


def manifest(properties: dict[str, Any], script: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the Job that runs a script."""
    asked = {"mem_mb": 2000, "runtime": 60, **properties.get("resources", {})}
    cores = int(properties.get("threads", 1))
    needs = {"cpu": str(cores), "memory": f"{asked['mem_mb']}M"}
    if asked.get("gpu"):
        needs["nvidia.com/gpu"] = str(asked["gpu"])
    claim, _, path = options.claim.partition(":")
    container = {
        "name": "snakemake",
        "image": options.image,
        "command": ["/bin/sh", "-c", COMMAND.format(script=shlex.quote(str(script)))],
        "workingDir": str(pathlib.Path.cwd()),
        "env": [{"name": "SPECIATE_CORES", "value": str(cores)}],
        "resources": {"requests": needs, "limits": needs},
        "volumeMounts": [{"name": "study", "mountPath": path}],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": [{"name": "study", "persistentVolumeClaim": {"claimName": claim}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name_of(properties, script),
            "namespace": options.namespace,
            "labels": {"app": "speciate"},
        },
        "spec": {
            # another attempt is Snakemake's business
            "backoffLimit": 0,
            "activeDeadlineSeconds": 60 * int(asked["runtime"]),
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": {"app": "speciate"}}, "spec": pod},
        },
    }


def check(options: argparse.Namespace) -> None:
    """End with a message where no Job could be made."""
    if not shutil.which("kubectl"):
        raise SystemExit("profiles/kubernetes calls kubectl, which is not in PATH here")
    if options.image.startswith("registry.example.org/"):
        raise SystemExit(
            "profiles/kubernetes/config.yaml names no image of yours yet: edit --image, --claim, --namespace"
        )
    claim, _, path = options.claim.partition(":")
    if not claim or not pathlib.Path.cwd().is_relative_to(path or "."):
        raise SystemExit(f"--claim {options.claim}: Snakemake must be started on the claim's volume, CLAIM:PATH")


def main() -> None:
    """Send the Job."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", type=pathlib.Path, nargs="?", help="Snakemake's job script")
    parser.add_argument("--namespace", required=True, help="the namespace of the Jobs")
    parser.add_argument("--claim", required=True, help="CLAIM:PATH, the volume claim and where pods mount it")
    parser.add_argument("--image", required=True, help="the image of the pods, NAME@DIGEST")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest and send nothing")
    parser.add_argument("--check", action="store_true", help="say what is missing, before the first job")
    options = parser.parse_args()
    if options.check:
        check(options)
        return
    lines = options.script.read_text().splitlines()
    line = next(line for line in lines if line.startswith("# properties = "))
    job = manifest(json.loads(line.partition("=")[2]), options.script.absolute(), options)
    if options.dry_run:
        print(json.dumps(job, indent=1))
        return
    sending = subprocess.run(
        ["kubectl", "create", "-f", "-"], input=json.dumps(job), text=True, stdout=subprocess.DEVNULL
    )
    if sending.returncode:
        raise SystemExit(sending.returncode)
    print(f"{job['metadata']['namespace']}/{job['metadata']['name']}")


if __name__ == "__main__":
    main()
