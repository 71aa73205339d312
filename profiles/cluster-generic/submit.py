#!/usr/bin/env python3
"""Submit a job script of Snakemake and print the number of the job: `submit.py JOBSCRIPT`.

Snakemake writes what the job asks for into the script's line `# properties = {...}`. For another scheduler, change the
command in `submit`; it must print the number of the job, and nothing else, on its first line.
"""

import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

COMMANDS = ("sbatch", "squeue", "scancel")
"""What the scripts here call; `submit.py --check` looks for them before the first job."""
LOGS = pathlib.Path(".snakemake/cluster_logs")
"""The scheduler's logs, NAME-NUMBER.log, which are searched for the cause of a failure; and each job's exit status."""


def submit(name: str, script: str, asked: dict[str, int]) -> list[str]:
    """Return the command that submits a job; `%j` is the number that Slurm gives to it."""
    gpus = [f"--gpus={asked['gpu']}"] if asked.get("gpu") else []
    return [
        *("sbatch", "--parsable", f"--job-name={name}", f"--output={LOGS}/{name}-%j.log"),
        *(f"--cpus-per-task={asked['threads']}", f"--mem={asked['mem_mb']}M", f"--time={asked['runtime']}", *gpus),
        # two minutes before its time limit a training is told to save; Snakemake then submits it again, and it goes on
        *("--signal=USR1@120", f"--wrap={script}"),
    ]


def name_of(properties: dict[str, object]) -> str:
    """Return what the job is called in the queue: rule and wildcards, or its share."""
    wildcards = properties.get("wildcards") or {}
    assert isinstance(wildcards, dict)
    values = [str(value) for key, value in wildcards.items() if key != "key"]
    words = [str(properties.get("rule") or properties.get("groupid")), *values]
    return re.sub(r"[^A-Za-z0-9_.+-]", "_", ".".join(words))


def main(jobscript: str) -> None:
    """Submit the script."""
    line = next(line for line in pathlib.Path(jobscript).read_text().splitlines() if line.startswith("# properties = "))
    properties = json.loads(line.partition("=")[2])
    asked = {"mem_mb": 2000, "runtime": 60, **properties.get("resources", {}), "threads": properties.get("threads", 1)}
    LOGS.mkdir(parents=True, exist_ok=True)
    # how it ended is noted for schedulers that soon forget a job (status.py)
    script = f"SPECIATE_CORES={asked['threads']} sh {shlex.quote(jobscript)}; end=$?"
    script += f"; echo $end > {LOGS}/$SLURM_JOB_ID.end; exit $end"
    done = subprocess.run(submit(name_of(properties), script, asked), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    print(done.stdout.strip().partition(";")[0])


def check() -> None:
    """Say what is missing, before the first job."""
    missing = [name for name in COMMANDS if not shutil.which(name)]
    if missing:
        raise SystemExit(
            f"profiles/cluster-generic calls {', '.join(missing)}, not in PATH here; edit the scripts there"
        )


if __name__ == "__main__":
    check() if sys.argv[-1] == "--check" else main(sys.argv[-1])
