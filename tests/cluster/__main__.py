"""Run the tests of clusters and containers: bring Slurm and Apptainer, and run pytest in namespaces of its own.

make test-cluster                                # all of them; a part that is missing fails, and is named
make test-cluster ARGS=--without-missing         # on a developer's machine: run what can be run, and say what cannot
make test-cluster ARGS='-k preempted'            # anything else goes to pytest

Slurm's daemons want their configuration in /etc/slurm and their socket in /run/munge. A mount namespace gives them both
without touching the machine's, and a process namespace ends whatever the tests leave behind.
"""

import os
import pathlib
import subprocess
import sys
import time

from tests.cluster import bring
from tests.cluster.bring import Missing

ROOT = pathlib.Path(__file__).parents[2]
TOOLS = ROOT / ".cache" / "cluster"
# what must be hidden is made where it is missing, for the time of the tests
INSIDE = """
set -e
mkdir -p /etc/slurm /run/munge
mount -t tmpfs -o mode=755 none /etc/slurm
mount -t tmpfs -o mode=755 none /run/munge
exec "$@"
"""


def image() -> None:
    """Raise Missing unless the pinned image is there or can be made."""
    try:
        done = subprocess.run([ROOT / ".envs/host/bin/python", "-m", "containers.image"], cwd=ROOT, check=False)
    except OSError as error:
        raise Missing(f"the pinned image: {error}") from None
    if done.returncode:
        raise Missing("the pinned image: `make image` failed")


def main(words: list[str]) -> int:
    """Bring what is needed, and run pytest."""
    lenient = "--without-missing" in words
    words = [word for word in words if word != "--without-missing"]
    if lenient and os.environ.get("CI"):
        print("test-cluster: error: --without-missing is for developers' machines; CI is set", file=sys.stderr)
        return 2
    began, path, missing = time.monotonic(), os.environ["PATH"], {}
    for part, brings in (
        ("slurm", (bring.slurm, bring.namespaces)),
        ("apptainer", (lambda: bring.apptainer(TOOLS / "apptainer"), image)),
    ):
        try:
            for step in brings:
                if folder := step():
                    path = f"{folder}:{path}"
        except Missing as error:
            missing[part] = str(error)
            print(f"test-cluster: {'not run' if lenient else 'error'}: {error}", file=sys.stderr)
    if missing and not lenient:
        return 1
    print(f"test-cluster: brought what is needed in {time.monotonic() - began:.0f} s", file=sys.stderr)
    given = os.environ | {"PATH": path, "SPECIATE_CLUSTER": " ".join({"slurm", "apptainer"} - set(missing)) or "none"}
    kept = f"--basetemp={TOOLS / 'tests'}"  # clones and logs stay until the next time
    tests = ["-m", "pytest", "-m", "cluster", "tests/cluster", kept, "--durations=0", "--durations-min=5", *words]
    command = [sys.executable, *tests]
    if "slurm" not in missing:
        spaces = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*spaces, "sh", "-c", INSIDE, "sh", *command]
    sys.stderr.flush()
    status = subprocess.run(command, cwd=ROOT, env=given, check=False).returncode
    for part, error in missing.items():
        print(f"test-cluster: {part} was not tested: {error}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
