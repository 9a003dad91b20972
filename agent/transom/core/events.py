"""What a pipeline has to say: predictions as columns, alerts with their sentence, refused payloads with their reason.

Nothing here is encoded yet; the dialects do that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

ChannelValues = Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Predictions:
    """One batch of predictions of one stream: columns, first axis B, ordered by series and time.

    series, channels: for each row the series' name and the names of its C channels; end: int64 [B], µs since 1970,
    the window's last step; value: float32 [B, C], the last step, NaN where missing, [B, 0] where withheld; score
    float32 [B], p_value float64 [B], state uint8 [B] (alerts.State); expected float32 [B, C], interval float32
    [B, C, 2], contribution float32 [B, C], forecast float32 [B, H, C, Q], probability float32 [B, K]: None where the
    task gives none.
    targets: the names of a forecast's C where they are not the channels; lead: steps from `end` to its first.
    """

    stream: str
    model: str
    series: Sequence[str]
    channels: Sequence[tuple[str, ...]]
    end: NDArray[np.int64]
    value: NDArray[np.float32]
    state: NDArray[np.uint8]
    score: NDArray[np.float32] | None = None
    p_value: NDArray[np.float64] | None = None
    expected: NDArray[np.float32] | None = None
    interval: NDArray[np.float32] | None = None
    contribution: NDArray[np.float32] | None = None
    forecast: NDArray[np.float32] | None = None
    probability: NDArray[np.float32] | None = None
    quantiles: tuple[float, ...] = ()
    targets: tuple[str, ...] = ()
    lead: int = 1
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.end)


class Told(NamedTuple):
    """What the sentence of an anomaly is made of. Of each channel that it names its unit, value and expected value,
    and low and high of its band, NaN where unknown; past: what is strange by the series' own past, see `by_its_past`,
    if that is known; ended: what may be said at its end, "" before it; lasted: µs."""

    channels: tuple[str, ...]
    units: tuple[str, ...]
    value: tuple[float, ...]
    expected: tuple[float, ...] | None
    interval: tuple[tuple[float, float], ...] | None
    past: tuple[int, float, float] | None
    ended: str
    lasted: int

    def text(self, peak: float) -> str:
        """peak: the alert's highest score so far."""
        text = sentence(self)
        if self.past is not None and self.interval is not None:
            text += by_its_past(self.value[0], self.interval[0], *self.past)
        return f"{text}: {self.ended} after {lasted(self.lasted)}, peak score {peak:.3g}" if self.ended else text


@dataclass(frozen=True, slots=True)
class Alert:
    """A change in the life of one alert. since, time: µs since 1970; contribution: channels, largest first; channels:
    those that it has named so far, in that order; acknowledged: by whom and when (µs), None when nobody has; told: what
    an anomaly's summary says, None where that has no values in it."""

    id: str
    event: Literal["raise", "update", "clear"]
    kind: Literal["anomaly", "no-data"]
    severity: str
    stream: str
    series: str
    model: str
    since: int
    time: int
    summary: str
    score: float | None = None
    peak_score: float | None = None
    p_value: float | None = None
    value: ChannelValues = field(default_factory=dict)
    expected: ChannelValues = field(default_factory=dict)
    interval: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    contribution: Mapping[str, float] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    acknowledged: tuple[str, int] | None = None
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """A channel whose level creeps (`drift`), or is elsewhere than in the training data (`reference`).

    since: µs since 1970, the day it began, None for `reference`; before, now: levels, far: what lies between, in raw
    units; sizes: the same in usual spreads of the channel; per_day: raw units a day, 0 for `reference`; usual: that
    spread, in raw units."""

    stream: str
    series: str
    channel: str
    kind: Literal["drift", "reference"]
    unit: str
    since: int | None
    before: float
    now: float
    far: float
    sizes: float
    per_day: float
    summary: str
    usual: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A payload, or a part of it, that is no reading. reason: a sentence; kind: as what it is counted; shown: whether
    others may see the payload."""

    stream: str
    topic: str
    payload: bytes
    reason: str
    kind: str = ""
    shown: bool = True


@dataclass(slots=True)
class Events:
    """All that one call of `Pipeline.process` has to say."""

    predictions: list[Predictions] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    moved: bool = False  # True when a tick closed a step, found a silence or forgot a series

    def extend(self, other: "Events") -> None:
        self.predictions += other.predictions
        self.alerts += other.alerts
        self.dead_letters += other.dead_letters
        self.moved |= other.moved


def shown(value: float, against: float = 0.0) -> str:
    """A number for a person: four significant digits, no exponent for ordinary sizes; more digits, up to eight, where
    `against`, a size that it is seen against, needs them: 101325.5 beside 0.3."""
    if not np.isfinite(value):
        return "nothing"
    size = abs(value)
    if 0 < 100 * against < size < 1e7 and size >= 1e-4:
        return f"{value:.{min(8, 2 + int(np.ceil(np.log10(size / against))))}g}"
    if size >= 1e7 or 0 < size < 1e-4:
        return f"{value:.3e}"
    if size >= 1000:
        return f"{value:.0f}"
    return f"{value:.4g}" if size < 100 else f"{value:.1f}"


def sentence(told: Told) -> str:
    """What was seen, for a person to check: "temperature 84.2 °C, expected 71.3 (69.2 to 73.4); pressure …"."""
    parts: list[str] = []
    for i, (channel, unit) in enumerate(zip(told.channels, told.units, strict=True)):
        part = f"{channel} {shown(told.value[i])}"
        part += f" {unit}" if unit else ""
        if told.expected is not None:
            part += f", expected {shown(told.expected[i])}"
            if told.interval is not None and np.isfinite(told.interval[i]).all():
                part += f" ({shown(told.interval[i][0])} to {shown(told.interval[i][1])})"
        parts.append(part)
    return "; ".join(parts)


def by_its_past(value: float, interval: tuple[float, float], side: int, usual: float, level: float) -> str:
    """What is strange about a value by its series' own past, where the expected band does not say it; else "".

    interval: the band; side: 0 the value, 1 the value at such an hour, 2 the mean of late (`own.Told`).
    """
    if side == 1:
        return f"; usually {shown(usual)} at this hour"
    if side == 2:
        return f"; its mean of late, {shown(level)}, is like none before"
    return "" if not interval[0] <= value <= interval[1] else "; like no value before it at such a level and hour"


def lasted(micro: int) -> str:
    """A stretch of time for a person: "42 s", "3 min", "2.5 h", "4 d"."""
    seconds = micro / 1e6
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
