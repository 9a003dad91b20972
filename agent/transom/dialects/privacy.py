"""What of the agent's events may leave the box, and under which names. Events in, events for others out.

The one place that decides it (docs/privacy.md): it is applied before anything is encoded. Nothing is kept but the
pseudonyms of known series.
"""

import base64
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.events import Alert, DeadLetter, DriftReport, Events, Predictions, Told, lasted, shown
from transom.core.telling import drifting
from transom.dialects.homeassistant import Watched

Values = Literal["full", "rounded", "none"]

PSEUDONYM = 10  # bytes of the digest, 16 characters: two of 10,000 series share one with a chance of 4e-17
CACHED = 100_000  # pseudonyms that are remembered
# What a dead letter may say where payloads do not leave: the first of these that its reason holds.
REASONS = (
    "malformed JSON", "malformed CBOR", "CBOR with shared references", "nested deeper", "invalid UTF-8",
    "not a finite number", "not a number", "neither on nor off", "boolean", "not a time", "is not ISO 8601",
    "is not between 1970 and 2200", "ahead of the clock", "no time at", "no value", "no channel found", "not an array",
    "not an object", "not a [time, value] pair", "an empty array", "the limit is", "no room for series",
    "name would be longer", "level of the topic is empty", "no valid UTF-8", "cannot be decoded",
    "not signed", "there is no key", "the signature is not that", "sent again", "before it came", "no room: numbers of",
    "the sender",
)  # fmt: skip


class Rule(NamedTuple):
    """values: of readings and what is in their units; digits: significant ones of what is rounded; resolution: by
    stream and channel, in its unit, what values of it are rounded to instead; key: of the pseudonyms, None: names."""

    values: Values = "full"
    digits: int = 2
    resolution: Mapping[tuple[str, str], float] = MappingProxyType({})
    key: bytes | None = None

    @property
    def off(self) -> bool:
        return self.values == "full" and self.key is None


def pseudonym(key: bytes, name: str, kind: str = "series") -> str:
    """HMAC-SHA-256 (RFC 2104) of kind and name, its first 80 bits in base32 (RFC 4648), lower case. kind: `series`, or
    what else must not be told by its name: `topic`."""
    digest = hmac.digest(key, f"{kind}\0{name}".encode("utf-8", "surrogatepass"), "sha256")
    return base64.b32encode(digest[:PSEUDONYM]).decode().lower()


