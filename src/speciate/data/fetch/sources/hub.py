"""Records of a dataset on the Hugging Face hub (or whatever HF_ENDPOINT names), through `datasets.load_dataset`.

Decision: a study pins what it reads, so `revision` is a commit. refs/convert/parquet, the hub's own conversion of
datasets that need a script, may be named too, and the commit that it meant is kept in the archive. No code of a dataset
is ever run. What is read is written down at once (ids, groups, texts), so nothing after `fetch` needs a network.

A shard reads every n-th of the dataset's own files, or every n-th record where those are fewer, or `streaming` is off.
Downloads stay in the user's cache (HF_HOME), so that a retry goes on; Arrow's copy of them is deleted afterwards.
"""

import fnmatch
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, model_validator

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch.hub_client import PinnedDataset, import_datasets, call_with_retries, resolve_revision
from speciate.data.fetch.passages import read_passages, write_passages
from speciate.data.fetch.records import RecordParser
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts of a dataset on a hub."""

    sharded: ClassVar[bool] = True

    dataset: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
    """owner/name."""
    name: str | None = None
    """One of its configurations ('en', 'wikitext-103-raw-v1'), where it has several."""
    split: str = Field("train", pattern=r"^\w+(\.\w+)*$")
    """One of its splits."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|refs/convert/[A-Za-z0-9_-]+|unpinned)$")
    """The commit, 40 hex digits. refs/convert/parquet is the hub's own conversion, for datasets that need a script;
    `unpinned` makes fetch stop and say which commit to write here."""
    data_files: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of the files to read (`*` also matches `/`), all .parquet or all .json or .jsonl (also .gz or .zst), in
    place of those that `name` and `split` mean; this also reads the data of a dataset whose script is not run."""
    streaming: bool = True
    """Read what is needed over the network; off, download whole files first."""
    max_bytes: int | None = Field(None, ge=1)
    """Stop once so much text has been read, in bytes of UTF-8; each shard reads its share."""
    max_documents: int | None = Field(None, ge=1)
    """Stop after so many records; each shard reads its share."""
    text: str = Field("text", min_length=1)
    """The column that holds the text, or a template that names columns: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The column that names a record; without one it is called split/file#row (split#row without streaming)."""
    group: str | None = None
    """A column whose value groups records that must not straddle a split; without one each stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """A record that cannot be read: stop there and name it, or drop and count it under its fault."""

    @model_validator(mode="after")
    def _check_data_files(self) -> Self:
        if self.data_files and self.name is not None:
            raise ValueError("name: has no effect beside data_files, which already say what is read")
        formats = {file.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2] for file in self.data_files}
        if not (formats <= {"json", "jsonl"} or formats == {"parquet"}):
            raise ValueError(f"data_files: must be all parquet or all json, not {', '.join(sorted(formats))}")
        return self


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Writes this shard's records to `target`, as parquet, with dataset, commit and licence as metadata.

    Raises:
        ValueError: the hub cannot be reached, refuses, limits the rate, or has no such dataset, configuration, split,
            revision, file or column; a data file is damaged; a record is (see `Records.passage`). Names the source.
    """
    records = RecordParser(options, name)
    where = f"source {name}: dataset {options.dataset}"
    pinned = resolve_revision(options.dataset, options.revision, where)
    with tempfile.TemporaryDirectory(prefix=".arrow-", dir=target.parent) as cache:
        rows = _read_shard_rows(options, pinned, cache, shard, records, where)
        count = write_passages(target, _limit_passages(options, rows, shard, records, where), _archive_metadata(options, pinned, shard))
    if not count:
        raise ValueError(f"{where}: split {options.split} has no record for shard {shard}")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """The texts that `fetch` wrote. Raises ValueError where `archive` is damaged."""
    yield from read_passages(archive)


