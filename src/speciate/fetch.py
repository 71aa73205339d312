"""Fetch the pinned file of one source, and accept no other bytes."""

import argparse
import pathlib
import time

from speciate.kinds import component
from speciate.plan import FetchSpec
from speciate.spec import read_spec
from speciate.verb import run, say, writing


def main() -> None:
    """Command line: `python -m speciate.fetch --spec FILE --output FILE`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.fetch", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the source, as JSON")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where to put the file; only ever whole")
    options = parser.parse_args()
    spec = read_spec(FetchSpec, options.spec)
    started = time.perf_counter()
    with writing(options.output) as target:
        component(spec.source).fetch(spec.source, spec.name, target)
    size = options.output.stat().st_size / 1e6
    say(f"source {spec.name}: {size:.1f} MB in {time.perf_counter() - started:.1f} s, sha256 as pinned")


if __name__ == "__main__":
    run(main)
