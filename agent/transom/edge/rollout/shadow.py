"""A second model beside the one that a stream runs: it takes the same turns, in a thread of its own, and tells nobody.

Turns and what the live model made of them in, a `Comparison` out. The live run only appends to a bounded queue; a
shadow that falls behind it loses what waits, and has to begin again from the live windows.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from transom.core.events import Predictions
from transom.core.model import Model, Outputs, Windows
from transom.core.pipeline import Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.edge.rollout.comparison import Comparison, Pair
from transom.errors import ModelError

log = logging.getLogger(__name__)

MOST = 100_000  # messages, and turns, that may wait
PACE_EVERY = 1.0  # seconds between two measurements of latency
FIRST_PACES = 10  # that come as fast as they can
PACED = 64  # windows of one measurement

Load = Callable[[], tuple[StreamSpec, Model]]


class Seen(NamedTuple):
    """A turn, and what the live model made of it: its predictions, and how many alarms it had raised after it."""

    turn: Turn
    live: Sequence[Predictions]
    alarms: int


class Shadow:
    """name: of the stream; load: gives the model, in the thread; rival: the live one; new_is_live: the model that is
    tried is the rival; own_prefix: of the pipeline."""

    def __init__(
        self, name: str, load: Load, rival: Model, comparison: Comparison, *, new_is_live: bool, own_prefix: str
    ) -> None:  # fmt: skip
        self.name, self.comparison, self._own_prefix = name, comparison, own_prefix
        self._load, self._rival, self._new_is_live = load, rival, new_is_live
        self._changed = threading.Condition()
        self._queue: deque[Seen] = deque()
        self._messages = 0
        self._begin: tuple[Mapping[str, Any], int] | None = None
        self._pipeline: Pipeline | None = None
        self._windows: list[Windows] = []
        self._alarms: tuple[int, int] | None = None  # of the live model and of this one, at the beginning
        self._busy = self._fed = self._over = False
        self._paced = 0.0
        self.loaded: tuple[StreamSpec, Model] | None = None
        self.problem = ""  # why it has ended
        self.behind = 0  # times that it has fallen behind
        self._thread = threading.Thread(target=self._work, name=f"transom-shadow-{name}"[:15], daemon=True)
        self._thread.start()

    # --- in the run loop ----------------------------------------------------------------------------------------------

    @property
    def wants_state(self) -> bool:
        """It is loaded, and waits for the live stream's state."""
        return self.loaded is not None and not self._fed and not self.problem

    def begin(self, state: Mapping[str, Any], alarms: int) -> None:
        """state: a snapshot of the live pipeline that holds the stream; alarms: that it has raised so far."""
        with self._changed:
            self._begin = state, alarms
            self._fed = True
            self._changed.notify_all()

    def feed(self, seen: Seen) -> None:
        """The next turn after `begin`. Where too much waits it is dropped, all of it, and the shadow begins anew."""
        if not self._fed or self.problem:
            return
        with self._changed:
            self._messages += len(seen.turn.messages)
            self._queue.append(seen)
            if self._messages > MOST or len(self._queue) > MOST:
                self._queue.clear()
                self._messages, self._fed, self._begin = 0, False, None
                self.behind += 1
            self._changed.notify_all()

    def state(self, wait: float) -> dict[str, Any] | None:
        """A snapshot of its stream after all turns that were fed; None where it does not get there within `wait`
        seconds."""
        with self._changed:
            if not self._changed.wait_for(self._there, wait) or self._pipeline is None:
                return None
            return self._pipeline.streams[self.name].snapshot()

    def _there(self) -> bool:
        return self._fed and not self._queue and not self._busy and self._begin is None

    def close(self) -> None:
        """Its thread ends after the turn that is under way."""
        with self._changed:
            self._over = True
            self._queue.clear()
            self._changed.notify_all()

    # --- in its thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self.loaded = self._load()
            while True:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._over or self._begin is not None or self._queue)
                    if self._over:
                        return
                    self._busy = True
                    begin, self._begin = self._begin, None
                    seen = self._queue.popleft() if begin is None else None
                    self._messages -= len(seen.turn.messages) if seen is not None else 0
                if begin is not None:
                    self._start(*begin)
                elif seen is not None:
                    self._take(seen)
        except ModelError as error:
            self.problem = str(error)
        except Exception as error:  # a thread that dies in silence would never be missed
            log.exception("streams.%s: the model in the shadow fails", self.name)
            self.problem = f"fails ({type(error).__name__}: {error})"

    def _start(self, state: Mapping[str, Any], alarms: int) -> None:
        assert self.loaded is not None
        pipeline = Pipeline([self.loaded], self._own_prefix)
        if pipeline.restore(dict(state)):
            raise ModelError(f"streams.{self.name}", "its windows do not fit this model", "train it for this stream")
        pipeline.streams[self.name].onlooker = self
        mine = pipeline.streams[self.name].judge.counts["alerts"]
        before = self.comparison.alarms if self._new_is_live else self.comparison.alarms[::-1]
        self._pipeline, self._alarms = pipeline, (alarms - int(before[1]), mine - int(before[0]))

    def _take(self, seen: Seen) -> None:
        assert self._pipeline is not None
        assert self._alarms is not None
        self._windows.clear()
        mine = self._pipeline.take(seen.turn).predictions
        sides = (mine, seen.live) if self._new_is_live else (seen.live, mine)
        with self._changed:  # figures are read by the run loop
            self.comparison.add(*sides)
            raised = self._pipeline.streams[self.name].judge.counts["alerts"] - self._alarms[1]
            counts = raised, seen.alarms - self._alarms[0]
            self.comparison.alarms = Pair(*(counts if self._new_is_live else counts[::-1]))
        self._measure()

    def look(self, windows: Windows, outputs: Outputs) -> None:
        """The windows of the turn that is under way."""
        del outputs
        self._windows.append(windows)

    def reset(self, series: Any) -> None:
        """Nothing is kept by series."""

    def _measure(self) -> None:
        """Both models on the same windows, in this thread, so that they are measured alike."""
        now = time.monotonic()
        if not self._windows or (self.comparison.paces >= FIRST_PACES and now - self._paced < PACE_EVERY):
            return
        self._paced = now
        assert self.loaded is not None
        windows = self._windows[0].values[:PACED]
        mine, other = _pace(self.loaded[1], windows), _pace(self._rival, windows)
        with self._changed:
            self.comparison.pace(*((mine, other) if self._new_is_live else (other, mine)))


def _pace(model: Model, values: Any) -> float:
    """Seconds for these windows, or for one step of as many series of an incremental model; the better of two."""
    taken = []
    for _ in range(2):
        state = np.repeat(model.start[None], len(values), 0) if model.manifest.state else None  # type: ignore[attr-defined]
        begin = time.perf_counter()
        if state is None:
            model.infer(values)
        else:
            model.step(np.ascontiguousarray(values[:, -1]), state)  # type: ignore[attr-defined]
        taken.append(time.perf_counter() - begin)
    return min(taken)
