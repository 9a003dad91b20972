"""All streams, from messages to events: decode, align, window, infer, calibrate, alert, in that order.

The same messages in any batches give the same events. No clock, no socket, no disk: `now` is an input.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import GridSpec
from transom.core.alerts import AlertSpec
from transom.core.events import Alert, Events
from transom.core.grid import Grid, Silence
from transom.core.intake import Intake, Route
from transom.core.judge import Judge
from transom.core.model import Model, Windows
from transom.core.payloads import PayloadSpec
from transom.core.readings import Fate, Readings, Steps
from transom.core.topics import Pattern
from transom.core.values import PayloadError
from transom.core.windows import Buffers

MOST_STRANGERS = 10_000  # topics remembered that belong to no stream
NO_FATE = np.zeros(0, np.uint8)
SNAPSHOT = 1  # version of the snapshot's format
SET_BACK = 300_000_000  # µs: a clock that goes back by more is believed


class Message(NamedTuple):
    """A message as it arrived; nothing is decoded. received: ms since 1970; retained: the broker had it stored, and
    sends it because the subscription is new."""

    topic: str
    payload: bytes
    received: int
    redelivered: bool = False
    retained: bool = False


class Turn(NamedTuple):
    """All that the outside does to a pipeline at once; the same turns make the same pipeline.

    now: ms since 1970 when the clock was looked at, else None; jump: ms by which the clock has jumped since; shed:
    how many messages, by topic, had to be dropped before they were decoded; refused: messages that cannot be
    processed, with the reason.
    """

    messages: Sequence[Message] = ()
    now: int | None = None
    jump: int = 0
    shed: dict[str, int] | None = None
    refused: Sequence[tuple[Message, str]] = ()


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as the core sees it. budget: alarms a millisecond and series, or threshold: a plain score."""

    name: str
    topic: str
    series: tuple[str, ...] = ()
    payload: PayloadSpec = PayloadSpec()
    grid: GridSpec = GridSpec()
    stride: int = 1
    budget: float | None = 1 / 604_800_000
    threshold: float | None = None
    alert: AlertSpec = AlertSpec()
    max_series: int = 10_000


