"""Wrap a squashfs file as a SIF file, the format that Apptainer runs, pushes to registries and pulls from them.

Apptainer's own `build` packs the files again and adds a time and a random identifier. Here all of the wrapping is
fixed, so the same squashfs makes the same SIF file. The layout is that of github.com/apptainer/sif, version 01.
"""

import pathlib
import shutil
import struct

LAUNCH = b"#!/usr/bin/env run-singularity\n"
HEADER = struct.Struct("<32s10s3s3s16s8q")
"""Launch line, magic, version, architecture, identifier; times made and changed, free and all descriptors, then offset
and size of the descriptors and of the data."""
DESCRIPTOR = struct.Struct("<i?III7q128s384s")
"""Kind, whether it is used, identifier, group, link; offset, size, padded size, two times, two owners; name, extra."""
PARTITION = struct.Struct("<ii3s")
"""Kind of file system, kind of partition, architecture: the start of a partition's extra bytes."""
MAGIC, VERSION, AMD64 = b"SIF_MAGIC", b"01", b"02"
KIND_PARTITION, SQUASHFS, PRIMARY_SYSTEM = 0x4004, 1, 2
GROUP = 0xF0000001
DESCRIPTORS = 48
TABLE = 4096
PAGE = 4096


def align(offset: int) -> int:
    """Return the next offset at which a page begins."""
    return -(-offset // PAGE) * PAGE


def wrap(squashfs: pathlib.Path, target: pathlib.Path) -> None:
    """Write a SIF file whose only object is the squashfs file, as its system partition."""
    size = squashfs.stat().st_size
    table = DESCRIPTORS * DESCRIPTOR.size
    data = align(TABLE + table)
    header = HEADER.pack(
        *(LAUNCH, MAGIC, VERSION, AMD64, bytes(16)), *(0, 0, DESCRIPTORS - 1, DESCRIPTORS), *(TABLE, table, data, size)
    )
    extra = PARTITION.pack(SQUASHFS, PRIMARY_SYSTEM, AMD64)
    descriptor = DESCRIPTOR.pack(
        *(KIND_PARTITION, True, 1, GROUP, 0), *(data, size, size, 0, 0, 0, 0), *(b"system.squashfs", extra)
    )
    with squashfs.open("rb") as source, target.open("wb") as file:
        file.write(header.ljust(TABLE, b"\0"))
        file.write(descriptor.ljust(data - TABLE, b"\0"))
        shutil.copyfileobj(source, file, 1 << 20)