class Privacy:
    """A rule, applied."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.off = rule, rule.off
        self._key = rule.key
        self._name = lru_cache(CACHED)(lambda kind, name: pseudonym(rule.key or b"", name, kind))
        self._raw = rule.values == "full"

    # --- names --------------------------------------------------------------------------------------------------------

    def name(self, series: str) -> str:
        return series if self._key is None else self._name("series", series)

    def topic(self, topic: str) -> str:
        """A topic, or a filter, of sensors."""
        return topic if self._key is None else self._name("topic", topic)

    def alert_id(self, alert: str) -> str:
        """Of an alert's own id, which is a digest of the series' name: whoever guesses the name could check it."""
        return alert if self._key is None else hmac.digest(self._key, f"alert\0{alert}".encode(), "sha256")[:8].hex()

    def watched(self, one: Watched) -> Watched:
        """A series as it is announced."""
        if self.rule.values == "none":  # there will be no values to show
            one = one._replace(channels=(), units=())
        return one._replace(series=self.name(one.series))

    # --- events -------------------------------------------------------------------------------------------------------

    def events(self, events: Events) -> Events:
        """The same events as others may see them."""
        if self.off:
            return events
        return Events(
            [self._predictions(batch) for batch in events.predictions], [self.alert(a) for a in events.alerts],
            self.letters(events.dead_letters), events.moved,
        )  # fmt: skip

    def page(self, events: Events) -> Events:
        """As `events`, for a page that draws values: those that are left out are there as missing ones."""
        told = self.events(events)
        if self.rule.values != "none":
            return told
        blank = [replace(p, value=np.full_like(full.value, np.nan))
                 for p, full in zip(told.predictions, events.predictions, strict=True)]  # fmt: skip
        return Events(blank, told.alerts, told.dead_letters, told.moved)

    def letters(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        return list(letters) if self.off else [self._letter(letter) for letter in letters]

    def _predictions(self, p: Predictions) -> Predictions:
        names = p.series if self._key is None else [self._name("series", series) for series in p.series]
        if self._raw:
            return replace(p, series=names)
        p = replace(
            p, series=names, score=self._derived(p.score), p_value=self._derived(p.p_value),
            contribution=self._derived(p.contribution), probability=self._derived(p.probability),
        )  # fmt: skip
        if self.rule.values == "none":
            nothing = np.empty((len(p), 0), np.float32)
            return replace(p, value=nothing, expected=None, interval=None, forecast=None)
        step = np.array([self._steps(p.stream, row) for row in p.channels]).reshape(p.value.shape)
        forecast = p.forecast
        if forecast is not None:
            of = np.array([self._steps(p.stream, p.targets)]) if p.targets else step
            forecast = self._rounded(forecast, of[:, None, :, None])
        return replace(
            p, value=self._rounded(p.value, step), expected=self._rounded(p.expected, step),
            interval=self._rounded(p.interval, step[..., None]), forecast=forecast,
        )  # fmt: skip

    def alert(self, alert: Alert) -> Alert:
        alert = replace(alert, id=self.alert_id(alert.id), series=self.name(alert.series))
        if self._raw:
            return alert
        told, peak = alert.told, self._short(alert.peak_score)
        alert = replace(
            alert, score=self._short(alert.score), peak_score=peak, p_value=self._short(alert.p_value),
            contribution={name: self._short(share) or 0.0 for name, share in alert.contribution.items()},
        )  # fmt: skip
        if self.rule.values == "none":
            text = alert.summary if told is None else _wordless(told, peak)
            return replace(alert, value={}, expected={}, interval={}, told=None, summary=text)
        at = alert.stream
        if told is not None:
            told = self._told(at, told)
        return replace(
            alert, value={c: self._near(at, c, v) for c, v in alert.value.items()},
            expected={c: self._near(at, c, v) for c, v in alert.expected.items()},
            interval={c: (self._near(at, c, low), self._near(at, c, high))
                      for c, (low, high) in alert.interval.items()},
            told=told, summary=alert.summary if told is None else told.text(peak or 0.0),
        )  # fmt: skip

    def _told(self, at: str, told: Told) -> Told:
        def near(values: Sequence[float]) -> tuple[float, ...]:
            return tuple(self._near(at, c, v, np.nan) for c, v in zip(told.channels, values, strict=True))

        past = told.past
        if past is not None:
            c = told.channels[0]
            past = past[0], self._near(at, c, past[1], np.nan), self._near(at, c, past[2], np.nan)
        bands = told.interval
        if bands is not None:
            lows, highs = near([low for low, _ in bands]), near([high for _, high in bands])
            bands = tuple(zip(lows, highs, strict=True))
        expected = None if told.expected is None else near(told.expected)
        return told._replace(value=near(told.value), expected=expected, interval=bands, past=past)

    def _letter(self, letter: DeadLetter) -> DeadLetter:
        """Neither its payload nor what its reason quotes of it: both may hold values and names."""
        reason = next((known for known in REASONS if known in letter.reason), "refused")
        return replace(letter, topic=self.topic(letter.topic), reason=reason, shown=False)

    def drift(self, report: DriftReport) -> DriftReport:
        report = replace(report, series=self.name(report.series))
        if self._raw:
            return report
        report = replace(report, sizes=self._short(report.sizes) or 0.0, usual=0.0)
        if self.rule.values == "none":
            text = f"{report.channel} {'drifts' if report.kind == 'drift' else 'is away from the training data'}"
            return replace(report, before=np.nan, now=np.nan, far=np.nan, per_day=np.nan, unit="", summary=text)
        at, c = report.stream, report.channel
        before, now = self._near(at, c, report.before, np.nan), self._near(at, c, report.now, np.nan)
        rate = self._short(report.per_day) or 0.0
        report = replace(report, before=before, now=now, far=now - before, per_day=rate)
        return replace(report, summary=drifting(report))

    def explanation(self, body: Mapping[str, Any], stream: str) -> dict[str, Any]:
        """The answer to a call for an explanation (dialects/explanations.py), whose series is renamed already."""
        told = dict(body)
        if self._raw:
            return told
        for key in ("share", "window", "sum", "gap"):
            del told[key]
        channels = [{k: v for k, v in one.items() if k in ("channel", "unit", "percent", "missing")}
                    for one in told["channels"]]  # fmt: skip
        text = ", ".join(f"{one['percent']:.0f} % from {one['channel']}" for one in channels[:3])
        if self.rule.values == "none":
            del told["value"], told["reference_value"]
        else:
            for key in ("value", "reference_value"):
                told[key] = self._short(told[key])
            for one, full in zip(channels, told["channels"], strict=True):
                for key in ("value", "mean", "reference_mean"):
                    one[key] = self._near(stream, one["channel"], full[key])
            against = f"{told['target']} {shown(told['value'] or 0.0)}, {shown(told['reference_value'] or 0.0)}"
            text = f"{against} for {told['reference']}; {text}"
        return told | {"channels": channels, "summary": text}

    # --- numbers ------------------------------------------------------------------------------------------------------

    def _steps(self, stream: str, channels: Sequence[str]) -> list[float]:
        """What values of these channels are rounded to, NaN for significant digits."""
        return [self.rule.resolution.get((stream, c), np.nan) for c in channels]

    def _rounded(self, values: Any, step: NDArray[np.float64]) -> Any:
        """step: of each value, NaN for significant digits; it is broadcast to the shape of `values`."""
        if values is None:
            return None
        values = values.astype(np.float64)
        by = np.where(np.isfinite(step), step, self._unit(values))
        return np.rint(values / by) * by

    def _unit(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each value the size of its last significant digit."""
        size = np.abs(np.where(np.isfinite(values) & (values != 0), values, 1.0))
        unit: NDArray[np.float64] = 10.0 ** (np.floor(np.log10(size)) + 1 - self.rule.digits)
        return unit

    def _derived(self, values: Any) -> Any:
        return self._rounded(values, np.array(np.nan))

    def _short(self, value: float | None) -> float | None:
        return None if value is None else float(f"{value:.{self.rule.digits}g}")

    def _near(self, stream: str, channel: str, value: Any, none: Any = None) -> Any:
        if value is None or not np.isfinite(value):
            return none
        step = self.rule.resolution.get((stream, channel))
        return self._short(value) if step is None else float(f"{round(value / step) * step:.12g}")


def _wordless(told: Told, peak: float | None) -> str:
    """A sentence without any value: "temperature and pressure unusual"."""
    text = f"{' and '.join(told.channels)} {told.ended or 'unusual'}"
    return f"{text} after {lasted(told.lasted)}, peak score {peak or 0.0:.3g}" if told.ended else text
