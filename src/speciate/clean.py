"""Read the texts of a domain's sources, normalise and filter them, and count what is dropped and why."""

import argparse
import json
import pathlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping

from speciate.data.cleaning import Counts, Filter, clean
from speciate.data.documents import Document, write_documents
from speciate.kinds import component
from speciate.plan import CleanSpec
from speciate.spec import read_spec
from speciate.verb import run, say, writing


def named_archives(pairs: list[str], spec: CleanSpec) -> dict[str, pathlib.Path]:
    """The archive of every source, from NAME=PATH arguments. Raises ValueError unless they name exactly the sources."""
    archives = {name: pathlib.Path(path) for name, _, path in (pair.partition("=") for pair in pairs)}
    if sorted(archives) != sorted(spec.sources) or len(archives) < len(pairs):
        raise ValueError(f"--archive: domain {spec.domain} needs each of {', '.join(spec.sources)} once, as NAME=PATH")
    return archives


def documents(
    spec: CleanSpec, archives: Mapping[str, pathlib.Path], counts: Mapping[str, Counts]
) -> Iterator[Document]:
    """The kept documents of all sources, in the order of the study file; filters see the whole domain."""
    filters: list[Filter] = [component(options).Filter(options) for options in spec.filters]
    for name, source in spec.sources.items():
        passages = component(source).read(source, name, archives[name])
        yield from clean(spec.domain, name, passages, filters, counts[name])
        here = counts[name]
        say(f"domain {spec.domain}: source {name}: {here.kept} of {here.read} texts, {here.bytes_kept / 1e6:.2f} MB")


def summed(counts: Mapping[str, Counts]) -> dict[str, object]:
    """counts.json: the domain's totals, and the same by source."""
    total = Counts(dropped=sum((each.dropped for each in counts.values()), Counter()))
    for each in counts.values():
        total.read += each.read
        total.kept += each.kept
        total.bytes_read += each.bytes_read
        total.bytes_kept += each.bytes_kept
    return {**total.as_json(), "by_source": {name: each.as_json() for name, each in counts.items()}}


def main() -> None:
    """Command line: `python -m speciate.clean --spec FILE --archive NAME=PATH ... --documents FILE --counts FILE`."""
    parser = argparse.ArgumentParser(prog="python -m speciate.clean", description=__doc__)
    parser.add_argument("--spec", type=pathlib.Path, required=True, help="the domain, as JSON")
    parser.add_argument(
        "--archive", action="append", required=True, metavar="NAME=PATH", help="a source's file, for each source"
    )
    parser.add_argument("--documents", type=pathlib.Path, required=True, help="parquet file to write")
    parser.add_argument("--counts", type=pathlib.Path, required=True, help="JSON to write: read, kept, dropped")
    options = parser.parse_args()
    spec = read_spec(CleanSpec, options.spec)
    archives = named_archives(options.archive, spec)
    counts = {name: Counts() for name in spec.sources}
    started = time.perf_counter()
    with writing(options.documents) as target:
        kept = write_documents(target, documents(spec, archives, counts))
        total = summed(counts)
        if not kept:
            raise ValueError(f"domain {spec.domain}: no text is left of {total['read']}; dropped: {total['dropped']}")
        with writing(options.counts) as aside:
            aside.write_text(json.dumps(total, indent=1) + "\n", encoding="utf-8")
    say(f"domain {spec.domain}: {kept} documents in {time.perf_counter() - started:.1f} s; dropped {total['dropped']}")


if __name__ == "__main__":
    run(main)
