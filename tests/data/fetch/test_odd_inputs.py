"""Test readers on generated inputs: what they hold is read, or one clear error of our own says why; nothing else.

The ordinary suite takes a sample of the seeds; `-m slow` takes them all.
"""

import io
import pathlib
import random
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.data.fetch import odd_inputs
from tests.data.fetch.odd_inputs import Odd

from speciate.data.fetch.archive import Globs, read_members, read_passages
from speciate.data.fetch.readers import jsonl
from speciate.data.fetch.sources import files
from speciate.data.passage import Passage
from speciate.data.reading_errors import ReadingError
from speciate.data.shard import Shard

SAMPLE, ALL = 60, 2000
seeds = pytest.mark.parametrize(
    "seeds", [range(SAMPLE), pytest.param(range(SAMPLE, ALL), marks=pytest.mark.slow)], ids=["sample", "all"]
)


@pytest.fixture(autouse=True)
def here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_file(odd: Odd, **settings: Any) -> list[Passage]:
    pathlib.Path(odd.name).write_bytes(odd.data)
    options = files.Options(kind="files", paths=(odd.name,), **odd.settings, **settings)
    files.fetch(options, "mine", pathlib.Path("inventory"), Shard())
    return list(files.read(options, "mine", pathlib.Path("inventory")))


def outcome(read: Callable[[], Iterable[Any]]) -> list[Any] | str:
    """Return what is read, or the message of our own error; any other error fails the test."""
    try:
        return list(read())
    except ReadingError as error:
        message = str(error)
    assert "\n" not in message
    return message


def seen(passages: list[Passage] | str) -> list[tuple[str, str | None, str | None]]:
    assert not isinstance(passages, str), passages
    return [(each.id, each.text, each.fault) for each in passages]


def expected(odd: Odd, name: str) -> list[tuple[str, str | None, str | None]]:
    return [(f"{name}#{row}", text, fault) for row, text, fault, _ in odd.rows]


def check(odd: Odd, name: str, word: str, where: str, read: Callable[[str], Iterable[Passage]]) -> None:
    """Check what is read of an input under both policies; `word` is what its reader calls a row."""
    for policy in ("drop", "refuse"):
        result = outcome(lambda policy=policy: read(policy))  # type: ignore[misc]
        if odd.refused is not None:
            assert isinstance(result, str) and result.startswith(f"{where}: {odd.refused}"), result
        elif policy == "refuse" and odd.first_bad is not None:
            assert isinstance(result, str) and result.startswith(f"{where}: {word} {odd.first_bad}: "), result
        else:
            assert seen(result) == expected(odd, name)


@seeds
@pytest.mark.parametrize("make", [odd_inputs.jsonl, odd_inputs.parquet])
def test_odd_files_are_read_or_refused_by_row(seeds: range, make: Callable[[random.Random], Odd]) -> None:
    for seed in seeds:
        odd = make(random.Random(seed))
        check(odd, odd.name, "row", f"source mine: file {odd.name}", lambda policy: read_file(odd, bad_records=policy))  # noqa: B023


@seeds
def test_odd_lines_in_an_archive_are_read_or_refused_by_line(seeds: range, here: pathlib.Path) -> None:
    for seed in seeds:
        odd = odd_inputs.jsonl(random.Random(seed))
        with zipfile.ZipFile(here / "zip", "w") as archive:
            archive.writestr(odd.name, odd.data)

        def read(policy: Any) -> Iterable[Passage]:
            reader = jsonl.Options(kind="jsonl", bad_records=policy)
            return read_passages(here / "zip", "s", Globs(["*"]), reader, file="f")

        check(odd, odd.name, "line", f"source s: member {odd.name}", read)


@seeds
def test_odd_archives_are_read_whole(seeds: range, here: pathlib.Path) -> None:
    for seed in seeds:
        members, data = odd_inputs.tree(random.Random(seed))
        (here / "archive").write_bytes(data)
        result = outcome(lambda: read_members(here / "archive", "s", Globs(["*.bin"])))
        assert not isinstance(result, str) and dict(result) == members, (seed, result)
        assert [name for name, _ in result] == list(members)


