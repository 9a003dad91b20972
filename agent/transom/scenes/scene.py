"""What a scene is: who sends what at which pace, which faults befall it when, and what its models should make of it.

Two times run here: seconds of the demo, which the viewer's clock shows, and the sensors' own time, which may run faster
and which every payload carries.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

DAY = 86_400_000  # ms
METRES = 111_195.0  # of a degree of latitude, on a sphere of 6,371 km


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault that can happen. alert: the kind of alert that it should raise on `series` of `stream`.

    lasts, after: seconds, where they differ from the scene's.
    """

    name: str
    stream: str
    series: str
    alert: Literal["anomaly", "no-data"] = "anomaly"
    lasts: float | None = None
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `begin` to `end`, seconds of the demo; an alert up to `due` still counts as caught."""

    kind: Kind
    begin: float
    end: float
    due: float


Naive = Callable[[NDArray[np.float64], int], NDArray[np.float64]]


def last_value(history: NDArray[np.float64], ahead: int) -> NDArray[np.float64]:  # noqa: ARG001  # it stays for ever
    """The naive forecast: what was seen last. history: [n, C], newest last -> [C]."""
    return np.asarray(history[-1], np.float64)


def velocity(history: NDArray[np.float64], ahead: int) -> NDArray[np.float64]:
    """The naive forecast of a position: the last two steps go on. history: [n, C], newest last -> [C]."""
    steps = min(2, len(history) - 1)
    pace = (history[-1] - history[-1 - steps]) / max(steps, 1)
    return np.asarray(history[-1] + ahead * pace, np.float64)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a stream's forecasts are judged. naive: from the last values of the C targets, newest last, and the number of
    steps ahead, what a forecast without a model would say; plane: targets are coordinates, the error is a distance;
    degrees: they are latitude and longitude, and the distance is in metres."""

    naive: Naive = last_value
    naive_name: str = "last value"
    plane: bool = False
    degrees: bool = False

    def distance(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        """Between two places [2], in their unit, or in metres."""
        away = np.asarray(a - b, np.float64)
        if self.degrees:
            away = away * METRES * np.array([1.0, np.cos(np.radians(b[0]))])
        return float(np.linalg.norm(away))


class Simulation(Protocol):
    """One run of a scene: the same seed and the same moments give the same messages."""

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        """Topics and payloads of this beat. seconds: of the demo, rising; now: the sensors' time, ms since 1970, which
        the payloads carry; fault: the one that is on."""
        ...

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:
        """The class that a recognition over the window from `begin` to `end` (ms) should name; None where there is none
        or where there are several, so that nothing is counted."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """What one series of a stream sends while all is well, to learn from.

    times: int64 µs [n], ascending; values: float64 [n, C]; labels: float64 [n], the number of the class in `classes`,
    NaN where there is none, or None; targets: float32 [n, C_targets] where a forecast is about other columns.
    """

    series: str
    channels: tuple[str, ...]
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    labels: NDArray[np.float64] | None = None
    classes: tuple[str, ...] = ()
    targets: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene. description: one line; real: which data its models learned from, and that what it sends is simulated.

    streams: the table `streams` of the settings. rate: beats a second of the demo; pace: ms of the sensors' time from
    beat to beat, None where both times are one; hour: the sensors' hour (UTC) at the first beat, None: the present.
    first, every, lasts, after, grace: seconds to the first fault, from one to the next, of each, after it in which its
    alert still counts as caught, and in which a further alert of its series still belongs to it.
    outlooks: by stream, where forecasts are not judged beside the last value. material: by stream, what a model of it
    learns from: hours of the sensors' time and a seed in, normal running of some series out.
    """

    name: str
    description: str
    real: str
    streams: Mapping[str, Mapping[str, Any]]
    start: Callable[[int], Simulation]
    kinds: tuple[Kind, ...]
    rate: float = 8
    pace: int | None = None
    hour: float | None = None
    first: float = 18.0
    every: float = 8.0
    lasts: float = 4.0
    after: float = 4.0
    grace: float = 8.0
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)
    material: Mapping[str, Callable[[float, int], Sequence[Trace]]] = field(default_factory=dict)

    def schedule(self, seconds: float | None) -> Iterator[Fault]:
        """The faults in their order; only those that end, with time to be caught, before `seconds`."""
        begin, i = self.first, 0
        while self.kinds:
            kind = self.kinds[i % len(self.kinds)]
            end = begin + (self.lasts if kind.lasts is None else kind.lasts)
            due = end + (self.after if kind.after is None else kind.after)
            if seconds is not None and due > seconds:
                return
            yield Fault(kind, begin, end, due)
            begin, i = begin + self.every, i + 1

    def begun(self, now: int) -> int:
        """The sensors' time at the first beat, ms since 1970. now: the clock's."""
        return now if self.hour is None else now // DAY * DAY + round(self.hour * 3_600_000)

    def stamp(self, begun: int, beat: int) -> int:
        """The sensors' time of a beat: on the beat, so that a sender that was held up and sends several at once repeats
        no time and leaves no hole."""
        return begun + round(beat * (1000 / self.rate if self.pace is None else self.pace))
