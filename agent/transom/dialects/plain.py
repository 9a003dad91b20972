"""Events to our own JSON topics, and to the lines of a replay. The names and formats are a contract.

Events in, publications or lines out; nothing is sent from here.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from itertools import chain, repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Alert, DeadLetter, DriftReport, Events, Predictions

LONGEST_LETTER = 1024  # bytes of a refused payload that are shown
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Not allowed in a topic name, or by MQTT 5.0 section 1.5.4: controls, halves of a pair, and what is no character at
# all, for which a broker may end the connection.
_NO_CHARACTERS = "\ufdd0-\ufdef" + "".join(chr(0x10000 * plane + n) for plane in range(17) for n in (0xFFFE, 0xFFFF))
_UNSAFE = re.compile(f"[+#%\x00-\x1f\x7f-\x9f\ud800-\udfff{_NO_CHARACTERS}]")
_EXACT = 22  # 10**22 is the largest power of ten that is a double
_TENS = np.array([float(10 ** abs(n)) for n in range(-_EXACT, _EXACT + 1)])  # 10**|n| at n + _EXACT
_MILLI = tuple(b'%03dZ"' % m for m in range(1000))
CACHED = 100_000  # names whose text is remembered
_encode = msgspec.json.Encoder().encode
_STATES = tuple(_encode(s.name.lower()) for s in State)


class Publication(NamedTuple):
    """A message to send."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


_publication = partial(tuple.__new__, Publication)  # a third of the time of Publication(…)


def publications(events: Events, base: str) -> Iterator[Publication]:
    """base: `transom/<agent id>`. Predictions first, then the alerts that they caused, then dead letters."""
    for batch in events.predictions:
        yield from predictions(batch, base)
    for alert in events.alerts:
        topic = f"{base}/{alert.stream}/{topic_part(alert.series)}/alert"
        yield Publication(topic, _encode(alert_body(alert)), 1, True)
    for letter in events.dead_letters:
        yield Publication(f"{base}/{letter.stream}/dead-letter", _encode(letter_body(letter)), 0, False)


def predictions(batch: Predictions, base: str) -> Iterator[Publication]:
    """One a row, in the batch's order."""
    prefix = f"{base}/{batch.stream}/"
    topics = [_topic(prefix, series) for series in batch.series]
    return map(_publication, zip(topics, lines(batch), repeat(0), repeat(False), strict=False))


def lines(batch: Predictions) -> Iterator[bytes]:
    """One JSON object a row, without a line's end. A key that the task does not give is left out.

    Numbers become text all at once, and rows by templates for the names of their channels: a dictionary a row costs ten
    times as much.
    """
    if not len(batch):
        return iter(())
    table = _table(batch)
    templates = {row: _template(batch.stream, batch.model, row, table.shapes) for row in set(batch.channels)}
    texts, width = _numbers(table.numbers), table.numbers.shape[1]
    columns = [
        _times(batch.end), map(_quoted, batch.series), *(texts[i::width] for i in range(width)),
        [_STATES[state] for state in batch.state.tolist()],
    ]  # fmt: skip
    # In one go: no text in JSON holds a line's end.
    whole = b"\n".join([templates[row] for row in batch.channels])
    return iter((whole % tuple(chain.from_iterable(zip(*columns, strict=True)))).split(b"\n"))


class _Table(NamedTuple):
    """numbers: float64 [B, N], all that a row says; shapes: what they are, in the order of their keys: the key, the
    names (None: the channels', () for a number that has none), the shape of each name's numbers, and text instead."""

    numbers: NDArray[np.float64]
    shapes: tuple[tuple[str, tuple[str, ...] | None, tuple[int, ...], bytes], ...]


def _table(batch: Predictions) -> _Table:
    columns: list[NDArray[np.float64]] = []
    shapes: list[tuple[str, tuple[str, ...] | None, tuple[int, ...], bytes]] = []

    def add(key: str, array: NDArray[Any] | None, names: tuple[str, ...] | None) -> None:
        if array is not None:
            columns.append(array.reshape(len(batch), -1).astype(np.float64))
            shapes.append((key, names, array.shape[1 if names == () else 2 :], b""))

    add("score", batch.score, ())
    add("p_value", batch.p_value, ())
    add("value", batch.value if batch.value.size else None, None)
    add("expected", batch.expected, None)
    add("interval", batch.interval, None)
    add("contribution", batch.contribution, None)
    if batch.forecast is not None:  # [B, H, C, Q] -> by target, H lists of Q quantiles
        add("forecast", batch.forecast.transpose(0, 2, 1, 3), batch.targets or None)
        shapes.append(("quantiles", (), (), _encode(batch.quantiles)))
        shapes.append(("lead", (), (), _encode(batch.lead)))
    add("probability", batch.probability, batch.classes)
    return _Table(np.concatenate(columns, axis=1), tuple(shapes))


