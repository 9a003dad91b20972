"""Events to our own JSON topics, and to the lines of a replay. The names and formats are a contract.

Events in, publications or lines out; nothing is sent from here.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Alert, DeadLetter, Events, Predictions

LONGEST_LETTER = 1024  # bytes of a refused payload that are shown
STATES = tuple(s.name.lower() for s in State)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNSAFE = re.compile(r"[+#%\x00-\x1f\x7f-\x9f]")  # not allowed in a topic name, or by MQTT 5.0 section 1.5.4
_encode = msgspec.json.Encoder().encode


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
    """One JSON object a row, without a line's end. A key that the task does not give is left out."""
    value = _rows(batch.value) or []
    score, p_value = _rows(batch.score), batch.p_value.tolist() if batch.p_value is not None else None
    expected, interval, contribution = _rows(batch.expected), _rows(batch.interval), _rows(batch.contribution)
    forecast, probability = _rows(batch.forecast), _rows(batch.probability)
    state, end = batch.state.tolist(), batch.end.tolist()
    for i, channels in enumerate(batch.channels):
        line: dict[str, Any] = {
            "time": rfc3339(end[i]), "stream": batch.stream, "series": batch.series[i], "model": batch.model,
        }  # fmt: skip
        if score is not None and p_value is not None:
            line["score"], line["p_value"] = score[i], float(f"{p_value[i]:.6g}")
        line["value"] = dict(zip(channels, value[i], strict=True))
        if expected is not None:
            line["expected"] = dict(zip(channels, expected[i], strict=True))
        if interval is not None:
            line["interval"] = dict(zip(channels, interval[i], strict=True))
        if contribution is not None:
            line["contribution"] = dict(zip(channels, contribution[i], strict=True))
        if forecast is not None:  # [H, C, Q] -> by target, H lists of Q quantiles
            names = batch.targets or channels
            line["forecast"] = {c: [step[j] for step in forecast[i]] for j, c in enumerate(names)}
            line["quantiles"], line["lead"] = batch.quantiles, batch.lead
        if probability is not None:
            line["probability"] = dict(zip(batch.classes, probability[i], strict=True))
        line["state"] = STATES[state[i]]
        yield _encode(line)


def alert_body(alert: Alert) -> dict[str, Any]:
    """The alert as published; keys that its kind does not give are left out."""
    body: dict[str, Any] = {
        "id": alert.id, "event": alert.event, "kind": alert.kind, "severity": alert.severity, "stream": alert.stream,
        "series": alert.series, "model": alert.model, "since": rfc3339(alert.since), "time": rfc3339(alert.time),
        "score": alert.score, "peak_score": alert.peak_score, "p_value": alert.p_value,
        "value": alert.value, "expected": alert.expected, "interval": alert.interval,
        "contribution": alert.contribution, "summary": alert.summary,
    }  # fmt: skip
    return {key: _rounded(value) for key, value in body.items() if value is not None and value != {}}


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