class Stream:
    """One stream: the rooms of the core in the order of the flow."""

    def __init__(self, spec: StreamSpec, model: Model) -> None:
        m = model.manifest
        self.spec, self.model = spec, model
        self.intake = Intake(
            spec.name, Pattern.parse(spec.topic), spec.series, spec.payload, m, spec.max_series, spec.grid.max_ahead
        )  # fmt: skip
        self.grid = Grid(spec.grid, len(m.channels), m.length)
        self.buffers = Buffers(m.length, len(m.channels), spec.stride, m.min_steps)
        interval = float(spec.grid.step * spec.stride) if spec.grid.step else None
        self.judge = Judge(self.intake, m, spec.alert, spec.budget, spec.threshold, interval)
        self.fates = np.zeros(len(Fate), np.int64)
        self.shed = 0

    def collect(self, readings: Readings) -> tuple[Windows, Silence, NDArray[np.uint8]]:
        """Align and window: the due windows that these readings complete, who fell silent, and each reading's fate."""
        self._make_room()
        aligned = self.grid.align(readings)
        self.fates += np.bincount(aligned.fate, minlength=len(Fate))
        return self.buffers.push(aligned.steps), aligned.silence, aligned.fate

    def process(self) -> Events:
        readings = self.intake.take()
        if not len(readings):
            return Events(dead_letters=self.intake.take_letters(NO_FATE, readings))
        windows, silence, fate = self.collect(readings)
        events = self._judged(windows, silence)
        events.dead_letters += self.intake.take_letters(fate, readings)
        return events

    def tick(self, now: int) -> Events:
        """Idle series close, silent ones are told of, forgotten ones leave. now: µs since 1970."""
        self._make_room()
        steps, silence = self.grid.tick(now)
        events = self._judged(self.buffers.push(steps), silence)
        events.moved = bool(len(steps) or len(silence.series))
        return events

    def forget(self, now: int) -> tuple[bool, Events]:
        gone = self.grid.forgotten(now)
        if not len(gone):
            return False, Events()
        events = Events(alerts=self.judge.forget(gone, now), moved=True)
        for room in (self.grid, self.buffers, self.judge):
            room.reset(gone)
        self.intake.forget(gone.tolist())
        return True, events

    def flush(self) -> Events:
        steps: Steps = self.grid.flush()
        return self._judged(self.buffers.push(steps), None)

    def _judged(self, windows: Windows, silence: Silence | None) -> Events:
        outputs = self.model.infer(windows.values) if len(windows) else {}
        if silence is not None and len(silence.series):
            return self.judge.judge_around(silence, windows, outputs)
        return self.judge.judge(windows, outputs) if len(windows) else Events()

    def _make_room(self) -> None:
        self.grid.resize(len(self.intake.names))
        self.buffers.resize(self.grid.size)
        self.judge.resize(self.grid.size)

    def accounts(self) -> dict[str, int]:
        """received = accepted + invalid + duplicate + late + shed, always; the rest explains these."""
        fates, counts = self.fates.tolist(), self.intake.counts
        # Numbers know what a rhythm only guesses: where the payload has them, the rhythm is not asked.
        sequences, numbered = self.intake.sequences, self.spec.payload.sequence is not None
        rhythm = {"gaps": 0, "missing": 0} if numbered else self.grid.rhythm.counts
        invalid = fates[Fate.INVALID] + counts["payload"] + counts["topic"] + counts["series"]
        return {
            "received": counts["received"] + self.shed, "accepted": fates[Fate.ACCEPTED], "invalid": invalid,
            "duplicate": fates[Fate.DUPLICATE] + counts["repeated"], "late": fates[Fate.LATE] + counts["retained"],
            "shed": self.shed,
            "invalid_payload": counts["payload"], "invalid_topic": counts["topic"],
            "invalid_series": counts["series"], "invalid_time": fates[Fate.INVALID],
            "retained": counts["retained"], "unused": counts["unused"],
            "open": self.grid.pending(), "series": self.intake.series_count,
            "stale": int(self.grid.stale.sum()), "gaps": rhythm["gaps"] + sequences.gaps,
            "missing": rhythm["missing"] + sequences.missing, **self.judge.counts,
        }  # fmt: skip

    def fingerprint(self) -> list[Any]:
        """What must be equal for a snapshot to fit: the model and the shape of the grid."""
        m, g = self.model.manifest, self.spec.grid
        return [m.label, self.model.sha256, m.length, len(m.channels), g.step, g.aggregate, self.spec.topic,
                list(self.spec.series)]  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint(), "intake": self.intake.snapshot(), "grid": self.grid.snapshot(),
            "buffers": self.buffers.snapshot(), "judge": self.judge.snapshot(), "fates": self.fates.copy(),
            "shed": self.shed,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("intake", "grid", "buffers", "judge"):
            getattr(self, name).restore(state[name])
        self.fates, self.shed = np.array(state["fates"]), int(state["shed"])


