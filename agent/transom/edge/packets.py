"""MQTT PUBLISH and PUBACK packets, many at a time: bytes in, messages out, and back. No socket, no state.

The rest of the protocol is paho's. Formats: MQTT 3.1.1 section 3.3, MQTT 5.0 section 3.3.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

PUBLISH, PUBACK = 0x30, 0x40
DUP, QOS, RETAIN = 0x08, 0x06, 0x01


# A PUBLISH as it came: topic, payload, the first byte with DUP, QoS and RETAIN, the packet id, 0 at QoS 0, and the user
# property that was asked for. Plain, because a named tuple takes three times as long to make.
Packet = tuple[bytes, bytes, int, int, bytes | None]

# Properties of a PUBLISH by their identifiers (MQTT 5.0, table 2-4): how many bytes, -1 for a length and so many.
_SIZES = {0x01: (1,), 0x02: (4,), 0x03: (-1,), 0x08: (-1,), 0x09: (-1,), 0x23: (2,), 0x26: (-1, -1)}
_USER, _SUBSCRIPTION = 0x26, 0x0B  # a pair of texts; a variable byte integer


class MalformedError(ValueError):
    """Bytes that are no MQTT; the connection cannot go on."""


def length_at(data: bytes | bytearray, at: int, end: int) -> tuple[int, int]:
    """The variable byte integer at `at`: (value, where it ends), (-1, at) when it is not all there."""
    value = shift = 0
    for i in range(at, min(end, at + 4)):
        value |= (data[i] & 127) << shift
        if data[i] < 128:
            return value, i + 1
        shift += 7
    if end >= at + 4:
        raise MalformedError("a length of more than four bytes")
    return -1, at


def parse(
    data: bytes, at: int, version5: bool, wanted: bytes | None = None
) -> tuple[list[Packet], int, int]:  # fmt: skip
    """PUBLISH packets of QoS 0 and 1 from `at` on, up to the first that is another or not all there. wanted: the name
    of a user property; without one properties are skipped.

    Returns them, where they end, and how long the packet that begins there is: 0 when not even that is known.
    Raises MalformedError.
    """
    packets: list[Packet] = []
    add, end = packets.append, len(data)
    while at + 1 < end:
        first, length, body = data[at], data[at + 1], at + 2
        if length > 127:
            length, body = length_at(data, at + 1, end)
            if length < 0:
                return packets, at, 0
        stop = body + length
        if stop > end or first & 0xF0 != PUBLISH or first & QOS > 2:
            return packets, at, stop - at
        rest = body + 2 + (data[body] << 8 | data[body + 1] if length > 1 else length)
        topic, mid, value = data[body + 2 : rest], 0, None
        if first & QOS:
            rest += 2
            if rest > stop:
                raise MalformedError("a PUBLISH that is too short")
            mid = data[rest - 2] << 8 | data[rest - 1]
        if version5 and rest < stop:
            size = data[rest]
            rest += 1 + size
            if size > 127:
                size, rest = length_at(data, rest - 1 - size, stop)
                rest += size
            if wanted is not None and size and rest <= stop:
                value = user_property(data, rest - size, rest, wanted)
        elif version5:
            raise MalformedError("a PUBLISH without properties")
        if rest > stop or not topic:
            raise MalformedError("a PUBLISH whose parts do not fit into it")
        add((topic, data[rest:stop], first, mid, value))
        at = stop
    return packets, at, 0


def user_property(data: bytes, at: int, end: int, wanted: bytes) -> bytes | None:
    """The value of the user property of that name among the properties from `at` to `end`; None where there is none.
    Different values of it, of which nobody can say who wrote them, are given with ", " between them. Raises
    MalformedError."""
    found: dict[bytes, None] = {}
    while at < end:
        kind, at = data[at], at + 1
        if kind == _SUBSCRIPTION:
            value, at = length_at(data, at, end)
            if value < 0:
                raise MalformedError("a property that is too short")
            continue
        texts = []
        for size in _SIZES.get(kind, ()):
            begin = at
            if size < 0:
                begin, size = at + 2, int.from_bytes(data[at : min(at + 2, end)], "big")
            at = begin + size
            texts.append(data[begin:at])
        if not texts or at > end:
            raise MalformedError("a property that is not known, or too long")
        if kind == _USER and texts[0] == wanted:
            found[texts[1]] = None
    return b", ".join(found) if found else None


def publish(messages: Iterable[tuple[str, bytes]], version5: bool) -> bytes:
    """QoS 0, not retained; (topic, payload). Topics must be valid, and at most 65,535 bytes."""
    parts: list[bytes] = []
    for topic, payload in messages:
        name = _name(topic, version5)
        parts += (_head(len(name) + len(payload)), name, payload)
    return b"".join(parts)


def puback(mids: Sequence[int]) -> bytes:
    return b"".join([b"\x40\x02" + mid.to_bytes(2, "big") for mid in mids])


@lru_cache(100_000)
def _name(topic: str, version5: bool) -> bytes:
    """The variable header of a QoS 0 packet: its topic, and no properties."""
    name = topic.encode()
    return len(name).to_bytes(2, "big") + name + (b"\0" if version5 else b"")


@lru_cache(4096)
def _head(length: int) -> bytes:
    """The fixed header of a QoS 0 PUBLISH with so many bytes after it."""
    out = [PUBLISH]
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    out.append(length)
    return bytes(out)
