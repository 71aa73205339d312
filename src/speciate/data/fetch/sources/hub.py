"""Records of a dataset on the Hugging Face hub (or the hub at HF_ENDPOINT), read with `datasets.load_dataset`.

Decision: a study pins what it reads, so `revision` is a commit. It may also be refs/convert/parquet, the hub's own
conversion of datasets that need a script; the archive then keeps the commit that it meant. No code of a dataset is ever
run. What is read (ids, groups, texts) is written at once, so nothing after `fetch` needs a network.

A shard reads every n-th of the dataset's own files; where there are fewer files, or `streaming` is off, every n-th
record. With `max_bytes` or `max_documents` one job reads the beginning of the dataset, so that what is read does not
depend on the number of shards. Downloads stay in the user's cache (HF_HOME), so that a retry continues; Arrow's copy of
them is deleted afterwards.
"""

import fnmatch
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, Strict, model_validator

from speciate.config.contracts.data import SourceOptions
from speciate.data.fetch.hub_client import PinnedDataset, call_with_retries, import_datasets, resolve_revision
from speciate.data.fetch.passages import read_passages, write_passages
from speciate.data.fetch.records import RecordParser
from speciate.data.passage import Passage
from speciate.data.shard import Shard


class Options(SourceOptions):
    """Texts of a dataset on a hub."""

    dataset: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Dataset on the hub, as owner/name."""
    name: str | None = None
    """Configuration of the dataset ('en', 'wikitext-103-raw-v1'), where it has several."""
    split: str = Field("train", pattern=r"^\w+(\.\w+)*$")
    """Split of the dataset."""
    revision: str = Field(pattern=r"^([0-9a-f]{40}|refs/convert/[A-Za-z0-9_-]+|unpinned)$")
    """Commit of the dataset, 40 hex digits. refs/convert/parquet is the hub's own conversion, for datasets that need a
    script; `unpinned` makes fetch stop and report the commit to write here."""
    data_files: Annotated[tuple[str, ...], Strict(False)] = ()
    """Globs of the files to read (`*` also matches `/`), all .parquet or all .json or .jsonl (also .gz or .zst), in
    place of those that `name` and `split` select. With them the data of a dataset that needs a script can be read
    without running the script."""
    streaming: bool = True
    """Whether to read only what is needed over the network; off, whole files are downloaded first."""
    max_bytes: int | None = Field(None, ge=1)
    """Stop after this many bytes of UTF-8 text, counted in the order of the dataset. A source with a limit is fetched
    in one job, whatever `shards` says."""
    max_documents: int | None = Field(None, ge=1)
    """Stop after this many records of the dataset. A source with a limit is fetched in one job, whatever `shards`
    says."""
    text: str = Field("text", min_length=1)
    """The column that holds the text, or a template that names columns: "{question}\\n\\n{answer}"."""
    id: str | None = None
    """The column that names a record. Without it a record is named split/file#row (split#row without streaming)."""
    group: str | None = None
    """A column whose value groups records that must stay in one split. Without it each record stands alone."""
    bad_records: Literal["refuse", "drop"] = "refuse"
    """What to do with a record that cannot be read: stop and name it, or drop it and count it under its fault."""

    @property
    def sharded(self) -> bool:
        """Whether each shard fetches a part of the source. Only one job over all of it can tell where a limit falls."""
        return self.max_bytes is None and self.max_documents is None

    @model_validator(mode="after")
    def _check_data_files(self) -> Self:
        if self.data_files and self.name is not None:
            raise ValueError("name: has no effect with data_files, which already say what is read")
        formats = {file.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2] for file in self.data_files}
        if not (formats <= {"json", "jsonl"} or formats == {"parquet"}):
            raise ValueError(f"data_files: must be all parquet or all json, not {', '.join(sorted(formats))}")
        return self


def fetch(options: Options, name: str, target: pathlib.Path, shard: Shard) -> None:
    """Write this shard's records to `target` as parquet, with dataset, commit and licence as metadata.

    Raises:
        ValueError: the hub cannot be reached, refuses, limits the rate, or has no such dataset, configuration, split,
            revision, file or column; a data file is damaged; or a record is bad (see `RecordParser.to_passage`). The
            message names the source.
    """
    parser = RecordParser(options, name)
    where = f"source {name}: dataset {options.dataset}"
    pinned = resolve_revision(options.dataset, options.revision, where)
    with tempfile.TemporaryDirectory(prefix=".arrow-", dir=target.parent) as cache:
        rows = _read_shard_rows(options, pinned, cache, shard, parser=parser, where=where)
        count = write_passages(
            target,
            _limit_passages(options, rows, parser, where=where),
            _archive_metadata(options, pinned, shard),
        )
    if not count:
        raise ValueError(f"{where}: split {options.split} has no record for shard {shard}")