class Pipeline:
    """Steps 2 to 7 of the way of a reading, for all streams."""

    def __init__(self, streams: Sequence[tuple[StreamSpec, Model]], own_prefix: str = "") -> None:
        """own_prefix: topics that begin with it are our own output and never read. Raises PatternError."""
        self.streams = {spec.name: Stream(spec, model) for spec, model in streams}
        self.own_prefix = own_prefix
        self.strangers = 0  # messages that belong to no stream
        self._routes: dict[str, tuple[tuple[Stream, Route], ...]] = {}
        self._stamp = 0

    @property
    def filters(self) -> list[str]:
        """The MQTT filters to subscribe to, each once."""
        return list(dict.fromkeys(s.intake.filter for s in self.streams.values()))

    def take(self, turn: Turn) -> Events:
        """One turn: jump of the clock, messages that were shed, messages, tick."""
        if turn.jump:
            for stream in self.streams.values():
                stream.grid.shift(turn.jump * 1000)
        if turn.shed:
            self.shed(turn.shed)
        for message, reason in turn.refused:
            self._refuse(message, reason)
        return self.process(turn.messages, turn.now)

    def process(self, messages: Sequence[Message], now: int | None = None) -> Events:
        """messages in order of arrival; now: ms since 1970, None when only the messages tell the time."""
        routes = self._routes
        for topic, payload, received, _, retained in messages:
            known = routes.get(topic)
            if known is None:
                known = self._resolve(topic, payload, received * 1000)
            stamp = received * 1000
            # Two messages of the same millisecond are two readings.
            if self._stamp - SET_BACK < stamp <= self._stamp:
                stamp = self._stamp + 1
            self._stamp = stamp
            for stream, route in known:
                self._stamp = max(
                    self._stamp, stamp + stream.intake.add(route, topic, payload, received * 1000, stamp, retained)
                )
        events = Events()
        for stream in self.streams.values():
            events.extend(stream.process())
        if now is not None:
            events.extend(self._tick(now * 1000))
        events.alerts = _by_time(events.alerts)
        return events

    def flush(self) -> Events:
        """Closes all open steps: the end of a recording."""
        events = Events()
        for stream in self.streams.values():
            events.extend(stream.flush())
        return events

    def shed(self, topics: Mapping[str, int]) -> None:
        """Accounts for messages, by topic, dropped before they were decoded: each counts as one reading."""
        for topic, count in topics.items():
            for stream, _route in self._routes.get(topic) or self._resolve(topic, b"", 0):
                stream.shed += count

    def _refuse(self, message: Message, reason: str) -> None:
        topic, payload, received, *_ = message
        for stream, _route in self._routes.get(topic) or self._resolve(topic, payload, received * 1000):
            stream.intake.refuse("payload", topic, payload, received * 1000, reason)

    def fresh(self) -> "Pipeline":
        """An empty pipeline with the same streams and models."""
        return Pipeline([(s.spec, s.model) for s in self.streams.values()], self.own_prefix)

    def _resolve(self, topic: str, payload: bytes, received: int) -> tuple[tuple[Stream, Route], ...]:
        """Which streams a topic belongs to. Remembered, but for topics that would make memory grow without bound."""
        found: list[tuple[Stream, Route]] = []
        refused = full = False
        if not (self.own_prefix and topic.startswith(self.own_prefix)):
            for stream in self.streams.values():
                try:
                    route = stream.intake.route(topic)
                except PayloadError as error:
                    stream.intake.refuse("topic", topic, payload, received, str(error))
                    refused = True
                    continue
                if route is not None:
                    found.append((stream, route))
                    full |= stream.intake.series_count >= stream.spec.max_series and not stream.intake.knows(route)
        routes = tuple(found)
        if not routes and not refused:
            self.strangers += 1
        most = MOST_STRANGERS + sum(64 * s.intake.series_count for s in self.streams.values())
        if not refused and not full and routes:
            if len(self._routes) > most:
                self._routes.clear()
            self._routes[topic] = routes
        return routes

    def _tick(self, now: int) -> Events:
        events = Events()
        for stream in self.streams.values():
            events.extend(stream.tick(now))
            forgot, told = stream.forget(now)
            events.extend(told)
            if forgot:
                self._routes.clear()
        return events

    def accounts(self) -> dict[str, dict[str, int]]:
        """Counters by stream."""
        return {name: stream.accounts() for name, stream in self.streams.items()}

    def snapshot(self) -> dict[str, Any]:
        """Arrays and plain values: all that is needed to go on as if nothing had happened."""
        return {
            "version": SNAPSHOT, "stamp": self._stamp, "strangers": self.strangers,
            "streams": {name: stream.snapshot() for name, stream in self.streams.items()},
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Takes a snapshot back; returns the streams that start empty because model or shape have changed.

        Raises ValueError, with nothing changed, for a snapshot of another version of Transom's format.
        """
        if state.get("version") != SNAPSHOT:
            raise ValueError(f"version {state.get('version')} of the format, this is {SNAPSHOT}")
        self._stamp = int(state["stamp"])
        self.strangers = int(state["strangers"])
        self._routes.clear()
        fresh = []
        for name, stream in self.streams.items():
            saved = state["streams"].get(name)
            if saved is None or list(saved["fingerprint"]) != stream.fingerprint():
                fresh.append(name)
                continue
            try:
                stream.restore(saved)
            except (KeyError, TypeError, ValueError):  # half a stream restored is worse than none
                self.streams[name] = Stream(stream.spec, stream.model)
                fresh.append(name)
        return fresh


def _by_time(alerts: list[Alert]) -> list[Alert]:
    """Over the series by time; those of one series stay in the order in which they came about, for a silence goes by
    the time of arrival and an anomaly by the time of its readings."""
    latest: dict[tuple[str, str], int] = {}
    keys = []
    for alert in alerts:
        of = alert.stream, alert.series
        latest[of] = max(alert.time, latest.get(of, alert.time))
        keys.append(latest[of])
    return [alerts[i] for i in sorted(range(len(alerts)), key=keys.__getitem__)]
