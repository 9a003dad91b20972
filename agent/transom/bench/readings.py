"""Made-up readings as a stream expects them: topics that fit its pattern, payloads in its format, one after another.

Settings and a model's channels in, (topic, payload) out. Deterministic but for the times, which the caller gives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import cbor2
import msgspec

from transom.core.model import Manifest
from transom.core.topics import CHANNEL, Pattern
from transom.settings import StreamSettings

_encode = msgspec.json.Encoder().encode
VALUE, TIME, COUNT = "@value@", "@time@", "@count@"  # what is put in place of them makes a payload
Make = Callable[[int, int, int], bytes]  # stamp in µs since 1970, number of the message in all, and of its topic


@dataclass(frozen=True, slots=True)
class Source:
    """A stream's readings. series: how many it can have, None without limit; predictions: that a message gives;
    timed: whether a payload says when it was made, to the microsecond; open: whether a series' latest reading waits for
    the next one, because more channels may belong to it."""

    name: str
    topic: Callable[[int], str]
    make: Callable[[int], Make]
    series: int | None
    predictions: int
    timed: bool
    open: bool = False


PLAIN_TOPIC = "plant/{device}/{channel}"


def plain(name: str = "bench") -> Source:
    """{"ts", "seq", "v"} on plant/d<n>/v, as the baseline reads them."""

    def make(stamp: int, number: int, _nth: int) -> bytes:
        return b'{"ts":%d.%06d,"seq":%d,"v":%.3f}' % (*divmod(stamp, 1_000_000), number, value(number))

    return Source(name, lambda i: f"plant/d{i}/v", lambda _: make, None, 1, timed=True)


def value(number: int) -> float:
    return 20 + (number * 7919 % 1000) / 500


def of_stream(name: str, stream: StreamSettings, manifest: Manifest) -> Source:
    """What the stream of a configuration reads. A topic is a series, or one of its channels when it names them."""
    pattern = Pattern.parse(stream.topic)
    names = list(stream.channels) or [c.name for c in manifest.channels]
    names = ["value" if n == "*" else n for n in names]
    several = len(manifest.channels) > 1
    apart = CHANNEL in pattern.names
    makes = _makes(stream, names, alone=apart or len(names) == 1 or stream.payload in ("number", "json"))
    free = [n for n in pattern.check_series(stream.series) if n != CHANNEL]

    def topic(i: int) -> str:
        row, channel = divmod(i, len(names)) if apart else (i, 0)
        return "/".join(_level(level, row, names[channel]) for level in pattern.levels)

    def make(i: int) -> Make:
        return makes[i % len(makes)] if apart else makes[0]

    limit = None if free else len(names) if apart else 1
    each = 1 if apart or several or len(makes) > 1 else len(names) if _whole(stream, names) else 1
    timed = stream.payload != "number" and stream.time_unit in ("auto", "iso", "s", "us", "ns")
    return Source(name, topic, make, limit, each, timed, open=apart and several)


def _level(level: str, row: int, channel: str) -> str:
    if level == f"{{{CHANNEL}}}":
        return channel
    return f"d{row}" if level.startswith("{") else "x" if level in ("+", "#") else level


def _whole(stream: StreamSettings, names: Sequence[str]) -> bool:
    """Whether one payload holds all channels."""
    return len(names) > 1 and stream.payload not in ("number", "json")


def _makes(stream: StreamSettings, names: Sequence[str], *, alone: bool) -> list[Make]:
    """alone: one channel a payload; then one function for each of them."""
    if stream.payload == "number":
        return [lambda _stamp, number, _nth: b"%.3f" % value(number)]
    paths = {n: (stream.channels[n].path if n in stream.channels else "") or n for n in names}
    if not alone:
        return [_template(stream, [(paths[n], _switch(stream, n)) for n in names])]
    made = []
    for n in names:
        path = stream.value or (paths[n] if n in stream.channels and stream.channels[n].path else "value")
        if stream.payload == "object":
            path = paths[n]
        made.append(_template(stream, [(path, _switch(stream, n))]))
    return made


def _switch(stream: StreamSettings, name: str) -> bool:
    return name in stream.channels and stream.channels[name].switch


def _template(stream: StreamSettings, values: Sequence[tuple[str, bool]]) -> Make:
    """values: path, and whether it is a switch."""
    body: dict[str, Any] = {}
    inner, listed = body, stream.payload == "array"
    head = ""
    for path, switch in values:
        if "[]." in path:
            head, _, path = path.partition("[].")
            listed = True
        _put(inner, path, f"{VALUE}{'switch' if switch else ''}")
    if stream.time_unit != "arrival":
        _put(inner, stream.time or "time", TIME)
    if stream.sequence is not None:
        _put(inner, stream.sequence, COUNT)
    whole: Any = {head: [body]} if head else [body] if listed else body
    if stream.payload == "cbor":
        return lambda stamp, number, nth: cbor2.dumps(_filled(whole, _parts(stream, stamp, number, nth)))
    text = _encode(whole).replace(b"%", b"%%")
    for place in (f"{VALUE}switch", VALUE, TIME, COUNT):
        text = text.replace(f'"{place}"'.encode(), f"%({place})b".encode())

    def make(stamp: int, number: int, nth: int) -> bytes:
        return text % {key.encode(): _encode(part) for key, part in _parts(stream, stamp, number, nth).items()}

    return make


def _parts(stream: StreamSettings, stamp: int, number: int, nth: int) -> dict[str, Any]:
    when: Any = stamp / 1e6
    if stream.time_unit == "iso":
        when = datetime.fromtimestamp(stamp / 1e6, UTC).isoformat().replace("+00:00", "Z")
    elif stream.time_unit in ("ms", "us", "ns"):
        when = {"ms": stamp // 1000, "us": stamp, "ns": stamp * 1000}[stream.time_unit]
    return {VALUE: round(value(number), 3), f"{VALUE}switch": number % 2 == 0, TIME: when, COUNT: nth}


def _put(body: dict[str, Any], path: str, what: str) -> None:
    *folders, last = path.split(".")
    for key in folders:
        body = body.setdefault(key, {})
    body[last] = what


def _filled(body: Any, parts: dict[str, Any]) -> Any:
    if isinstance(body, dict):
        return {key: _filled(one, parts) for key, one in body.items()}
    if isinstance(body, list):
        return [_filled(one, parts) for one in body]
    return parts.get(body, body)
