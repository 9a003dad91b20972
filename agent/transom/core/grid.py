"""Readings to closed steps of an event-time grid, and series that fell silent.

Steps close only by the watermark or, for an idle series, by a tick; a step is a stretch of time or one reading.
Never asks the clock: the time of arrival is a column, and the present comes in as a tick.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import MS, NEVER, Admission, Admitted, GridSpec
from transom.core.cells import Cells
from transom.core.fill import Fill
from transom.core.readings import Fate, Readings, Steps
from transom.core.rhythm import Rhythm
from transom.core.table import Table

_FREE = (1 << 63) - 1  # an open slot that holds no step


@dataclass(frozen=True, slots=True)
class Silence:
    """Series that went stale or came back: series int32 [n], time int64 [n] µs (of arrival), back: bool [n].

    closed: int64 [n] µs, event time: the steps before it were closed by then, those from it on come after.
    """

    series: NDArray[np.int32]
    time: NDArray[np.int64]
    back: NDArray[np.bool_]
    closed: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Aligned:
    """What a batch came to: fate: uint8 [n] per reading; steps that closed; series that fell silent or came back."""

    fate: NDArray[np.uint8]
    steps: Steps
    silence: Silence


class Grid(Table):
    """The open steps of all series of one stream.

    open: int64 [S, K], begin of each open step, ascending, then free; value, count, time, last: [S, K, C], their cells.
    """

    fills: ClassVar[dict[str, Any]] = {
        "open": _FREE,
        "value": 0.0,
        "count": 0,
        "time": NEVER,
        "last": 0.0,
        "stale": False,
    }

    def __init__(self, spec: GridSpec, channels: int, length: int) -> None:
        """channels: C; length: steps in a window, the most that a gap is filled with."""
        super().__init__()
        self.spec, self.channels = spec, channels
        self.admission = Admission(spec, channels)
        self.filling = Fill(spec, channels, length)
        self.rhythm = Rhythm(channels)
        self.stale_after = self.filling.max_gap if spec.step or spec.max_gap else None
        self.stale = np.zeros(0, bool)
        self.open = np.zeros((0, 1), np.int64)
        self.value = np.zeros((0, 1, channels), np.float64)
        self.count = np.zeros((0, 1, channels), np.int32)
        self.time = np.zeros((0, 1, channels), np.int64)
        self.last = np.zeros((0, 1, channels), np.float64)

    def resize(self, size: int) -> None:
        super().resize(size)
        self.admission.resize(self.size)
        self.filling.resize(self.size)
        self.rhythm.resize(self.size)

    def reset(self, series: NDArray[np.int32]) -> None:
        super().reset(series)
        self.admission.reset(series)
        self.filling.reset(series)
        self.rhythm.reset(series)

    def align(self, readings: Readings) -> Aligned:
        """Takes readings in order of arrival and closes what the watermark has passed."""
        plain = self._plain(readings)
        if plain is not None:
            return plain
        fates: list[NDArray[np.uint8]] = []
        steps: list[Steps] = []
        silences: list[Silence] = []
        while len(readings):
            batch = self.admission.admit(readings)
            if batch.resync is None:
                self._take(batch, fates, steps, silences)
                break
            # The series of this reading starts anew with it, or its clock is seen through: what came before is first.
            before, readings = readings[: batch.resync], readings[batch.resync :]
            if len(before):
                self._take(self.admission.admit(before), fates, steps, silences)
            again = readings.series[:1]
            if batch.ahead:
                self.admission.trust_arrival(again, readings.received[0] - readings.time[0])
                continue
            steps.append(self._close_all(again))
            self.admission.start_anew(again)
            self.filling.reset(again)
            self.rhythm.reset(again)
        fate = fates[0] if len(fates) == 1 else np.concatenate([*fates, np.zeros(0, np.uint8)])
        return Aligned(fate, self.joined(steps), _joined(silences))

    def _plain(self, readings: Readings) -> Aligned | None:
        """The same for a batch of which there is nothing to decide, as nearly all are where a step is one reading: one
        of each series, later than all before. A fifth of the time; None for any other, with nothing changed."""
        if self.spec.step is not None or self.spec.lateness or self.channels > 1 or not len(readings):
            return None
        order = np.argsort(readings.series, kind="stable")
        s, received, time = readings.series[order], readings.received[order], readings.time[order]
        if (s[1:] == s[:-1]).any():
            return None
        if self.stale_after is not None:
            before = self.admission.received[s]
            if (self.stale[s] | ((received - before > self.stale_after) & (before != NEVER))).any():
                return None
        if not self.admission.take_plain(s, time, received):
            return None
        self.rhythm.hear_plain(s, time, readings.arrival[order])
        steps = self.filling.take_plain(s, time, readings.value[order])
        return Aligned(np.full(len(s), Fate.ACCEPTED, np.uint8), steps, _NO_SILENCE)

    def _take(
        self, batch: Admitted, fates: list[NDArray[np.uint8]], steps: list[Steps], silences: list[Silence]
    ) -> None:
        fate = np.empty(len(batch.order), np.uint8)
        fate[batch.order] = batch.fate
        fates.append(fate)
        silences.append(self._came_back(batch))
        self.admission.commit(batch)
        ok = batch.fate == Fate.ACCEPTED
        self.rhythm.hear(batch.series[ok], batch.channel[ok], batch.time[ok], batch.arrival[ok])
        steps.append(self.filling.fill(*self._aggregate(batch)))

    def shift(self, jump: int) -> None:
        """Our own clock has jumped by so many µs: silence is counted as if it had always gone as it goes now."""
        heard = self.admission.received != NEVER
        self.admission.received[heard] += jump
        self.admission.late_since[self.admission.late_run > 0] += jump
        self.admission.ahead_since[self.admission.ahead_run > 0] += jump

    def tick(self, now: int) -> tuple[Steps, Silence]:
        """Closes the open steps of series idle at `now` (µs since 1970) and finds those that fell silent."""
        quiet = now - self.admission.received
        steps = self._close_all(np.flatnonzero((self.open[:, 0] != _FREE) & (quiet > self.admission.idle_after)))
        if self.stale_after is None:
            return steps, _joined([])
        ids = np.flatnonzero(~self.stale & (self.admission.received != NEVER) & (quiet > self.stale_after))
        self.stale[ids] = True
        return steps, Silence(
            ids.astype(np.int32), self.admission.received[ids] + self.stale_after, np.zeros(len(ids), bool),
            np.full(len(ids), _FREE),
        )  # fmt: skip

    def forgotten(self, now: int) -> NDArray[np.int32]:
        """int32 [n]: series silent for longer than `forget_after` at `now` (µs since 1970)."""
        if self.spec.forget_after is None:
            return np.zeros(0, np.int32)
        heard = self.admission.received
        return np.flatnonzero((heard != NEVER) & (now - heard > self.spec.forget_after * MS)).astype(np.int32)

    def flush(self) -> Steps:
        """Closes every open step: the end of a recording."""
        return self._close_all(np.flatnonzero(self.open[:, 0] != _FREE))

    def pending(self) -> int:
        """Readings in open steps."""
        return int(self.count[self.open != _FREE].sum())

    def _came_back(self, batch: Admitted) -> Silence:
        """Gaps in arrival beyond the stale limit: the silence, when no tick has told of it, and the return."""
        if self.stale_after is None:
            return _joined([])
        before = batch.received_before
        gap = (batch.received - before > self.stale_after) & (before != NEVER)
        known = self.stale[batch.series] & batch.first
        back = gap | known
        if not back.any():
            return _joined([])
        self.stale[batch.series[known]] = False
        told = gap & ~known
        series = np.concatenate([batch.series[told], batch.series[back]])
        time = np.concatenate([before[told] + self.stale_after, batch.received[back]])
        is_back = np.concatenate([np.zeros(int(told.sum()), bool), np.ones(int(back.sum()), bool)])
        # Steps that end at or before `closed` were closed: their begin lies before closed - step + 1.
        closed = batch.closed - self.admission.step + 1
        bound = np.concatenate([closed[told], closed[back]])
        order = np.lexsort((is_back, time, series))
        return Silence(series[order], time[order], is_back[order], bound[order])

    def _aggregate(self, batch: Admitted) -> tuple[NDArray[np.int32], NDArray[np.int64], Cells]:
        """Adds the accepted readings to the open steps; returns those that closed, by series and time."""
        ids = batch.series[batch.first]
        accepted = batch.fate == Fate.ACCEPTED
        series, time = batch.series[accepted], batch.time[accepted]
        slots = self.open[ids]
        row, slot = np.nonzero(slots != _FREE)
        # Groups: the open steps of the batch's series, and those that its readings fall into.
        s = np.concatenate([ids[row], series])
        k = np.concatenate([slots[row, slot], time - time % self.admission.step])
        order = np.lexsort((k, s))
        s, k = s[order], k[order]
        new = segments.starts(s)
        new[1:] |= k[1:] != k[:-1]
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(new) - 1
        s, k = s[new], k[new]
        cells = Cells.empty(len(s), self.channels, self.spec.aggregate)
        was, now = group[: len(row)], group[len(row) :]
        cells.value[was], cells.count[was] = self.value[ids[row], slot], self.count[ids[row], slot]
        cells.time[was], cells.last[was] = self.time[ids[row], slot], self.last[ids[row], slot]
        cells.add(now * self.channels + batch.channel[accepted], time, batch.value[accepted], self.spec.aggregate)
        done = k + self.admission.step <= self.admission.closed[s]
        if self.spec.step is None and self.spec.lateness == 0:
            done |= (cells.count > 0).all(axis=1)  # every channel is there: nothing can change the step any more
        self._store(ids, s[~done], k[~done], cells.rows(~done))
        return s[done], k[done], cells.rows(done)

    def _store(self, ids: NDArray[np.int32], s: NDArray[np.int32], k: NDArray[np.int64], cells: Cells) -> None:
        slot = segments.ranks(segments.starts(s))
        needed = int(slot.max()) + 1 if len(slot) else 0
        if needed > self.open.shape[1]:
            wide = max(needed, 2 * self.open.shape[1])
            for name, fill in self.fills.items():
                if name != "stale":
                    setattr(self, name, _widened(getattr(self, name), wide, fill))
        self.open[ids] = _FREE
        self.open[s, slot] = k
        self.value[s, slot], self.count[s, slot], self.time[s, slot] = cells.value, cells.count, cells.time
        self.last[s, slot] = cells.last

    def _close_all(self, series: NDArray[np.integer]) -> Steps:
        """Closes every open step of these series (ascending ids), and all times up to it."""
        row, slot = np.nonzero(self.open[series] != _FREE)
        s = series[row].astype(np.int32)
        k = self.open[s, slot]
        cells = Cells(self.value[s, slot], self.count[s, slot], self.time[s, slot], self.last[s, slot])
        self.open[series] = _FREE
        self.admission.close(series.astype(np.int32))
        return self.filling.fill(s, k, cells)

    def joined(self, parts: list[Steps]) -> Steps:
        """Several results of this grid as one, by series, each series in the order of the parts."""
        if len(parts) == 1:
            return parts[0]
        parts = [p for p in parts if len(p)] or [self._close_all(np.zeros(0, np.int32))]
        series = np.concatenate([p.series for p in parts])
        order = np.argsort(series, kind="stable")
        return Steps(
            series[order], np.concatenate([p.time for p in parts])[order],
            np.concatenate([p.values for p in parts])[order], np.concatenate([p.fresh for p in parts])[order],
        )  # fmt: skip

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {
            "admission": self.admission.snapshot(),
            "filling": self.filling.snapshot(),
            "rhythm": self.rhythm.snapshot(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.admission.restore(state["admission"])
        self.filling.restore(state["filling"])
        self.rhythm.restore(state["rhythm"])


def _widened(array: NDArray[Any], wide: int, fill: object) -> NDArray[Any]:
    bigger = np.full((array.shape[0], wide, *array.shape[2:]), fill, array.dtype)
    bigger[:, : array.shape[1]] = array
    return bigger


_NO_SILENCE = Silence(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, bool), np.zeros(0, np.int64))


def _joined(parts: list[Silence]) -> Silence:
    parts = [p for p in parts if len(p.series)]
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _NO_SILENCE
    series = np.concatenate([p.series for p in parts])
    order = np.argsort(series, kind="stable")
    return Silence(
        series[order],
        np.concatenate([p.time for p in parts])[order],
        np.concatenate([p.back for p in parts])[order],
        np.concatenate([p.closed for p in parts])[order],
    )
