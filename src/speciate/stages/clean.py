"""Read, normalise and filter the texts of one domain's sources.

Every dropped text is counted by its reason, and samples of the dropped texts are kept. The documents are written in the
order of data/sorted_documents.py, which does not depend on where they were read.

Example:
    speciate clean --spec spec.json --archive django=archive --output-folder cleaned
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import pathlib
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import Annotated, Any

import pydantic
from pydantic import Field

from speciate.cli import log, parse_named_paths
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import FilterOptions, SourceOptions
from speciate.config.run import Name, read_spec
from speciate.config.stage import Stage
from speciate.data.clean.dropped import DroppedSamples, write_dropped
from speciate.data.clean.pipeline import CleaningCounts, Filter, clean_passages
from speciate.data.clean.repeated_ids import refuse_repeated_ids
from speciate.data.documents import Document
from speciate.data.passage import Passage
from speciate.data.shard import Shard
from speciate.data.sorted_documents import DocumentSorter, Part
from speciate.io import atomic_write


class Spec(Strict):
    """What the stage reads: one domain."""

    domain: Name
    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]]
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)]
    shards: int = Field(1, ge=1)


STAGE = Stage(
    per="domain",
    reads={"fetch": ("archive",)},
    writes=("documents.parquet", "dropped.parquet", "counts.json"),
    spec=lambda graph, name: Spec(domain=name, **graph.domain_settings(name, "sources", "filters", "shards")),
)


def required_sources(spec: Spec) -> dict[str, SourceOptions]:
    """Return every source that the domain reads: its own, and those that its filters compare documents with."""
    sources = dict(spec.sources)
    for options in spec.filters:
        sources |= options.compared_sources()
    return sources


def parse_archives(pairs: list[str], spec: Spec) -> dict[str, pathlib.Path]:
    """Return the archive of every source, from NAME=PATH arguments.

    Raises:
        ValueError: the arguments do not name exactly the sources.
    """
    sources = required_sources(spec)
    message = f"--archive: domain {spec.domain} needs each of {', '.join(sources)} once, as NAME=PATH"
    return parse_named_paths(pairs, sources, message)


class ShardCleaning:
    """Clean one shard of one domain: yield its documents, count them, and sample what is dropped."""

    def __init__(self, spec: Spec, archives: Mapping[str, pathlib.Path], shard: Shard) -> None:
        if shard.count != spec.shards:
            raise ValueError(f"--shard: {shard} of domain {spec.domain}, which has {spec.shards}")
        self.spec = spec
        self.archives = archives
        self.shard = shard
        self.counts = {name: CleaningCounts() for name in spec.sources}
        self.samples = DroppedSamples()

    @property
    def total(self) -> CleaningCounts:
        """The counts of all sources together."""
        return sum(self.counts.values(), CleaningCounts())

    def documents(self) -> Iterator[Document]:
        """Yield the kept documents of all sources, in the order of the spec; each filter sees the whole shard."""
        filters: list[Filter] = [options.component().Filter(options, self.archives) for options in self.spec.filters]
        for name, source in self.spec.sources.items():
            counts = self.counts[name]
            read = functools.partial(self._read_passages, name, source)
            with contextlib.closing(refuse_repeated_ids(name, read)) as passages:
                yield from clean_passages(
                    self.spec.domain, name, passages, filters, counts=counts, samples=self.samples
                )
            kept = f"{counts.kept} of {counts.read} texts, {counts.bytes_kept / 1e6:.2f} MB"
            log(f"domain {self.spec.domain}: source {name}: {kept}")

    def _read_passages(self, name: str, source: SourceOptions) -> Generator[Passage, None, None]:
        """Yield the passages of this shard: all of an archive that holds only the shard, else every n-th."""
        passages: Iterable[Passage] = source.component().read(source, name, self.archives[name])
        if not source.sharded:
            passages = itertools.islice(passages, self.shard.index, None, self.shard.count)
        yield from passages

    def as_json(self, parts: Iterable[Part]) -> dict[str, Any]:
        """Return counts.json: the shard's totals, the counts of each source, and the parts of documents.parquet."""
        by_source = {name: counts.as_json() for name, counts in self.counts.items()}
        return {**self.total.as_json(), "by_source": by_source, "parts": [dataclasses.asdict(part) for part in parts]}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=pathlib.Path, required=True, help="the stage's spec: the domain's sources and filters"
    )
    parser.add_argument(
        "--archive",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="the archive of a source; once for each source of the domain and of its filters",
    )
    parser.add_argument(
        "--shard",
        default="0-of-1",
        metavar="K-of-N",
        help="which shard of the domain, counted from 0 (default: %(default)s)",
    )
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        metavar="DIR",
        help="where to write documents.parquet, dropped.parquet (samples) and counts.json",
    )


def main(arguments: argparse.Namespace) -> None:
    """Clean one shard, and write its documents and counts."""
    spec = read_spec(Spec, arguments.spec)
    cleaning = ShardCleaning(spec, parse_archives(arguments.archive, spec), Shard.parse(arguments.shard))
    started = time.perf_counter()
    folder: pathlib.Path = arguments.output_folder
    with contextlib.ExitStack() as stack:
        documents, dropped, counts = (
            stack.enter_context(atomic_write(folder / name))
            for name in ("documents.parquet", "dropped.parquet", "counts.json")
        )
        sorter = DocumentSorter()
        for document in cleaning.documents():
            sorter.add(document)
        kept, parts = len(sorter), sorter.write(documents, spec.shards)
        total = cleaning.total
        reasons = dict(sorted(total.dropped.items()))
        if not kept and spec.shards == 1:  # one of several shards may be empty; assign_splits refuses an empty domain
            raise ValueError(
                f"domain {spec.domain}: no documents are left (texts read: {total.read}; dropped: {reasons})"
            )
        write_dropped(dropped, cleaning.samples)
        counts.write_text(json.dumps(cleaning.as_json(parts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    log(f"domain {spec.domain}: {kept} documents in {time.perf_counter() - started:.1f} s; dropped {reasons}")