def read(options: Options, name: str, archive: pathlib.Path) -> Iterator[Passage]:
    """Yield the texts that `fetch` wrote. Raise ValueError if `archive` is damaged."""
    yield from read_passages(archive)


def _archive_metadata(options: Options, pinned: PinnedDataset, shard: Shard) -> dict[str, str]:
    """Return where the archive comes from, for its metadata."""
    metadata = {"dataset": options.dataset, "revision": options.revision, "commit": pinned.commit}
    return metadata | {
        "licence": pinned.licence,
        "name": options.name or "",
        "split": options.split,
        "shard": str(shard),
    }


def _load_dataset(options: Options, pinned: PinnedDataset, cache: str, where: str) -> Any:
    """Open the dataset as a Dataset or IterableDataset."""
    load = import_datasets().load_dataset
    settings: dict[str, Any] = {"split": options.split, "streaming": options.streaming, "cache_dir": cache}
    # with the scheme in front, a local folder of the same name is never taken for the dataset
    if options.data_files:  # read by their format, so a script next to them is ignored
        path = "parquet" if options.data_files[0].endswith(".parquet") else "json"
        root = f"hf://datasets/{options.dataset}@{pinned.commit}"
        settings["data_files"] = {options.split: [f"{root}/{file}" for file in _matching_files(options, pinned, where)]}
    else:
        path = f"hf://datasets/{options.dataset}"
        settings |= {"name": options.name, "revision": pinned.commit}
    return call_with_retries(lambda: load(path, **settings), where, pinned.commit)


def _matching_files(options: Options, pinned: PinnedDataset, where: str) -> list[str]:
    """Return the dataset's files that `data_files` match, sorted; the libraries ignore a glob that matches none."""
    files: set[str] = set()
    for glob in options.data_files:
        matched = fnmatch.filter(pinned.files, glob)
        if not matched:
            raise ValueError(f"{where}: data_files: none of its {len(pinned.files)} files matches {glob}")
        files.update(matched)
    return sorted(files)


def _read_shard_rows(
    options: Options, pinned: PinnedDataset, cache: str, shard: Shard, *, parser: RecordParser, where: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield this shard's records, each with its name."""
    dataset = _load_dataset(options, pinned, cache, where)
    if dataset.column_names is not None:
        parser.check_columns(dataset.column_names, where)
        dataset = dataset.select_columns(list(parser.columns))
    if not options.streaming:
        shard_rows = dataset.shard(shard.count, shard.index, contiguous=False)
        for index, row in enumerate(_iterate_rows(shard_rows, where, pinned.commit)):
            yield f"{options.split}#{index * shard.count + shard.index + 1}", row
        return
    files = dataset.num_shards
    by_file = files >= shard.count
    counter = itertools.count()
    for file in range(shard.index, files, shard.count) if by_file else range(files):
        file_rows = dataset.shard(num_shards=files, index=file)
        for number, row in enumerate(_iterate_rows(file_rows, f"{where}: file {file}", pinned.commit), start=1):
            if by_file or next(counter) % shard.count == shard.index:
                yield f"{options.split}/{file}#{number}", row


def _iterate_rows(dataset: Any, where: str, commit: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of `dataset`; any error of the libraries becomes one ValueError."""
    rows = iter(dataset)
    next_row: Callable[[], dict[str, Any] | None] = lambda: next(rows, None)  # noqa: E731
    while (row := call_with_retries(next_row, where, commit, tries=1)) is not None:
        yield row


def _limit_passages(
    options: Options, rows: Iterator[tuple[str, dict[str, Any]]], parser: RecordParser, *, where: str
) -> Iterator[Passage]:
    """Yield the passages of `rows` up to `max_bytes` and `max_documents`."""
    bytes_left, documents_left = (
        float("inf") if limit is None else limit for limit in (options.max_bytes, options.max_documents)
    )
    for name, row in rows:
        if bytes_left <= 0 or documents_left <= 0:
            return
        passage = parser.to_passage(row, name, f"{where}: record {name}")
        bytes_left -= len((passage.text or "").encode())
        documents_left -= 1
        yield passage
