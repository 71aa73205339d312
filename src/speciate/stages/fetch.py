"""Fetch one source, or one shard of it, exactly as its study pins it: the archive that `clean` reads."""

import argparse
import pathlib
import time

from speciate.cli import log, run
from speciate.config.components import component_module
from speciate.config.run import read_spec
from speciate.config.stage_specs import FetchSpec
from speciate.data.documents import Shard
from speciate.io import atomic_write


def main() -> None:
    """Command line: `python -m speciate.stages.fetch --spec FILE --output FILE [--shard k-of-n]`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.stages.fetch", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the source, as JSON")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="where to put the archive; only ever whole")
    parser.add_argument("--shard", default="0-of-1", help="which share of a source that can be shared out: 0-of-8")
    options = parser.parse_args()
    spec, shard = read_spec(FetchSpec, options.spec), Shard.parse(options.shard)
    if shard.count > 1 and not getattr(spec.source, "sharded", False):
        raise ValueError(f"--shard: source {spec.name}: kind {spec.source.kind} is fetched whole, not in {shard.count}")
    started = time.perf_counter()
    with atomic_write(options.output) as target:
        component_module(spec.source).fetch(spec.source, spec.name, target, shard)
    size = options.output.stat().st_size / 1e6
    part = f", shard {shard}" if shard.count > 1 else ""
    log(f"source {spec.name}{part}: {size:.1f} MB in {time.perf_counter() - started:.1f} s, as pinned")


if __name__ == "__main__":
    run(main)
