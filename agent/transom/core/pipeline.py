"""All streams, from messages to events: decode, align, window, infer, calibrate, alert, in that order.

The same messages in any batches give the same events. No clock, no socket, no disk: `now` is an input.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from transom.core import adoption
from transom.core.attention import Call
from transom.core.due import Due, infer
from transom.core.events import Alert, DriftReport, Events
from transom.core.intake import Route
from transom.core.model import Model, Outputs
from transom.core.stream import Stream, StreamSpec
from transom.core.values import PayloadError
from transom.errors import ModelError

MOST_STRANGERS = 10_000  # topics remembered that belong to no stream
SNAPSHOT = 1  # version of the snapshot's format
SET_BACK = 300_000_000  # µs: a clock that goes back by more is believed


class Message(NamedTuple):
    """A message as it arrived; nothing is decoded. received: ms since 1970; retained: the broker had it stored, and
    sends it because the subscription is new; sender: what a user property says of him, None where nobody asks."""

    topic: str
    payload: bytes
    received: int
    redelivered: bool = False
    retained: bool = False
    sender: str | None = None


class Turn(NamedTuple):
    """All that the outside does to a pipeline at once; the same turns make the same pipeline.

    now: ms since 1970 when the clock was looked at, else None; jump: ms by which the clock has jumped since; shed:
    how many messages, by topic, had to be dropped before they were decoded; refused: messages that cannot be
    processed, with the reason; calls: what people ask, before the messages.
    """

    messages: Sequence[Message] = ()
    now: int | None = None
    jump: int = 0
    shed: dict[str, int] | None = None
    refused: Sequence[tuple[Message, str]] = ()
    calls: Sequence[Call] = ()


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
        """One turn: jump of the clock, messages that were shed, calls, messages, tick."""
        waiting = self.gather(turn)
        events = self.judge(waiting, infer(waiting))
        if turn.now is not None:
            events.extend(self._tick(turn.now * 1000))
            events.alerts = _by_time(events.alerts)
        return events

    def process(self, messages: Sequence[Message], now: int | None = None) -> Events:
        """messages in order of arrival; now: ms since 1970, None when only the messages tell the time."""
        return self.take(Turn(messages, now))

    def gather(self, turn: Turn) -> list[Due]:
        """The first half of a turn without a tick: up to the windows that are due.

        `take` is this, then `core.due.infer`, then `judge`. Turns must be gathered in their order and judged in it; the
        next one may be gathered before this one is judged. In between there is nothing that a snapshot could hold.
        """
        if turn.jump:
            for stream in self.streams.values():
                stream.grid.shift(turn.jump * 1000)
        if turn.shed:
            self.shed(turn.shed)
        for message, reason in turn.refused:
            self._refuse(message, reason)
        for call in turn.calls:
            if call.stream in self.streams:
                self.streams[call.stream].call(call)
        self._decode(turn.messages)
        return [stream.gather() for stream in self.streams.values()]

    def judge(self, waiting: Sequence[Due], outputs: Sequence[Outputs]) -> Events:
        """The second half: what is to be said of them."""
        events = Events()
        for due, given in zip(waiting, outputs, strict=True):
            events.extend(self.streams[due.stream].judged(due, given))
        events.alerts = _by_time(events.alerts)
        return events

    def _decode(self, messages: Sequence[Message]) -> None:
        routes = self._routes
        for topic, payload, received, _, retained, sender in messages:
            known = routes.get(topic)
            if known is None:
                known = self._resolve(topic, payload, received * 1000)
            stamp = received * 1000
            # Two messages of the same millisecond are two readings.
            if self._stamp - SET_BACK < stamp <= self._stamp:
                stamp = self._stamp + 1
            self._stamp = stamp
            for stream, route in known:
                more = stream.intake.add(route, topic, payload, received * 1000, stamp, retained, sender)
                if more:
                    self._stamp = max(self._stamp, stamp + more)

    def flush(self) -> Events:
        """Closes all open steps: the end of a recording."""
        waiting = [stream.flush() for stream in self.streams.values()]
        return self.judge(waiting, infer(waiting))

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

    def with_model(self, spec: StreamSpec, model: Model, shadow: Mapping[str, Any] | None = None) -> "Pipeline":
        """A pipeline that goes on from here with another model in one stream. shadow: see `adoption.adopt`. Raises
        ValueError where the stream has another shape with it."""
        streams = [(s.spec, s.model) for name, s in self.streams.items() if name != spec.name]
        order = list(self.streams)
        other = Pipeline(sorted([*streams, (spec, model)], key=lambda pair: order.index(pair[0].name)), self.own_prefix)
        state = self.snapshot()
        saved, fresh = state["streams"].pop(spec.name), Stream(spec, model)
        if not adoption.fits(fresh, saved):
            raise ValueError(f"streams.{spec.name}: {model.manifest.label} has another shape")
        other.restore(state)
        adoption.adopt(fresh, saved, shadow)
        other.streams[spec.name] = fresh
        return other

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
        waiting = [stream.tick(now) for stream in self.streams.values()]
        events = self.judge(waiting, infer(waiting))
        for stream in self.streams.values():
            events.alerts += stream.judge.standing.wake(now)
            forgot, told = stream.forget(now)
            events.extend(told)
            if forgot:
                self._routes.clear()
        return events

    def accounts(self) -> dict[str, dict[str, int]]:
        """Counters by stream."""
        return {name: stream.accounts() for name, stream in self.streams.items()}

    def drifting(self, most: int = 10) -> tuple[int, list[DriftReport]]:
        """How many channels drift, and those `most` that have moved farthest, in their usual spreads."""
        found = [stream.drifting(most) for stream in self.streams.values()]
        reports = sorted((r for _, some in found for r in some), key=lambda r: -abs(r.sizes))
        return sum(count for count, _ in found), reports[:most]

    def snapshot(self, only: Collection[str] | None = None) -> dict[str, Any]:
        """Arrays and plain values: all that is needed to go on as if nothing had happened. only: of these streams."""
        return {
            "version": SNAPSHOT, "stamp": self._stamp, "strangers": self.strangers,
            "streams": {n: stream.snapshot() for n, stream in self.streams.items() if only is None or n in only},
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> list[str]:
        """Takes a snapshot back; returns the streams that start empty because their shape has changed. One whose model
        has changed, and nothing else, goes on with its windows (`adoption`).

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
            same = saved is not None and list(saved["fingerprint"]) == stream.fingerprint()
            if saved is None or not (same or adoption.fits(stream, saved)):
                fresh.append(name)
                if saved is not None:
                    stream.intake.remember(saved["intake"])
                continue
            try:
                if same:
                    stream.restore(saved)
                else:
                    adoption.adopt(stream, saved)
            except (KeyError, TypeError, ValueError, ModelError):  # half a stream restored is worse than none
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
