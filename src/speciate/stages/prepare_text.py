r"""Prepare a text outside training, on which finished runs are evaluated.

The text is fetched, normalised and filtered as a domain's is. Of documents with an equal text one is kept, and what the
training text holds too is left out: documents with the same words as one of it, whatever their case and punctuation,
and documents of whose runs of 13 words more than `max_overlap` occur in it. counts.json counts every drop by its
reason, and dropped.parquet has samples.

A source that cannot be fetched or read does not stop the study: the text is then empty, counts.json says why, and the
workflow tries again when it is started next.

Example:
    speciate prepare_text --spec spec.json --training train.parquet --output-folder text
"""

import argparse
import contextlib
import functools
import json
import pathlib
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal

import pydantic
from pydantic import Field

from speciate.cli import error_message, log
from speciate.config.components import OneOf, Strict
from speciate.config.contracts.data import FilterOptions, SourceOptions
from speciate.config.run import Name, read_spec
from speciate.config.stage import Stage
from speciate.data.clean.dropped import DroppedSamples, write_dropped
from speciate.data.clean.pipeline import CleaningCounts, Drop, Filter, clean_passages
from speciate.data.clean.repeated_ids import refuse_repeated_ids
from speciate.data.dedup.training_overlap import NGRAM, TrainingOverlap
from speciate.data.documents import Document, read_tables
from speciate.data.shard import Shard
from speciate.data.sorted_documents import DocumentSorter
from speciate.io import DISK_FULL, atomic_write, is_out_of_memory


class Spec(Strict):
    """What the stage reads: one text of `evaluation.texts`."""

    text: Name
    sources: dict[Name, Annotated[SourceOptions, OneOf("data/fetch/sources")]]
    licences: dict[Name, str] = {}
    filters: Annotated[tuple[Annotated[FilterOptions, OneOf("data/clean/filters")], ...], pydantic.Strict(False)] = ()
    duplicates: Literal["keep", "exact"] = "exact"
    max_bytes: int | None = Field(None, ge=1)
    max_overlap: float = Field(0, ge=0, le=1)


STAGE = Stage(
    per="text",
    reads={"write_splits": ("train.parquet",)},
    writes=("documents.parquet", "dropped.parquet", "counts.json"),
    spec=lambda graph, name: Spec(
        text=name,
        max_overlap=graph.study.evaluation.max_overlap,
        **graph.text_settings(name, "sources", "licences", "filters", "duplicates", "max_bytes"),
    ),
    sharded=False,
    missing=lambda graph, name: graph.text_problem(name),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spec", type=pathlib.Path, required=True, help="the stage's spec: the text's sources and filters"
    )
    parser.add_argument(
        "--training",
        nargs="+",
        type=pathlib.Path,
        required=True,
        help="train.parquet of every shard of every domain, from `write_splits`",
    )
    parser.add_argument(
        "--output-folder",
        type=pathlib.Path,
        required=True,
        help="where to write documents.parquet, dropped.parquet (samples) and counts.json",
    )


def fetch_sources(sources: Mapping[str, SourceOptions], folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Fetch every source into `folder`, and return its archive by its name."""
    archives = {name: folder / name for name in sources}
    for name, source in sources.items():
        source.component().fetch(source, name, archives[name], Shard())
        log(f"source {name}: {archives[name].stat().st_size / 1e6:.1f} MB")
    return archives


def read_sources(spec: Spec, counts: CleaningCounts, samples: DroppedSamples) -> list[Document]:
    """Fetch, read, normalise and filter all sources, as `clean` does; raise what their components raise."""
    compared = {name: source for options in spec.filters for name, source in options.compared_sources().items()}
    documents: list[Document] = []
    with tempfile.TemporaryDirectory() as folder:
        archives = fetch_sources({**spec.sources, **compared}, pathlib.Path(folder))
        filters: list[Filter] = [options.component().Filter(options, archives) for options in spec.filters]
        for name, source in spec.sources.items():
            read = functools.partial(source.component().read, source, name, archives[name])
            with contextlib.closing(refuse_repeated_ids(name, read)) as passages:
                documents += clean_passages(spec.text, name, passages, filters, counts=counts, samples=samples)
    return documents


def repetitions(documents: Sequence[Document]) -> Iterator[tuple[int, str]]:
    """Yield the index of each document whose text another one has, and the id of the one that is kept."""
    first: dict[str, str] = {}
    for index in sorted(range(len(documents)), key=lambda index: documents[index].id):
        kept = first.setdefault(documents[index].text, documents[index].id)
        if kept != documents[index].id:
            yield index, kept


def find_overlaps(documents: Sequence[Document], training: Sequence[pathlib.Path], limit: float) -> dict[int, Drop]:
    """Return index -> why a document is dropped, for those that the training text holds in whole or in part."""
    comparison = TrainingOverlap([document.text for document in documents])
    for file in training:
        for table in read_tables(file, ["text"]):
            comparison.add(table.column("text").to_pylist())
    overlap = comparison.result()
    drops = {}
    for index in range(len(documents)):
        share = float(overlap.share_D[index])
        if overlap.whole_D[index]:
            drops[index] = Drop("in_training", "a training document has the same words")
        elif share > limit:
            of_runs = f"of {overlap.num_runs_D[index]} runs of {NGRAM} words"
            drops[index] = Drop("overlaps_training", f"{share:.1%} {of_runs} are in the training text")
    return drops


def main(arguments: argparse.Namespace) -> None:
    """Prepare the text, and write its documents and counts."""
    spec = read_spec(Spec, arguments.spec)
    counts, samples, unavailable = CleaningCounts(), DroppedSamples(), None
    documents: list[Document] = []
    try:
        documents = read_sources(spec, counts, samples)
    except (OSError, ValueError) as error:
        if is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in DISK_FULL):
            raise
        counts, samples, unavailable = CleaningCounts(), DroppedSamples(), error_message(error)
    drops: dict[int, Drop] = {}
    if spec.duplicates == "exact":
        drops = {index: Drop("duplicate", f"has the text of {kept}") for index, kept in repetitions(documents)}
    drops |= find_overlaps(documents, arguments.training, spec.max_overlap)
    dropped = counts.dropped + Counter(drop.reason for drop in drops.values())
    for index, drop in drops.items():
        samples.add(documents[index], drop.reason, "prepare_text", drop.note)
    folder: pathlib.Path = arguments.output_folder
    sorter = DocumentSorter()
    for index, document in enumerate(documents):
        if index not in drops:
            sorter.add(document)
    with contextlib.ExitStack() as stack:
        documents_path, dropped_path, counts_path = (
            stack.enter_context(atomic_write(folder / name)) for name in STAGE.writes
        )
        (kept,) = sorter.write(documents_path, max_bytes=spec.max_bytes)
        left_out = len(sorter) - kept.documents
        if left_out:
            dropped["beyond_max_bytes"] = left_out
        write_dropped(dropped_path, samples)
        content = {
            "text": spec.text,
            "unavailable": unavailable,
            "read": counts.read,
            "documents": kept.documents,
            "bytes": kept.bytes,
            "dropped": dict(sorted(dropped.items())),
            "ngram": NGRAM,
            "max_overlap": spec.max_overlap,
            "licences": spec.licences,
        }
        counts_path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if unavailable is not None:
        log(f"text {spec.text}: IS EMPTY: {unavailable}; the study goes on, and tries again at its next start")
    else:
        log(f"text {spec.text}: {kept.documents} of {counts.read} documents; dropped {content['dropped']}")
