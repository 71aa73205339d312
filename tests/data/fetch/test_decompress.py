"""Test that compressed files are read whole, whatever their streams, and that nothing is lost silently."""

import bz2
import gzip
import io
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard

from speciate.data.fetch.decompress import open_by_magic, open_compressed
from speciate.data.reading_errors import ReadingError, explain_errors

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the program does
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
NOISE = random.Random(1).randbytes(300_000)
SKIPPABLE = b"\x53\x2a\x4d\x18\x05\x00\x00\x00skip!"
"""A zstd frame without data (RFC 8878, section 3.1.2)."""


def unpack(data: bytes, suffix: str, where: str = "source s: file f") -> bytes:
    with explain_errors(where):
        return open_compressed(io.BytesIO(data), suffix, where).read()


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("content", [b"", b"a", NOISE, bytes(1 << 20)])
def test_streams_behind_each_other_are_one_text(suffix: str, content: bytes) -> None:
    pack = PACK[suffix]
    assert unpack(pack(content), suffix) == content
    assert unpack(pack(content) + pack(b"") + pack(b"end"), suffix) == content + b"end"
    for zeros in (1, 3, 4, 512, 100_001):
        assert unpack(pack(content) + bytes(zeros), suffix) == content
        assert unpack(pack(content) + bytes(zeros // 4 * 4) + pack(b"end") + bytes(zeros), suffix) == content + b"end"


@pytest.mark.parametrize("suffix", PACK)
def test_every_cut_is_noticed(suffix: str) -> None:
    packed = PACK[suffix](b"some text " * 30)
    for stop in range(len(packed)):
        for before in (b"", PACK[suffix](b"before")):
            if stop or not before:
                with pytest.raises(ReadingError, match=r"^source s: file f is damaged or cut off: "):
                    unpack(before + packed[:stop], suffix)


@pytest.mark.parametrize("suffix", PACK)
def test_damage_in_a_later_stream_is_noticed(suffix: str) -> None:
    packed = PACK[suffix](NOISE)
    for at in range(12):  # the second stream's header: Python's own readers of bz2 and xz end there without a word
        second = bytearray(PACK[suffix](b"second " * 100))
        second[at] ^= 0xFF
        if suffix == ".gz" and at in (4, 5, 6, 7, 8, 9):  # the time, the level and the system, which change no text
            assert unpack(packed + bytes(second), suffix) == NOISE + b"second " * 100
            continue
        with pytest.raises(ReadingError, match=r"^source s: file f "):
            unpack(packed + bytes(second), suffix)
    with pytest.raises(ReadingError, match="damaged or cut off"):
        unpack(packed + b"garbage behind the end", suffix)


def wide(text: bytes, log: int) -> bytes:
    """Compress as `zstd --long=LOG` does from a pipe."""
    parameters = zstandard.ZstdCompressionParameters(window_log=log, strategy=1, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return packer.compress(text) + packer.flush()


@pytest.mark.parametrize("log", [10, 27, 28, 31])
def test_every_window_of_the_zstd_program_is_read(log: int) -> None:
    packed = wide(b"a text\n" * 1000, log)
    assert zstandard.get_frame_parameters(packed).window_size == 1 << log
    assert unpack(SKIPPABLE + packed + SKIPPABLE, ".zst") == b"a text\n" * 1000


def test_a_limit_is_not_called_damage() -> None:
    beyond = bytearray(wide(b"a text\n" * 1000, 31))
    beyond[5] = (32 - 10) << 3  # the frame's window (RFC 8878, section 3.1.1.1.2)
    with pytest.raises(ReadingError) as refused:
        unpack(bytes(beyond), ".zst")
    assert str(refused.value) == (
        "source s: file f has a zstd frame with a window of 4294967296 bytes; the limit is 2147483648: compress it "
        "again with `zstd --long=31` or less"
    )
    samples = [f"sample {index} of a text {index * 7}".encode() * 3 for index in range(500)]
    dictionary = zstandard.train_dictionary(1000, samples)
    with pytest.raises(ReadingError, match="was compressed with a dictionary, which is not in it"):
        unpack(zstandard.ZstdCompressor(dict_data=dictionary).compress(b"sample 7"), ".zst")


def test_the_first_bytes_tell_the_compression() -> None:
    for pack in (*PACK.values(), bytes, lambda data: lzma.compress(data, lzma.FORMAT_ALONE)):
        assert open_by_magic(io.BytesIO(pack(b"text")), "w").read() == b"text"
    assert open_by_magic(io.BytesIO(SKIPPABLE + zstandard.compress(b"text")), "w").read() == b"text"
    assert open_by_magic(io.BytesIO(b""), "w").read() == b""
