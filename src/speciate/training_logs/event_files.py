"""Read scalars from TensorBoard's event files, as TensorFlow's, torch's and tensorboardX's writers write them.

An event file is a sequence of records: length (8 bytes, little endian), a masked CRC32C of the length, the event, a
masked CRC32C of the event. A writer that is stopped leaves a last record that is cut off. tensorboardX has the classes
of the events; it needs neither TensorBoard nor TensorFlow.
"""

import pathlib
import struct
from collections.abc import Iterator
from typing import Any

MARK = "tfevents"
"""Part of the name of every event file."""
HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
LONGEST = 1 << 30
"""A longer record is a sign of a damaged file."""


class CutOff(Exception):
    """The file ends within a record."""


def records(file: pathlib.Path) -> Iterator[bytes]:
    """Yield the events of a file as bytes.

    Raises:
        ValueError: a checksum does not fit: the file is damaged, or is no event file.
        CutOff: the file ends within a record.
    """
    from tensorboardX.crc32c import crc32c

    def fits(data: bytes, masked: int) -> bool:
        crc = int(crc32c(data))
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF == masked

    with file.open("rb") as stream:
        number = 0
        while header := stream.read(HEADER.size):
            number += 1
            if len(header) < HEADER.size:
                raise CutOff
            length, masked = HEADER.unpack(header)
            if not fits(header[:8], masked) or length > LONGEST:
                raise ValueError(
                    f"{file}: is damaged, or no event file: the length of record {number} fails its checksum"
                )
            data, footer = stream.read(length), stream.read(FOOTER.size)
            if len(data) < length or len(footer) < FOOTER.size:
                raise CutOff
            if not fits(data, FOOTER.unpack(footer)[0]):
                raise ValueError(f"{file}: is damaged: record {number} fails its checksum")
            yield data


def scalars(file: pathlib.Path) -> Iterator[tuple[str, int, float]]:
    """Yield (name, step, value) of every scalar of an event file.

    Raises:
        ValueError: the file is damaged, or is no event file.
        CutOff: its last record is cut off; everything before it has been yielded.
    """
    from tensorboardX.proto.event_pb2 import Event

    for data in records(file):
        event = Event()
        event.ParseFromString(data)
        for value in event.summary.value:
            number = _number(value)
            if number is not None:
                yield value.tag, event.step, number


def _number(value: Any) -> float | None:
    """Return a summary's scalar, which newer writers keep as a tensor; None where it is something else."""
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor") or value.tensor.tensor_shape.dim:
        return None
    tensor = value.tensor
    for numbers in (tensor.float_val, tensor.double_val, tensor.int_val, tensor.int64_val):
        if len(numbers):
            return float(numbers[0])
    formats = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}  # DT_FLOAT, DT_DOUBLE, DT_INT32, DT_INT64
    layout = formats.get(tensor.dtype)
    if layout is None or len(tensor.tensor_content) != struct.calcsize(layout):
        return None
    return float(struct.unpack(layout, tensor.tensor_content)[0])
