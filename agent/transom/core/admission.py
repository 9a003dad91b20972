"""Which readings count: each one's fate by watermark, lateness and what came before it in order of arrival.

Readings in, fates out. Nothing here depends on how readings were batched, and nothing asks the clock.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.model import Aggregate
from transom.core.readings import Fate, Readings
from transom.core.table import Table

NEVER = -(1 << 62)
MS = 1000  # µs
CLOCK_SET = 1_577_836_800_000_000  # 2020 in µs: a receiving clock before this was never set, so nothing is ahead of it
RESYNC_READINGS = 3


@dataclass(frozen=True, slots=True)
class GridSpec:
    """Policy of a grid; all times in milliseconds.

    step: length of a step, None = one reading (one distinct time) a step. lateness: how far the watermark stays behind
    the newest time. max_gap: how long a value is held, and after which a series is stale; None = 10 steps, or 60 s
    without ever being stale when a step is one reading. max_ahead: a time further ahead of its arrival is invalid,
    None = never. resync_after: a series whose readings have all been late for so long has set its clock back and
    starts anew; one whose readings have all been too far ahead for so long has a wrong clock, and from then on the
    difference that it had then is taken off its times. forget_after: a series silent for so long gives its place
    back, None = never.
    """

    step: int | None = None
    aggregate: Aggregate = "last"
    lateness: int = 0
    max_gap: int | None = None
    max_ahead: int | None = 300_000
    resync_after: int = 300_000
    forget_after: int | None = None


@dataclass(slots=True)
class Admitted:
    """A batch sorted by series (stable: in order of arrival within each), with each reading's fate.

    order: int64 [n], the sorting; first: bool [n], where a series begins; series, channel, time, value, received,
    arrival: the readings' columns in that order; fate: uint8 [n]; closed: int64 [n], up to where steps were closed
    before each; received_before: int64 [n], arrival of the reading before, NEVER for a first one; resync: the index
    (in order of arrival) of the first reading with which its series must start anew, or None; ahead: True when it is
    because its clock is ahead.
    """

    order: NDArray[np.int64]
    first: NDArray[np.bool_]
    series: NDArray[np.int32]
    channel: NDArray[np.int64]
    time: NDArray[np.int64]
    value: NDArray[np.float64]
    received: NDArray[np.int64]
    arrival: NDArray[np.bool_]
    fate: NDArray[np.uint8]
    closed: NDArray[np.int64]
    received_before: NDArray[np.int64]
    late_run: NDArray[np.int64]
    late_since: NDArray[np.int64]
    ahead_run: NDArray[np.int64]
    ahead_since: NDArray[np.int64]
    resync: int | None
    ahead: bool


class Admission(Table):
    """Watermarks, arrivals and the times seen in open steps, of all series of one stream.

    newest: int64 [S] newest time accepted; closed: int64 [S], steps that end at or before it are closed;
    received: int64 [S], last arrival; channel_newest: int64 [S, C]. All in µs since 1970. late_run, ahead_run:
    int64 [S], readings in a row that were late or too far ahead, and since when; offset: int64 [S] µs, what is added
    to times that are too far ahead because the sensor's clock is known to be wrong, 0 = they are invalid.
    """

    fills: ClassVar[dict[str, Any]] = {
        "newest": NEVER, "closed": NEVER, "received": NEVER, "late_run": 0, "late_since": NEVER,
        "ahead_run": 0, "ahead_since": NEVER, "offset": 0, "channel_newest": NEVER,
    }  # fmt: skip

    def __init__(self, spec: GridSpec, channels: int) -> None:
        super().__init__()
        self.spec, self.channels = spec, channels
        self.step = spec.step * MS if spec.step else 1
        self.lateness = spec.lateness * MS
        self.idle_after = (spec.step * MS if spec.step else 1_000_000) + self.lateness
        self.newest = np.zeros(0, np.int64)
        self.closed = np.zeros(0, np.int64)
        self.received = np.zeros(0, np.int64)
        self.late_run = np.zeros(0, np.int64)
        self.late_since = np.zeros(0, np.int64)
        self.ahead_run = np.zeros(0, np.int64)
        self.ahead_since = np.zeros(0, np.int64)
        self.offset = np.zeros(0, np.int64)
        self.channel_newest = np.zeros((0, channels), np.int64)
        # Times of accepted readings, needed only while their step is open and readings may come out of order.
        self._remember = spec.step is not None or self.lateness > 0
        self._seen_key = np.zeros(0, np.int64)
        self._seen_time = np.zeros(0, np.int64)
        self._seen_kept = 0

    def end(self, time: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the step of each time ends, µs since 1970."""
        return time - time % self.step + self.step

    def admit(self, readings: Readings) -> Admitted:
        """Decides each reading's fate; changes nothing until `commit`."""
        order = np.argsort(readings.series, kind="stable")
        s, time, received = readings.series[order], readings.time[order], readings.received[order]
        channel, arrival = readings.channel[order].astype(np.int64), readings.arrival[order]
        first = segments.starts(s)
        invalid = np.zeros(len(s), bool)
        if self.spec.max_ahead is not None:
            invalid = self._ahead(time, received, arrival)
            wrong = invalid & (self.offset[s] != 0)
            if wrong.any():
                time = np.where(wrong, time + self.offset[s], time)
                invalid = self._ahead(time, received, arrival)
        counted = np.where(invalid, NEVER, time)
        newest = segments.max_before(counted, first, self.newest[s])
        closed = np.maximum(self.closed[s], newest - self.lateness)
        received_before = segments.max_before(received, first, self.received[s])
        idle = (received - received_before > self.idle_after) & (newest != NEVER)
        if idle.any():  # a tick between the two readings would have closed everything
            ended = np.where(idle, self.end(np.where(idle, newest, 0)), NEVER)
            closed = np.maximum(closed, segments.running_max(ended, first))
        late = ~invalid & (self.end(time) <= closed)
        channel_before = self._channel_before(s, channel, counted)
        duplicate = ~invalid & (time == channel_before)
        suspect = ~invalid & ~late & ~duplicate & (time < channel_before)
        if suspect.any():
            duplicate |= self._seen_before(s, channel, time, invalid | late)
        fate = np.where(late, np.uint8(Fate.LATE), np.uint8(Fate.ACCEPTED))
        fate[duplicate] = Fate.DUPLICATE
        fate[invalid] = Fate.INVALID
        late_run, late_since = _runs(s, first, received, fate == Fate.LATE, self.late_run, self.late_since)
        ahead_run, ahead_since = _runs(s, first, received, invalid, self.ahead_run, self.ahead_since)
        ahead = invalid & (ahead_run >= RESYNC_READINGS) & (received - ahead_since >= self.spec.resync_after * MS)
        resync = (
            ahead
            | (
                (fate == Fate.LATE)
                & (late_run >= RESYNC_READINGS)
                & (received - late_since >= self.spec.resync_after * MS)
            )
            | (arrival & (channel_before - time > self.spec.resync_after * MS))
        )  # our own clock was set back
        begin = int(order[resync].min()) if resync.any() else None
        return Admitted(
            order, first, s, channel, time, readings.value[order], received, arrival, fate, closed, received_before,
            late_run, late_since, ahead_run, ahead_since, begin,
            begin is not None and bool(ahead[order == begin].any()),
        )  # fmt: skip

    def take_plain(self, s: NDArray[np.int32], time: NDArray[np.int64], received: NDArray[np.int64]) -> bool:
        """`admit` and `commit` of one reading each of these (distinct) series, when there is nothing to decide: each is
        later than all before it, and no clock is in doubt. False, with nothing changed, for any other."""
        if self._remember or not (time > self.newest[s]).all() or not (time >= self.closed[s]).all():
            return False
        if self.spec.max_ahead is not None and (time - received > self.spec.max_ahead * MS).any():
            return False
        if self.late_run[s].any() or self.ahead_run[s].any():
            return False
        self.newest[s] = self.closed[s] = time
        self.channel_newest[s, 0] = time
        self.received[s] = np.maximum(self.received[s], received)
        self.late_since[s] = self.ahead_since[s] = received
        return True

    def _ahead(
        self, time: NDArray[np.int64], received: NDArray[np.int64], arrival: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        assert self.spec.max_ahead is not None
        return ~arrival & (time - received > self.spec.max_ahead * MS) & (received >= CLOCK_SET)

    def _channel_before(
        self, s: NDArray[np.int32], channel: NDArray[np.int64], time: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """int64 [n]: the newest time of the same series and channel before each reading."""
        key = s.astype(np.int64) * self.channels + channel
        initial = self.channel_newest.reshape(-1)[key]
        if self.channels == 1:
            return segments.max_before(time, segments.starts(key), initial)
        by_key = np.argsort(key, kind="stable")
        before = np.empty_like(time)
        before[by_key] = segments.max_before(time[by_key], segments.starts(key[by_key]), initial[by_key])
        return before

    def _seen_before(
        self, s: NDArray[np.int32], channel: NDArray[np.int64], time: NDArray[np.int64], out: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """bool [n]: the same series, channel and time was accepted earlier, in this batch or in a step still open."""
        key = s.astype(np.int64) * self.channels + channel
        mine = np.zeros(self.size * self.channels, bool)
        mine[key] = True
        known = mine[self._seen_key]
        keys = np.concatenate([self._seen_key[known], key])
        times = np.concatenate([self._seen_time[known], time])
        n_known = int(known.sum())
        valid = np.concatenate([np.ones(n_known, bool), ~out])
        order = np.lexsort((~valid, times, keys))  # stable: the earliest of equals comes first, the refused ones last
        same = (keys[order][1:] == keys[order][:-1]) & (times[order][1:] == times[order][:-1])
        repeated = np.zeros(len(keys), bool)
        repeated[order[1:]] = same & valid[order][1:]
        result: NDArray[np.bool_] = repeated[n_known:]
        return result

    def commit(self, batch: Admitted) -> None:
        """Takes the batch as happened."""
        last = segments.ends(batch.first)
        ids = batch.series[last]
        accepted, valid = batch.fate == Fate.ACCEPTED, batch.fate != Fate.INVALID
        s, channel, time = batch.series[accepted], batch.channel[accepted], batch.time[accepted]
        np.maximum.at(self.newest, s, time)
        np.maximum.at(self.received, batch.series, batch.received)
        np.maximum.at(self.channel_newest, (batch.series[valid], batch.channel[valid]), batch.time[valid])
        self.closed[ids] = np.maximum(batch.closed[last], self.newest[ids] - self.lateness)
        self.late_run[ids], self.late_since[ids] = batch.late_run[last], batch.late_since[last]
        self.ahead_run[ids], self.ahead_since[ids] = batch.ahead_run[last], batch.ahead_since[last]
        if self._remember:
            self._seen_key = np.concatenate([self._seen_key, s.astype(np.int64) * self.channels + channel])
            self._seen_time = np.concatenate([self._seen_time, time])
            if len(self._seen_key) > 2 * self._seen_kept + 4096:
                keep = self.end(self._seen_time) > self.closed[self._seen_key // self.channels]
                self._seen_key, self._seen_time = self._seen_key[keep], self._seen_time[keep]
                self._seen_kept = len(self._seen_key)

    def close(self, series: NDArray[np.int32]) -> None:
        """Closes all steps up to the newest time of these series."""
        known = series[self.newest[series] != NEVER]
        self.closed[known] = np.maximum(self.closed[known], self.end(self.newest[known]))

    def start_anew(self, series: NDArray[np.int32]) -> None:
        """Forgets these series' times but not when they were last heard."""
        received = self.received[series]
        self.reset(series)
        self.received[series] = received

    def trust_arrival(self, series: NDArray[np.int32], offset: int) -> None:
        """The clock of these series is wrong: `offset` (µs) makes the times that are too far ahead those of arrival."""
        self.offset[series] = offset
        self.ahead_run[series], self.ahead_since[series] = 0, NEVER

    def reset(self, series: NDArray[np.int32]) -> None:
        super().reset(series)
        if len(self._seen_key):
            keep = ~np.isin(self._seen_key // self.channels, series)
            self._seen_key, self._seen_time = self._seen_key[keep], self._seen_time[keep]

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"seen_key": self._seen_key.copy(), "seen_time": self._seen_time.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._seen_key, self._seen_time = np.array(state["seen_key"]), np.array(state["seen_time"])
        self._seen_kept = len(self._seen_key)


def _runs(
    s: NDArray[np.int32], first: NDArray[np.bool_], received: NDArray[np.int64], hit: NDArray[np.bool_],
    run_before: NDArray[np.int64], since_before: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """int64 [n] each: how many readings in a row were hit up to this one, and since which arrival.

    s, first, received: sorted by series; run_before, since_before: int64 [S], the same after the batch before.
    """
    before = run_before[s]
    if not hit.any() and not before.any():
        return before, received
    index = np.arange(len(hit))
    begin = segments.start_of(first)
    last_ok = np.maximum.accumulate(np.where(hit, -1, index))
    inside = last_ok >= begin
    run = np.where(inside, index - last_ok, index - begin + 1 + before)
    opened = np.where(inside, np.minimum(last_ok + 1, len(hit) - 1), begin)
    since = np.where(inside | (before == 0), received[opened], since_before[s])
    return run, since
