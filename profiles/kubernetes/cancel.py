#!/usr/bin/env python3
"""Delete Jobs, when Snakemake is interrupted: `cancel.py NAMESPACE/NAME ...`."""

import subprocess
import sys

if __name__ == "__main__":
    failed = 0
    for number in sys.argv[1:]:
        namespace, _, name = number.partition("/")
        command = ["kubectl", "delete", "job", name, "--namespace", namespace, "--wait=false", "--ignore-not-found"]
        failed |= subprocess.run(command, check=False).returncode
    raise SystemExit(failed)
