"""Read what the data stages wrote for a study, shard by shard, for the card. A missing file is an error."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.config.stage import SPLITS
from speciate.config.stage_specs import CardDomain, CardSpec
from speciate.data.arrays.npy import read_array
from speciate.data.card.sketch import Sketch
from speciate.data.clean.pipeline import CleaningCounts
from speciate.data.documents import read_tables
from speciate.data.shard import Shard


@dataclass(frozen=True)
class StageOutputs:
    """The output folders of the stages: domain -> folder with one folder per shard, unless stated otherwise."""

    clean: Mapping[str, pathlib.Path]
    sort: Mapping[str, pathlib.Path]
    cluster: Mapping[str, pathlib.Path]
    """Scope -> folder."""
    assign_splits: Mapping[str, pathlib.Path]
    """Domain -> folder, not divided by shard."""
    write_splits: Mapping[str, pathlib.Path]
    sketch: Mapping[str, pathlib.Path]
    encode: Mapping[str, pathlib.Path]
    pack: Mapping[str, pathlib.Path]
    """Domain -> folder, not divided by shard."""
    mixture: pathlib.Path

    def cleaning_counts(self, domain: CardDomain) -> tuple[CleaningCounts, dict[str, CleaningCounts]]:
        """Return the counts of cleaning over all shards: in total, and by source."""
        total, by_source = CleaningCounts(), {name: CleaningCounts() for name in domain.sources}
        for part in shard_folders(self.clean[domain.name], domain):
            counts = read_json(part / "counts.json")
            try:
                total = total + CleaningCounts.from_json(counts)
                for name in by_source:
                    by_source[name] = by_source[name] + CleaningCounts.from_json(counts["by_source"][name])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{part / 'counts.json'}: does not hold the counts of cleaning: {error!r}") from None
        return total, by_source

    def documents_beyond_max_bytes(self, domain: CardDomain) -> int:
        """Return how many documents of all shards `sort` left out."""
        total = 0
        for part in shard_folders(self.sort[domain.name], domain):
            counts = read_json(part / "counts.json")
            if not isinstance(counts, dict) or not isinstance(counts.get("documents_left_out"), int):
                raise ValueError(f"{part / 'counts.json'}: does not hold the counts of sorting")
            total += counts["documents_left_out"]
        return total

    def word_sketch(self, domain: CardDomain, split: str) -> Sketch:
        """Return the sketch of a split's word n-grams, over all shards."""
        merged = Sketch(np.zeros(0, np.uint64))
        for part in shard_folders(self.sketch[domain.name], domain):
            merged = merged.merge(Sketch(np.array(read_array(part / f"{split}.runs.npy"))))
        return merged

    def read_text(self, domain: str, shard: str, row: int) -> tuple[str, str]:
        """Read the id and the text of one sorted document. Raises ValueError if there is no such row."""
        file, skipped = self.sort[domain] / shard / "documents.parquet", 0
        for table in read_tables(file, ["id", "text"]):
            if row < skipped + len(table):
                return table["id"][row - skipped].as_py(), table["text"][row - skipped].as_py()
            skipped += len(table)
        raise ValueError(f"{file}: has no row {row}")


def shard_folders(folder: pathlib.Path, domain: CardDomain) -> Iterator[pathlib.Path]:
    """Yield the folders of a domain's shards, in order."""
    for index in range(domain.shards):
        yield folder / str(Shard(index, domain.shards))


def compared_scopes(spec: CardSpec) -> list[str]:
    """Return the scopes of deduplication: `domains`, or each domain by itself."""
    return ["domains"] if spec.across_domains else [domain.name for domain in spec.domains]


def read_json(file: pathlib.Path) -> Any:
    """Read a JSON file. Raises ValueError naming the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def read_split_counts(file: pathlib.Path, *names: str) -> dict[str, dict[str, Any]]:
    """Read counts from a counts.json: split -> name -> value. Raises ValueError naming the missing counts."""
    content = read_json(file)
    counts = content.get("splits", content) if isinstance(content, dict) else {}
    by_split: dict[str, dict[str, Any]] = {
        split: of_split if isinstance(of_split := counts.get(split), dict) else {} for split in SPLITS
    }
    missing = [f"{split} {name}" for split in SPLITS for name in names if by_split[split].get(name) is None]
    if missing:
        raise ValueError(f"{file}: lacks the counts {', '.join(missing)}")
    return {split: {name: by_split[split][name] for name in names} for split in SPLITS}


def sum_split_counts(folders: Mapping[str, pathlib.Path], domain: CardDomain, *names: str) -> dict[str, dict[str, int]]:
    """Sum counts of a stage over a domain's shards: split -> name -> total.

    Args:
        folders: the folder of each domain, written by `write_splits`, `sketch` or `encode`.
        domain: the domain.
        names: names of the counts in counts.json.
    """
    totals = {split: dict.fromkeys(names, 0) for split in SPLITS}
    for folder in shard_folders(folders[domain.name], domain):
        for split, counts in read_split_counts(folder / "counts.json", *names).items():
            for name in names:
                totals[split][name] += counts[name]
    return totals


def read_batches(file: pathlib.Path, columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of a parquet file in batches of rows. Raises ValueError naming the file if a column is missing."""
    try:
        with pq.ParquetFile(file) as opened:
            missing = [name for name in columns if name not in opened.schema_arrow.names]
            if missing:
                raise ValueError(f"{file}: has no column {', '.join(missing)}")
            for batch in opened.iter_batches(columns=columns):
                yield pa.table(batch)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def read_rows(file: pathlib.Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet file. Raises ValueError as `read_batches` does."""
    for table in read_batches(file, columns):
        yield from table.to_pylist()