def _archive_metadata(options: Options, pinned: PinnedDataset, shard: Shard) -> dict[str, str]:
    """What the archive says of itself."""
    said = {"dataset": options.dataset, "revision": options.revision, "commit": pinned.commit}
    return said | {"licence": pinned.licence, "name": options.name or "", "split": options.split, "shard": str(shard)}


def _load_dataset(options: Options, pinned: PinnedDataset, cache: str, where: str) -> Any:
    """The Dataset or IterableDataset."""
    load = import_datasets().load_dataset
    settings: dict[str, Any] = {"split": options.split, "streaming": options.streaming, "cache_dir": cache}
    # with the scheme in front a folder of the same name here is never taken for the dataset
    if options.data_files:  # read by their format, so a script beside them does not matter
        path = "parquet" if options.data_files[0].endswith(".parquet") else "json"
        root = f"hf://datasets/{options.dataset}@{pinned.commit}"
        settings["data_files"] = {options.split: [f"{root}/{file}" for file in _matching_files(options, pinned, where)]}
    else:
        path = f"hf://datasets/{options.dataset}"
        settings |= {"name": options.name, "revision": pinned.commit}
    return call_with_retries(lambda: load(path, **settings), where, pinned.commit)


def _matching_files(options: Options, pinned: PinnedDataset, where: str) -> list[str]:
    """The dataset's files that `data_files` match, sorted; the libraries say nothing of a glob that matches none."""
    found: set[str] = set()
    for glob in options.data_files:
        matched = fnmatch.filter(pinned.files, glob)
        if not matched:
            raise ValueError(f"{where}: data_files: none of its {len(pinned.files)} files matches {glob}")
        found.update(matched)
    return sorted(found)


def _read_shard_rows(
    options: Options, pinned: PinnedDataset, cache: str, shard: Shard, records: RecordParser, where: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """This shard's records, each with its name."""
    dataset = _load_dataset(options, pinned, cache, where)
    if dataset.column_names is not None:
        records.check_columns(dataset.column_names, where)
        dataset = dataset.select_columns(list(records.columns))
    if not options.streaming:
        part = dataset.shard(shard.count, shard.index, contiguous=False)
        for index, row in enumerate(_iterate_rows(part, where, pinned.commit)):
            yield f"{options.split}#{index * shard.count + shard.index + 1}", row
        return
    files = dataset.num_shards
    by_file = files >= shard.count
    count = itertools.count()
    for file in range(shard.index, files, shard.count) if by_file else range(files):
        one = dataset.shard(num_shards=files, index=file)
        for number, row in enumerate(_iterate_rows(one, f"{where}: file {file}", pinned.commit), start=1):
            if by_file or next(count) % shard.count == shard.index:
                yield f"{options.split}/{file}#{number}", row


def _iterate_rows(dataset: Any, where: str, commit: str) -> Iterator[dict[str, Any]]:
    """The rows of `dataset`; whatever the libraries raise on the way becomes one ValueError."""
    rows = iter(dataset)
    following: Callable[[], dict[str, Any] | None] = lambda: next(rows, None)  # noqa: E731
    while (row := call_with_retries(following, where, commit, tries=1)) is not None:
        yield row


def _limit_passages(
    options: Options, rows: Iterator[tuple[str, dict[str, Any]]], shard: Shard, records: RecordParser, where: str
) -> Iterator[Passage]:
    """The passages of `rows` up to this shard's share of `max_bytes` and `max_documents`."""
    bytes_left, documents_left = _shard_share(options.max_bytes, shard), _shard_share(options.max_documents, shard)
    for name, row in rows:
        if bytes_left <= 0 or documents_left <= 0:
            return
        passage = records.to_passage(row, name, f"{where}: record {name}")
        bytes_left -= len((passage.text or "").encode())
        documents_left -= 1
        yield passage


def _shard_share(total: int | None, shard: Shard) -> float:
    """This shard's share of `total`; the shares add up to it."""
    return float("inf") if total is None else total // shard.count + (shard.index < total % shard.count)
