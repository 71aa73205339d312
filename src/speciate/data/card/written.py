"""What the data stages wrote of a study, shard by shard, for the card. A file that is not there is an error."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from speciate.config.stage_specs import SPLITS, CardDomain, CardSpec
from speciate.data.arrays.npy import read_array
from speciate.data.card.sketch import Sketch
from speciate.data.clean.pipeline import Counts
from speciate.data.documents import Shard, read_tables


@dataclass(frozen=True)
class Written:
    """The folders of the stages: domain -> folder that holds the shards' folders, where nothing else is said."""

    clean: Mapping[str, pathlib.Path]
    cluster: Mapping[str, pathlib.Path]
    """Scope -> folder."""
    assign_splits: Mapping[str, pathlib.Path]
    """Domain -> folder, not by shard."""
    write_splits: Mapping[str, pathlib.Path]
    sketch: Mapping[str, pathlib.Path]
    encode: Mapping[str, pathlib.Path]
    pack: Mapping[str, pathlib.Path]
    mixture: pathlib.Path

    def cleaned(self, domain: CardDomain) -> tuple[Counts, dict[str, Counts]]:
        """What cleaning counted, over all shards, and the same by source."""
        total, by_source = Counts(), {name: Counts() for name in domain.sources}
        for part in parts(self.clean[domain.name], domain):
            told = read_json(part / "counts.json")
            try:
                total = total + Counts.from_json(told)
                for name in by_source:
                    by_source[name] = by_source[name] + Counts.from_json(told["by_source"][name])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{part / 'counts.json'}: holds no counts of cleaning: {error!r}") from None
        return total, by_source

    def numbers(self, stage: str, domain: CardDomain, *names: str) -> dict[str, dict[str, int]]:
        """Split -> name -> a number of divide's, sketch's, encode's or pack's counts.json, summed over shards."""
        totals = {split: dict.fromkeys(names, 0) for split in SPLITS}
        for part in parts(getattr(self, stage)[domain.name], domain):
            for split, numbers in splits(part / "counts.json", *names).items():
                for name in names:
                    totals[split][name] += numbers[name]
        return totals

    def runs(self, domain: CardDomain, split: str) -> Sketch:
        """The sketch of a split's word runs, over all shards."""
        merged = Sketch(np.zeros(0, np.uint64))
        for part in parts(self.sketch[domain.name], domain):
            merged = merged.merge(Sketch(np.array(read_array(part / f"{split}.runs.npy"))))
        return merged

    def text(self, domain: str, shard: str, row: int) -> tuple[str, str]:
        """The id and the text of one cleaned document. Raises ValueError where there is no such row."""
        file, left = self.clean[domain] / shard / "documents.parquet", row
        for table in read_tables(file, ["id", "text"]):
            if left < len(table):
                return table["id"][left].as_py(), table["text"][left].as_py()
            left -= len(table)
        raise ValueError(f"{file}: has no row {row}")


def parts(folder: pathlib.Path, domain: CardDomain) -> Iterator[pathlib.Path]:
    """The folders of a domain's shards, in order."""
    for index in range(domain.shards):
        yield folder / str(Shard(index, domain.shards))


def scopes(spec: CardSpec) -> list[str]:
    """What was compared for duplicates: `domains`, or each domain by itself."""
    return ["domains"] if spec.across_domains else [domain.name for domain in spec.domains]


def read_json(file: pathlib.Path) -> Any:
    """What a JSON file holds. Raises ValueError naming the file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: cannot be read: {error}") from None


def splits(file: pathlib.Path, *names: str) -> dict[str, dict[str, Any]]:
    """Split -> name -> what a counts.json tells. Raises ValueError naming what is missing."""
    told = read_json(file)
    found = told.get("splits", told) if isinstance(told, dict) else {}
    by_split: dict[str, dict[str, Any]] = {
        split: each if isinstance(each := found.get(split), dict) else {} for split in SPLITS
    }
    missing = [f"{split} {name}" for split in SPLITS for name in names if by_split[split].get(name) is None]
    if missing:
        raise ValueError(f"{file}: does not tell {', '.join(missing)}")
    return {split: {name: found[split][name] for name in names} for split in SPLITS}


def batches(file: pathlib.Path, columns: list[str]) -> Iterator[pa.Table]:
    """Columns of a parquet file, some rows at a time. Raises ValueError naming the file where it has not got them."""
    try:
        with pq.ParquetFile(file) as opened:
            missing = [name for name in columns if name not in opened.schema_arrow.names]
            if missing:
                raise ValueError(f"{file}: has no column {', '.join(missing)}")
            for batch in opened.iter_batches(columns=columns):
                yield pa.table(batch)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{file}: cannot be read: {str(error).splitlines()[0]}") from None


def rows(file: pathlib.Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, one by one. Raises ValueError as `batches` does."""
    for table in batches(file, columns):
        yield from table.to_pylist()