@seeds
def test_a_damaged_archive_gives_its_members_or_an_error(seeds: range, here: pathlib.Path) -> None:
    refused = 0
    for seed in seeds:
        draw = random.Random(seed)
        members, data = odd_inputs.tree(draw)
        (here / "archive").write_bytes(odd_inputs.damaged(draw, data))
        result = outcome(lambda: read_members(here / "archive", "s", Globs(["*"])))
        refused += isinstance(result, str)
        assert isinstance(result, str) or dict(result) == members, seed
    assert refused > len(seeds) // 2


@seeds
def test_a_damaged_compressed_file_gives_its_records_or_an_error(seeds: range) -> None:
    refused = 0
    for seed in seeds:
        draw = random.Random(seed)
        odd = odd_inputs.jsonl(draw)
        if odd.name == "odd.jsonl":  # nothing in a plain file tells that a letter is another
            continue
        odd.data = odd_inputs.damaged(draw, whole := odd.data)
        if whole.startswith(odd.data) and odd_inputs.is_whole(odd.data, odd.name):
            continue  # cut off between two streams, which nothing can tell
        result = outcome(lambda: read_file(odd, bad_records="drop"))  # noqa: B023
        refused += isinstance(result, str)
        assert isinstance(result, str) or seen(result) == expected(odd, odd.name), seed
    assert refused


@seeds
def test_damaged_parquet_gives_its_texts_or_an_error(seeds: range) -> None:
    refused = 0
    for seed in seeds:
        draw = random.Random(seed)
        odd = odd_inputs.parquet(draw)
        odd.data = odd_inputs.damaged(draw, odd.data)
        result = outcome(lambda: read_file(odd, bad_records="drop"))  # noqa: B023
        refused += isinstance(result, str)
        if odd.refused is None and not isinstance(result, str):
            # the pages have checksums; the types in the file's footer have none, and another type is a counted fault
            assert len(result) == len(odd.rows), seed
            for (_, text, fault), (_, right, _) in zip(seen(result), expected(odd, odd.name), strict=True):
                assert fault or text == right, seed
    assert refused


@seeds
def test_random_bytes_are_one_error(seeds: range, here: pathlib.Path) -> None:
    starts = [b"", b"PK\x03\x04", b"!<arch>\n", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PAR1"]
    for seed in seeds:
        draw = random.Random(seed)
        data = draw.choice(starts) + draw.randbytes(draw.randint(0, 3000)) + draw.choice([b"", b"PAR1"])
        (here / "archive").write_bytes(data)
        assert isinstance(outcome(lambda: read_members(here / "archive", "s", Globs(["*"]))), str), seed
        suffix = draw.choice([".jsonl.gz", ".jsonl.zst", ".jsonl.bz2", ".jsonl.xz", ".parquet", ".txt.gz"])
        odd = Odd(f"odd{suffix}", data)
        assert isinstance(outcome(lambda: read_file(odd)), str), seed  # noqa: B023


def test_the_generators_reach_what_they_are_for() -> None:
    """Count that the sample holds every kind of line, column and container, so that no test passes on nothing."""
    faults = {fault for seed in range(SAMPLE) for _, _, fault, _ in odd_inputs.jsonl(random.Random(seed)).rows}
    assert faults == {
        *(None, "not_json", "no_text", "no_column", "repeated_key", "not_utf8", "surrogate"),
    }
    tables = [odd_inputs.parquet(random.Random(seed)) for seed in range(SAMPLE)]
    assert {fault for odd in tables for _, _, fault, _ in odd.rows} == {None, "no_text", "not_utf8", "unreadable"}
    assert sum(odd.refused is not None for odd in tables) > 5
    archives = [odd_inputs.tree(random.Random(seed))[1] for seed in range(SAMPLE)]
    assert sum(zipfile.is_zipfile(io.BytesIO(data)) for data in archives) > 5
    assert sum(data.startswith(b"!<arch>") for data in archives) > 5
    assert sum(_is_tar(data) for data in archives) > 5


def _is_tar(data: bytes) -> bool:
    try:
        tarfile.open(fileobj=io.BytesIO(data)).close()
    except tarfile.TarError:
        return False
    return True
