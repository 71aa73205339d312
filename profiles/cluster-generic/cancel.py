#!/usr/bin/env python3
"""End jobs, when Snakemake is interrupted: `cancel.py NUMBER ...`."""

import subprocess
import sys

if __name__ == "__main__":
    raise SystemExit(subprocess.run(["scancel", *sys.argv[1:]], check=False).returncode)
