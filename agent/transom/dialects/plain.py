"""Events to our own JSON topics, and to the lines of a replay. The names and formats are a contract.

Events in, publications or lines out; nothing is sent from here.
"""

import base64
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Alert, DeadLetter, DriftReport, Events, Predictions

LONGEST_LETTER = 1024  # bytes of a refused payload that are shown
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNSAFE = re.compile(r"[+#%\x00-\x1f\x7f-\x9f]")  # not allowed in a topic name, or by MQTT 5.0 section 1.5.4
_OBJECT = b"{%b:%b}"
CACHED = 100_000  # names whose text is remembered
_encode = msgspec.json.Encoder().encode
_STATES = tuple(_encode(s.name.lower()) for s in State)


class Publication(NamedTuple):
    """A message to send."""

    topic: str
    payload: bytes
    qos: int
    retain: bool


def publications(events: Events, base: str) -> Iterator[Publication]:
    """base: `transom/<agent id>`. Predictions first, then the alerts that they caused, then dead letters."""
    for batch in events.predictions:
        prefix = f"{base}/{batch.stream}/"
        for series, line in zip(batch.series, lines(batch), strict=True):
            yield Publication(f"{prefix}{topic_part(series)}/prediction", line, 0, False)
    for alert in events.alerts:
        topic = f"{base}/{alert.stream}/{topic_part(alert.series)}/alert"
        yield Publication(topic, _encode(alert_body(alert)), 1, True)
    for letter in events.dead_letters:
        yield Publication(f"{base}/{letter.stream}/dead-letter", _encode(letter_body(letter)), 0, False)


def lines(batch: Predictions) -> Iterator[bytes]:
    """One JSON object a row, without a line's end. A key that the task does not give is left out.

    Numbers become text a column at a time and rows by one template: a dictionary a row costs five times as much.
    """
    columns: list[tuple[str, Sequence[bytes]]] = [
        ("time", _times(batch.end)), ("stream", _same(batch.stream, batch)), ("series", _map(_quoted, batch.series)),
        ("model", _same(batch.model, batch)),
    ]  # fmt: skip
    if batch.score is not None and batch.p_value is not None:
        columns.append(("score", _numbers(batch.score)))
        columns.append(("p_value", _encode([float(f"{p:.6g}") for p in batch.p_value.tolist()])[1:-1].split(b",")))
    columns.append(("value", _by_name(batch.channels, batch.value)))
    for name, array in (
        ("expected", batch.expected),
        ("interval", batch.interval),
        ("contribution", batch.contribution),
    ):
        if array is not None:
            columns.append((name, _by_name(batch.channels, array)))
    if batch.forecast is not None:  # [B, H, C, Q] -> by target, H lists of Q quantiles
        names = [batch.targets] * len(batch) if batch.targets else batch.channels
        columns.append(("forecast", _by_name(names, batch.forecast.transpose(0, 2, 1, 3))))
        columns.append(("quantiles", [_encode(batch.quantiles)] * len(batch)))
        columns.append(("lead", [_encode(batch.lead)] * len(batch)))
    if batch.probability is not None:
        columns.append(("probability", _by_name([batch.classes] * len(batch), batch.probability)))
    columns.append(("state", [_STATES[state] for state in batch.state.tolist()]))
    template = b"{" + b",".join(b'"%b":%%b' % name.encode() for name, _ in columns) + b"}"
    for row in zip(*(texts for _, texts in columns), strict=True):
        yield template % row


def _numbers(array: NDArray[Any]) -> list[bytes]:
    """Each number of the array as JSON, in its order."""
    return _encode(_rows(array.reshape(-1)))[1:-1].split(b",") if array.size else []


def _by_name(names: Sequence[tuple[str, ...]], array: NDArray[Any]) -> list[bytes]:
    """array: [B, N, …] -> a JSON object a row: name: its number, or its list of them."""
    shape = array.shape
    if array.ndim == 2:
        texts: Sequence[bytes] = _numbers(array)
    elif array.ndim == 3:
        pieces = _numbers(array)
        texts = [b"[%b]" % b",".join(pieces[i : i + shape[2]]) for i in range(0, len(pieces), shape[2])]
    else:
        texts = [_encode(item) for row in _rows(array) or [] for item in row]
    if shape[1] == 1:
        return [_OBJECT % (_quoted(name), text) for (name,), text in zip(names, texts, strict=True)]
    each = range(shape[1])
    return [
        b"{%b}" % b",".join([b"%b:%b" % (_quoted(row[j]), texts[i * shape[1] + j]) for j in each])
        for i, row in enumerate(names)
    ]


def _times(end: NDArray[np.int64]) -> Sequence[bytes]:
    if len(end) and not (end % 1000).any() and int(end.min()) >= 0:
        shown = np.datetime_as_string((end // 1000).astype("datetime64[ms]"), timezone="UTC")
        return _encode(shown.tolist())[1:-1].split(b",")
    return [_encode(rfc3339(micro)) for micro in end.tolist()]


def _same(text: str, batch: Predictions) -> Sequence[bytes]:
    return [_encode(text)] * len(batch)


def _map(function: Callable[[str], bytes], items: Sequence[str]) -> list[bytes]:
    return [function(item) for item in items]


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
    return {key: _rounded(value) for key, value in body.items() if value is not None}


def letter_body(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic.encode("utf-8", "replace").decode(), "reason": letter.reason,
        "bytes": len(letter.payload),
        "payload": base64.b64encode(letter.payload[:LONGEST_LETTER]).decode(),
    }  # fmt: skip


def rfc3339(micro: int) -> str:
    """µs since 1970 -> "2014-07-01T12:00:00.000Z"; microseconds only where there are any."""
    moment = _EPOCH + timedelta(microseconds=micro)
    spec = "milliseconds" if micro % 1000 == 0 else "microseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


@lru_cache(CACHED)
def topic_part(series: str) -> str:
    """The series' name as part of a topic: what MQTT forbids there is percent-encoded, bytewise."""
    return _UNSAFE.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode("utf-8", "replace")), series)


def _rows(array: NDArray[Any] | None) -> list[Any] | None:
    """Nested lists of numbers with the seven significant digits that float32 holds; None where not finite."""
    if array is None:
        return None
    wide = array.astype(np.float64)
    finite = np.isfinite(wide)
    size = np.abs(np.where(finite & (wide != 0), wide, 1.0))
    scale = 10.0 ** np.clip(6 - np.floor(np.log10(size)), -290, 290)
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.rint(wide * scale) / scale
    result: list[Any] = rounded.tolist() if finite.all() else _nulled(rounded.tolist(), finite.tolist())
    return result


def _nulled(values: Any, finite: Any) -> Any:
    if isinstance(values, list):
        return [_nulled(v, f) for v, f in zip(values, finite, strict=True)]
    return values if finite else None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, tuple) else value
