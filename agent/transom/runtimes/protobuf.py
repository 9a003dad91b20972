"""Protocol Buffers as bytes: a message comes in, its fields go out in their order; and back. Knows no message by name.

The wire format is that of protobuf.dev/programming-guides/encoding. Nothing is copied: what has a length is a view.
"""

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | memoryview]  # number, wire type, value: int for VARINT, a view for the others


def fields(data: memoryview) -> Iterator[Field]:
    """Each field of one message. Raises ValueError for what is no message."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise ValueError(f"a field with the number {number} at byte {at}")
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == BYTES:
            size, at = _varint(data, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"a field of the wire type {wire} at byte {at}")
        if size > end - at:
            raise ValueError(f"it ends {size - (end - at):,} bytes before its field {number} does")
        yield number, wire, data[at : at + size]
        at += size


def field(number: int, value: bytes) -> bytes:
    """One field that has a length."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """value: >= 0."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    for i in range(at, min(at + 10, len(data))):
        byte = data[i]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, i + 1
        shift += 7
    raise ValueError(f"a number at byte {at} does not end")
