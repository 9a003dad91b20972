"""Messages to readings of one stream: which series and channel a topic and a payload mean, and what is refused.

Topics and payloads in, columns of `Readings` and dead letters out. A known topic costs one look-up.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core.events import DeadLetter, lasted
from transom.core.letters import Letters
from transom.core.model import ANY, Manifest
from transom.core.payloads import Decode, PayloadSpec, compile_decoder, sequence_of
from transom.core.proof import Proof, ProofError, ProofSpec
from transom.core.readings import Fate, Readings
from transom.core.sequence import Sequences
from transom.core.topics import CHANNEL, Pattern
from transom.core.values import PayloadError

LONGEST_NAME = 512  # characters of a series' name, which becomes part of a topic
NEVER_AHEAD = 1 << 62
MOST_TARGETS = 1000  # keys of one topic's payloads that are remembered
COUNTS = ("received", "unused", "payload", "topic", "series", "repeated", "retained", "sender", "signature")

Target = tuple[int, int] | None  # series and channel, or None for a channel that the stream does not use


@dataclass(slots=True)
class Route:
    """What a topic means: the series' name without a channel, the channel it names, how to read its payload, and what
    its sender must be called."""

    base: str
    channel: str | None
    decode: Decode
    sender: str | None = None
    targets: dict[str | None, Target] = field(default_factory=dict)


@dataclass(slots=True)
class _Columns:
    series: list[int] = field(default_factory=list)
    channel: list[int] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    value: list[float] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    arrival: list[bool] = field(default_factory=list)


class Intake:
    """The series of one stream and the readings collected since the last `take`."""

    def __init__(
        self, name: str, pattern: Pattern, series: Sequence[str], payload: PayloadSpec, manifest: Manifest,
        max_series: int, max_ahead: int | None = None, proof: ProofSpec | None = None,
    ) -> None:  # fmt: skip
        """max_ahead: ms; a reading whose time is further ahead of its arrival is remembered, to be told of. proof: what
        messages must show of their sender, None: nothing."""
        self.name, self.pattern, self.payload, self.max_series = name, pattern, payload, max_series
        self.filter = pattern.filter
        self._series_levels = [pattern.names.index(n) for n in pattern.check_series(series)]
        self._channel_level = pattern.names.index(CHANNEL) if CHANNEL in pattern.names else None
        self._own_series = len(manifest.channels) == 1  # each channel is a series of its own
        self._channel_ids = {c.name: i for i, c in enumerate(manifest.channels)}
        self._units = {c.name: c.unit for c in manifest.channels} | {c.name: c.unit for c in payload.channels if c.unit}
        self._specs = {c.name: c for c in payload.channels}
        only = manifest.channels[0].name
        self._single = payload.only.name if payload.only else "value" if only == ANY or not self._own_series else only
        self._decoders: dict[str | None, Decode] = {}
        self.names: list[str] = []  # by series id; "" for a free one
        self.labels: list[tuple[str, ...]] = []  # by series id: its channels' names
        self._ids: dict[str, int] = {}
        self._bases: set[str] = set()  # what the known series' topics name, without a channel
        self._free: list[int] = []
        self._all = tuple(c.name for c in manifest.channels)
        self._columns = _Columns()
        self._ahead = NEVER_AHEAD if max_ahead is None else max_ahead * 1000
        # Perhaps to be told: index among the collected readings, or None; topic, payload, arrival in µs, reason, kind.
        self._candidates: list[tuple[int | None, str, bytes, int, str, str]] = []
        self.counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        self._letters = Letters()
        self.sequences = Sequences()
        self._sender = pattern.check_text(proof.sender) if proof is not None and proof.sender is not None else None
        self._numbers: dict[str, int] = {}  # of signed messages, kept while nothing need be signed
        self._proof = None if proof is None else Proof(proof, payload.max_bytes)

    # --- topics ---------------------------------------------------------------------------------------------------

    def route(self, topic: str) -> Route | None:
        """What the topic means here, None when it does not fit the pattern. Raises PayloadError for a topic that fits
        but cannot name a series."""
        found = self.pattern.match(topic)
        if found is None:
            return None
        parts = [found[i] for i in self._series_levels]
        channel = found[self._channel_level] if self._channel_level is not None else None
        if "" in parts or channel == "":
            raise PayloadError("a named level of the topic is empty")
        if not topic.isprintable() and any("\ud800" <= c <= "\udfff" for c in topic):
            raise PayloadError("the topic is no valid UTF-8")
        base = "/".join(parts) if parts else self.name
        if len(base) + len(channel or "") > LONGEST_NAME:
            raise PayloadError(f"the series' name would be longer than {LONGEST_NAME} characters")
        sender = None if self._sender is None else self.pattern.fill(self._sender, found)
        return Route(base, channel, self._decoder(channel), sender)

    def _decoder(self, channel: str | None) -> Decode:
        known = channel if channel in self._specs else None
        if known not in self._decoders:
            spec = self.payload
            if known is not None:
                spec = replace(
                    spec, channels=(self._specs[known],), value=spec.value or self._specs[known].path or None
                )
            elif channel is not None:
                spec = replace(spec, channels=())
            self._decoders[known] = compile_decoder(spec)
        return self._decoders[known]

    def _target(self, route: Route, leaf: str | None) -> Target:
        """Series and channel of a value; new series are made here. Raises PayloadError when there is no room."""
        if leaf is None:
            channel = route.channel or self._single
        elif route.channel is None or leaf == route.channel:
            channel = leaf
        else:
            channel = f"{route.channel}.{leaf}"
        if self._specs and channel not in self._specs and route.channel not in self._specs:
            return None
        if self._own_series:
            alone = leaf is None and route.channel is None
            return self._series(route.base if alone else f"{route.base}/{channel}", (channel,)), 0
        index = self._channel_ids.get(channel)
        return None if index is None else (self._series(route.base, self._all), index)

    def _series(self, name: str, labels: tuple[str, ...]) -> int:
        known = self._ids.get(name)
        if known is not None:
            return known
        if len(name) > LONGEST_NAME:
            raise PayloadError(f"the series' name would be longer than {LONGEST_NAME} characters")
        if len(self._ids) >= self.max_series:
            raise PayloadError(f"no room for series {name!r}: the stream has {self.max_series:,} (max_series)")
        if self._free:
            new = self._free.pop()
            self.names[new], self.labels[new] = name, labels
        else:
            new = len(self.names)
            self.names.append(name)
            self.labels.append(labels)
        self._ids[name] = new
        self._bases.add(self._base(new))
        return new

    def _base(self, series: int) -> str:
        name, labels = self.names[series], self.labels[series]
        return name.removesuffix(f"/{labels[0]}") if self._own_series and labels else name

    def knows(self, route: Route) -> bool:
        """True when the route's topic has series here already, False when it would make new ones."""
        return route.base in self._bases

    def units(self, series: int) -> tuple[str, ...]:
        return tuple(self._units.get(c, "") or (self._units.get(ANY, "")) for c in self.labels[series])

    def find(self, name: str) -> int | None:
        """The id of a series, None when it is not known."""
        return self._ids.get(name)

    @property
    def series_count(self) -> int:
        return len(self._ids)

    def forget(self, series: Sequence[int]) -> None:
        """Gives the places of these series back. Routes that name them must be dropped by whoever keeps them."""
        for i in series:
            del self._ids[self.names[i]]
            self.names[i], self.labels[i] = "", ()
            self._free.append(i)
        self._bases = {self._base(i) for i in self._ids.values()}

    # --- messages -------------------------------------------------------------------------------------------------

    def add(
        self, route: Route, topic: str, payload: bytes, received: int, stamp: int, retained: bool = False,
        sender: str | None = None,
    ) -> int:  # fmt: skip
        """received: µs; stamp: the same made distinct, the time of readings that name none; retained: the broker had
        kept the message, nobody knows for how long; sender: what is said of him. Returns how many stamps more were
        used, for bare values in a row.
        """
        more = 0
        if self._proof is not None:
            opened = self._opened(self._proof, route, topic, payload, received, sender)
            if opened is None:
                return 0
            payload = opened
        try:
            samples = route.decode(payload, received)
        except PayloadError as error:
            self.refuse("payload", topic, payload, received, str(error))
            return 0
        if self.payload.sequence is not None:
            number = sequence_of(payload, self.payload)
            if number is not None and not self.sequences.is_new(topic, number):
                self.counts["received"] += len(samples)
                self.counts["repeated"] += len(samples)
                return 0
        columns, targets = self._columns, route.targets
        again: dict[str | None, int] | None = {} if len(samples) > 1 else None
        for leaf, time, value in samples:
            if leaf in targets:
                target = targets[leaf]
            else:
                try:
                    target = self._target(route, leaf)
                except PayloadError as error:
                    self.refuse("series", topic, payload, received, str(error))
                    continue
                if len(targets) < MOST_TARGETS:
                    targets[leaf] = target
            if target is None:
                self.counts["unused"] += 1
                continue
            if value.__class__ is PayloadError:
                self.refuse("payload", topic, payload, received, str(value))
                continue
            if time is None:
                if retained:  # of a time that is over, but which nobody can say
                    self.counts["received"] += 1
                    self.counts["retained"] += 1
                    continue
                if again is not None:  # the second value of the same channel is a second reading
                    nth = again[leaf] = again.get(leaf, -1) + 1
                    more = max(more, nth)
                columns.time.append(stamp + (nth if again is not None else 0))
            else:
                if time - received > self._ahead:
                    self._candidates.append((len(columns.series), topic, payload, received, "", "time"))
                columns.time.append(time)
            columns.series.append(target[0])
            columns.channel.append(target[1])
            columns.value.append(value)  # type: ignore[arg-type]  # the class was just looked at
            columns.received.append(received)
            columns.arrival.append(time is None)
        return more

    def _opened(
        self, proof: Proof, route: Route, topic: str, payload: bytes, received: int, sender: str | None
    ) -> bytes | None:  # fmt: skip
        """The payload without its proof; None, and counted, for a message without a good one or that came again."""
        try:
            opened = proof.open(topic, payload, received, route.base, sender, route.sender)
        except ProofError as error:
            self.refuse(error.kind, topic, payload, received, str(error))
            return None
        if opened is None:
            self.counts["received"] += 1
            self.counts["repeated"] += 1
        return opened

    def refuse(self, kind: str, topic: str, payload: bytes, received: int, reason: str) -> None:
        """Counts one reading as invalid, to be told."""
        self.counts["received"] += 1
        self.counts[kind] += 1
        self._candidates.append((None, topic, payload, received, reason, kind))

    def take_letters(self, fate: NDArray[np.uint8], readings: Readings) -> list[DeadLetter]:
        """Of what was refused since the last call, as many a second of arrival as `Letters` admits, in order.

        fate: uint8 [n], of the readings of the last `take`: some may have been refused for their time.
        """
        candidates, self._candidates = self._candidates, []
        letters: list[DeadLetter] = []
        for index, topic, payload, received, why, kind in candidates:
            if index is not None and fate[index] != Fate.INVALID:
                continue
            if not self._letters.admits(received // 1_000_000, topic):
                continue
            reason = why
            if index is not None:
                ahead = lasted(int(readings.time[index]) - received)
                reason = f"its time is {ahead} ahead of the clock here: check its clock, and timezone (max_ahead)"
            letters.append(DeadLetter(self.name, topic, payload, reason, kind))
        return letters

    def take(self) -> Readings:
        """The readings collected since the last call, in order of arrival."""
        c, self._columns = self._columns, _Columns()
        self.counts["received"] += len(c.series)
        return Readings(
            np.array(c.series, np.int32), np.array(c.channel, np.int16), np.array(c.time, np.int64),
            np.array(c.value, np.float64), np.array(c.received, np.int64), np.array(c.arrival, np.bool_),
        )  # fmt: skip

    # --- state ----------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        return {
            "names": list(self.names), "labels": [list(labels) for labels in self.labels], "counts": dict(self.counts),
            "sequences": self.sequences.snapshot(), "free": list(self._free), "letters": self._letters.snapshot(),
            "numbers": self._numbers if self._proof is None else self._proof.snapshot(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        self.names = list(state["names"])
        self.labels = [tuple(labels) for labels in state["labels"]]
        self.counts = dict.fromkeys(COUNTS, 0) | state["counts"]
        self.remember(state)
        self._free = list(state["free"])
        self.sequences.restore(state["sequences"])
        self._letters = Letters(*state["letters"])
        self._ids = {name: i for i, name in enumerate(self.names) if name}
        self._bases = {self._base(i) for i in self._ids.values()}

    def remember(self, state: dict[str, Any]) -> None:
        """Of a snapshot only what no other beginning may forget: which signed messages were here before."""
        self._numbers = dict(state.get("numbers", {}))
        if self._proof is not None:
            self._proof.restore(self._numbers)


def names_of(names: Sequence[Any], rows: NDArray[np.int32]) -> list[Any]:
    return [names[i] for i in rows.tolist()]
