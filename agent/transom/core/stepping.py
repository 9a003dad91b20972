"""Incremental models: each step of each series goes through the model once, and its state is kept beside the windows.

Two stages, which may run beside each other. `SteppedBuffers` makes windows of steps, as for any model, and an
`Advance`, what the model must be told. `advance` tells it: one call for the first step of every series, one for the
second, … It alone touches the states meanwhile, which so belong to whoever asks the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.admission import NEVER
from transom.core.model import IncrementalModel, Model, Outputs, Windows
from transom.core.readings import Steps
from transom.core.table import Table
from transom.core.windows import Buffers


def buffers_for(model: Model, stride: int, max_gap: int | None = None) -> Buffers:
    """The windows of a stream, and for an incremental model (`manifest.state`) its states. max_gap: µs without a
    reading after which a stateful model begins anew; None: never."""
    m = model.manifest
    if m.state:
        return SteppedBuffers(cast(IncrementalModel, model), stride, max_gap if m.stateful else None)
    return Buffers(m.length, len(m.channels), stride, m.min_steps)


def gather(buffers: Buffers, steps: Steps) -> "tuple[Windows, Advance | None]":
    """Appends steps (sorted by series): the windows that are due, and what an incremental model must be told first."""
    if isinstance(buffers, SteppedBuffers):
        return buffers.gather(steps)
    return buffers.push(steps), None


class States(Table):
    """state: float32 [S, n], of each series after its last step."""

    fills: ClassVar[dict[str, Any]] = {"state": 0.0}

    def __init__(self, model: IncrementalModel) -> None:
        super().__init__()
        self.start = model.start
        self.state = np.zeros((0, model.manifest.state), np.float32)

    def resize(self, size: int) -> None:
        before = len(self.state)
        super().resize(size)
        self.state[before:] = self.start

    def reset(self, series: NDArray[np.int32]) -> None:
        if len(series):
            self.resize(int(series.max()) + 1)
        self.state[series] = self.start


@dataclass(frozen=True, slots=True)
class Advance:
    """Steps that a model must be told, sorted by series: series int32 [n]; values float32 [n, C]; due: bool [n], True
    where a window ends; anew: bool [n], True where the state begins anew before the step."""

    states: States
    series: NDArray[np.int32]
    values: NDArray[np.float32]
    due: NDArray[np.bool_]
    anew: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.series)


class SteppedBuffers(Buffers):
    """heard: int64 [S] µs, the last step with a reading; kept where a gap makes the state begin anew."""

    fills: ClassVar[dict[str, Any]] = {**Buffers.fills, "heard": NEVER}

    def __init__(self, model: IncrementalModel, stride: int = 1, max_gap: int | None = None) -> None:
        m = model.manifest
        super().__init__(m.length, len(m.channels), stride, m.min_steps)
        self.max_gap = max_gap
        self.heard = np.zeros(0, np.int64)
        self.states = States(model)

    def reset(self, series: NDArray[np.int32]) -> None:
        super().reset(series)
        self.states.reset(series)

    def gather(self, steps: Steps) -> tuple[Windows, Advance]:
        """As `Buffers.push`; every step is one to be told, also those whose window is not due."""
        first = segments.starts(steps.series)
        rank = segments.ranks(first)
        nth, anew = self.seen[steps.series] + rank + 1, None
        if self.max_gap is not None and len(steps):
            anew = self._anew(steps, first, self.max_gap)
            if anew.any():  # as a new series, it is warmed up again
                row = np.arange(len(steps))
                since = np.maximum.accumulate(np.where(anew, row, -1))
                nth = np.where(since >= segments.start_of(first), row - since + 1, nth)
            else:
                anew = None
        told = Advance(self.states, steps.series, steps.values, self._due(nth, steps.fresh), anew)
        return self._pushed(steps, rank, nth), told

    def _anew(self, steps: Steps, first: NDArray[np.bool_], max_gap: int) -> NDArray[np.bool_]:
        """bool [n]: the first reading after a gap, or after a clock that was set."""
        row = np.arange(len(steps))
        latest = np.maximum.accumulate(np.where(steps.fresh, row, -1))  # with a reading, up to here
        begin, before = segments.start_of(first), np.append(-1, latest[:-1])
        previous = np.where(before >= begin, steps.time[before], self.heard[steps.series])
        last = segments.ends(first)
        last = last[latest[last] >= begin[last]]
        self.heard[steps.series[last]] = steps.time[latest[last]]
        apart: NDArray[np.bool_] = steps.fresh & (previous != NEVER) & (np.abs(steps.time - previous) > max_gap)
        return apart

    def snapshot(self) -> dict[str, Any]:
        return super().snapshot() | {"states": self.states.snapshot()}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.states.restore(state.get("states", state))  # which stood beside the windows once


def advance(model: IncrementalModel, parts: Sequence[Advance]) -> list[Outputs]:
    """Takes the states of one or more streams through their steps; the model's outputs for the due ones of each, in
    their order, and nothing where none is due. When the model fails no state has changed."""
    heads = [np.flatnonzero(segments.starts(p.series)) for p in parts]
    ids = [p.series[head] for p, head in zip(parts, heads, strict=True)]
    for p, some in zip(parts, ids, strict=True):
        if len(some):
            p.states.resize(int(some[-1]) + 1)
    state = _joined([p.states.state[some] for p, some in zip(parts, ids, strict=True)])
    if sum(map(len, ids)) == sum(map(len, parts)):  # one step a series, as mostly
        outputs, state = model.step(_joined([p.values for p in parts]), _begun(model, parts, state))
    else:
        outputs, state = _in_rounds(model, parts, heads, state)
    found: list[Outputs] = []
    row = step = 0
    for p, some in zip(parts, ids, strict=True):
        p.states.state[some] = state[row : row + len(some)]
        row, step, begin = row + len(some), step + len(p), step
        found.append({key: array[begin:step][p.due] for key, array in outputs.items()} if p.due.any() else {})
    return found


def _in_rounds(
    model: IncrementalModel, parts: Sequence[Advance], heads: Sequence[NDArray[np.int64]], state: NDArray[np.float32]
) -> tuple[Outputs, NDArray[np.float32]]:
    """The first step of each series as one batch, then the second, …; outputs by step, and the states after them."""
    offsets = np.cumsum([0, *map(len, parts)])
    begin = np.concatenate([head + offset for head, offset in zip(heads, offsets[:-1], strict=True)])
    counts = np.diff(begin, append=offsets[-1])
    order = np.argsort(-counts, kind="stable")  # longest first: those that go on are the first rows of each round
    begin, counts, state = begin[order], counts[order], state[order]
    values = _joined([p.values for p in parts])
    anew = np.concatenate([_anew(p) for p in parts])
    told: list[NDArray[np.int64]] = []
    given: list[Outputs] = []
    for nth in range(int(counts[0])):
        left = int(np.searchsorted(-counts, -nth))  # series with more than `nth` steps
        rows = begin[:left] + nth
        state[:left][anew[rows]] = model.start
        outputs, state[:left] = model.step(values[rows], state[:left])
        told.append(rows)
        given.append(outputs)
    place = np.empty(offsets[-1], np.int64)  # of each step among those told
    place[np.concatenate(told)] = np.arange(len(place))
    after = np.empty_like(state)
    after[order] = state
    return {key: np.concatenate([g[key] for g in given])[place] for key in given[0]}, after


def _begun(model: IncrementalModel, parts: Sequence[Advance], state: NDArray[np.float32]) -> NDArray[np.float32]:
    if any(p.anew is not None for p in parts):
        state[np.concatenate([_anew(p) for p in parts])] = model.start
    return state


def _anew(part: Advance) -> NDArray[np.bool_]:
    return np.zeros(len(part), bool) if part.anew is None else part.anew


def _joined(arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