@lru_cache(CACHED // 100)
def _template(
    stream: str, model: str, channels: tuple[str, ...],
    shapes: tuple[tuple[str, tuple[str, ...] | None, tuple[int, ...], bytes], ...],
) -> bytes:  # fmt: skip
    """A row with places for its time, series, numbers and state."""
    parts = [b'"time":%b', b'"stream":' + _fixed(_encode(stream)), b'"series":%b', b'"model":' + _fixed(_encode(model))]
    for key, names, shape, text in shapes:
        place = _fixed(text) or _places(shape)
        named = channels if names is None else names
        if named:
            place = b"{" + b",".join(_fixed(_encode(name)) + b":" + place for name in named) + b"}"
        parts.append(b'"' + key.encode() + b'":' + place)
    return b"{" + b",".join(parts) + b',"state":%b}'


def _places(shape: tuple[int, ...]) -> bytes:
    """Nested lists of places for numbers."""
    return b"%b" if not shape else b"[" + b",".join([_places(shape[1:])] * shape[0]) + b"]"


def _fixed(text: bytes) -> bytes:
    return text.replace(b"%", b"%%")


def _numbers(array: NDArray[np.float64]) -> list[bytes]:
    """Each number of the array as JSON, in its order."""
    return _encode(rounded_all(array.reshape(-1)))[1:-1].split(b",") if array.size else []


def _times(end: NDArray[np.int64]) -> list[bytes]:
    second, micro = np.divmod(end, 1_000_000)
    return [
        _second(s) + (b'%06dZ"' % m if m % 1000 else _MILLI[m // 1000])
        for s, m in zip(second.tolist(), micro.tolist(), strict=True)
    ]


@lru_cache(CACHED)
def _second(second: int) -> bytes:
    """A JSON string up to the fraction of a second."""
    return b'"' + rfc3339(1_000_000 * second)[:-4].encode()


@lru_cache(CACHED)
def _topic(prefix: str, series: str) -> str:
    return f"{prefix}{topic_part(series)}/prediction"


@lru_cache(CACHED)
def _quoted(text: str) -> bytes:
    return _encode(text)


def alert_body(alert: Alert) -> dict[str, Any]:
    """The alert as published; keys that its kind does not give are left out."""
    body: dict[str, Any] = {
        "id": alert.id, "event": alert.event, "kind": alert.kind, "severity": alert.severity, "stream": alert.stream,
        "series": alert.series, "model": alert.model, "since": rfc3339(alert.since), "time": rfc3339(alert.time),
        "score": alert.score, "peak_score": alert.peak_score, "p_value": alert.p_value,
        "value": alert.value, "expected": alert.expected, "interval": alert.interval,
        "contribution": alert.contribution, "channels": list(alert.channels), "summary": alert.summary,
    }  # fmt: skip
    if alert.acknowledged is not None:
        by, at = alert.acknowledged
        body["acknowledged"] = {"by": by, "time": rfc3339(at)}
    return {key: _rounded(value) for key, value in body.items() if value is not None and value not in ({}, [])}


def drift_body(count: int, reports: Sequence[DriftReport]) -> dict[str, Any]:
    """What health says of drift: how many channels, and those that have moved farthest."""
    return {"channels": count, "largest": [_drift(report) for report in reports]}


def _drift(r: DriftReport) -> dict[str, Any]:
    body: dict[str, Any] = {
        "stream": r.stream, "series": r.series, "channel": r.channel, "kind": r.kind, "unit": r.unit or None,
        "since": None if r.since is None else rfc3339(r.since), "before": r.before, "now": r.now, "moved": r.far,
        "usual_spreads": r.sizes, "per_day": r.per_day if r.kind == "drift" else None, "summary": r.summary,
    }  # fmt: skip
    return {key: told for key, value in body.items() if (told := _rounded(value)) is not None}


def letter_body(letter: DeadLetter) -> dict[str, Any]:
    body: dict[str, Any] = {
        "topic": letter.topic.encode("utf-8", "replace").decode(), "reason": letter.reason,
        "bytes": len(letter.payload),
    }  # fmt: skip
    if letter.shown:
        body["payload"] = base64.b64encode(letter.payload[:LONGEST_LETTER]).decode()
    return body


def rfc3339(micro: int) -> str:
    """µs since 1970 -> "2014-07-01T12:00:00.000Z"; microseconds only where there are any."""
    moment = _EPOCH + timedelta(microseconds=micro)
    spec = "milliseconds" if micro % 1000 == 0 else "microseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


@lru_cache(CACHED)
def topic_part(series: str) -> str:
    """The series' name as part of a topic: what MQTT forbids there is percent-encoded, bytewise."""
    return _UNSAFE.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8", "replace")), series)


def rounded_all(array: NDArray[np.float64]) -> list[float | None]:
    """[N] -> numbers with the seven significant digits that float32 holds; None where not finite."""
    finite = np.isfinite(array)
    size = np.abs(np.where(finite & (array != 0), array, 1.0))
    digits = 6 - np.floor(np.log10(size)).astype(np.int64)
    exact = (digits <= _EXACT) & (digits >= -_EXACT)
    scale = _TENS[np.where(exact, digits, 0) + _EXACT]
    with np.errstate(over="ignore", invalid="ignore"):
        # Both are exact and so the quotient is the double next to the decimal number: its text is short.
        rounded = np.where(digits < 0, np.rint(array / scale) * scale, np.rint(array * scale) / scale)
    result: list[float | None] = rounded.tolist()
    if not (finite & exact).all():
        for i in np.flatnonzero(~exact).tolist():
            result[i] = float(f"{array[i]:.7g}")
        for i in np.flatnonzero(~finite).tolist():
            result[i] = None
    return result


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, tuple) else value
