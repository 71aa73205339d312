import pathlib

import pytest

from speciate.data.documents import Document, write_documents
from speciate.data.tokens.training_texts import training_texts


def corpus(folder: pathlib.Path, sizes: dict[str, list[int]], length: int = 100) -> list[pathlib.Path]:
    """Write one file per shard; each document names its domain, shard and index and has `length` bytes."""
    files = []
    for domain, shards in sizes.items():
        for shard, count in enumerate(shards):
            files.append(folder / f"{domain}{shard}.parquet")
            texts = (f"{domain} {shard} {index} é".ljust(length - 1, ".") for index in range(count))
            write_documents(files[-1], (Document(str(n), domain, "g", text) for n, text in enumerate(texts)))
    return files


def taken(texts: list[str]) -> dict[tuple[str, str], list[int]]:
    indices: dict[tuple[str, str], list[int]] = {}
    for text in texts:
        domain, shard, index = text.split()[:3]
        indices.setdefault((domain, shard), []).append(int(index))
    return indices


def test_without_a_limit_it_is_all_of_it_in_order(tmp_path: pathlib.Path) -> None:
    indices = taken(list(training_texts(corpus(tmp_path, {"a": [5, 0, 3], "b": [4]}))))
    assert indices == {("a", "0"): [*range(5)], ("a", "2"): [*range(3)], ("b", "0"): [*range(4)]}


def test_domains_share_evenly_and_what_a_small_one_leaves_goes_to_the_others(tmp_path: pathlib.Path) -> None:
    files = corpus(tmp_path, {"a": [3000, 1000], "b": [0, 100], "c": [2000], "d": [0]})
    texts = list(training_texts(files, 210_000))
    indices = taken(texts)
    assert indices["b", "1"] == [*range(100)]  # 10 kB, all there is; 100 kB each for a and c
    assert 0.93 < len(indices["c", "0"]) / 1000 < 1.01
    assert 0.93 < (len(indices["a", "0"]) + len(indices["a", "1"])) / 1000 < 1.01
    assert 2.8 < len(indices["a", "0"]) / len(indices["a", "1"]) < 3.2  # in proportion to the sizes of the shards
    assert 0.93 * 210_000 < sum(len(text.encode()) for text in texts) < 210_000 + 4 * 100
    steps = {later - index for index, later in zip(indices["c", "0"], indices["c", "0"][1:], strict=False)}
    assert steps <= {2, 3}  # spread over the file, not only from its start
    assert list(training_texts(files, 210_000)) == texts


def test_a_limit_above_the_total_takes_all_texts(tmp_path: pathlib.Path) -> None:
    files = corpus(tmp_path, {"a": [5], "b": [7]})
    assert list(training_texts(files, 10**9)) == list(training_texts(files))


def test_nothing_at_all(tmp_path: pathlib.Path) -> None:
    assert list(training_texts([], 100)) == []
    assert list(training_texts(corpus(tmp_path, {"a": [0]}), 100)) == []


def test_memory_does_not_grow_with_the_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first text is yielded before the next row group is read."""
    from speciate.data.tokens import training_texts as module

    monkeypatch.setattr("speciate.data.documents.ROW_GROUP_DOCUMENTS", 10)
    (file,) = corpus(tmp_path, {"a": [100]})
    groups = []
    read = module.read_tables
    monkeypatch.setattr(
        module, "read_tables", lambda *arguments: (groups.append(1) or table for table in read(*arguments))
    )
    next(training_texts([file]))
    assert len(groups) == 1
