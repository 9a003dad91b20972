"""One stream: the rooms of the core in the order of the flow, and the accounts of what went through them.

Messages of its topics in, events out; `Pipeline` gives it the messages.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import GridSpec
from transom.core.alerts import AlertSpec
from transom.core.attention import Call
from transom.core.due import Due
from transom.core.events import DriftReport, Events
from transom.core.grid import Grid
from transom.core.intake import Intake
from transom.core.judge import Judge
from transom.core.model import Model, Outputs, Windows
from transom.core.payloads import PayloadSpec
from transom.core.proof import ProofSpec
from transom.core.readings import Fate
from transom.core.stepping import buffers_for, gather
from transom.core.topics import Pattern

REFUSED = ("payload", "topic", "series", "sender", "signature")  # what is invalid before its time is looked at
NO_FATE = np.zeros(0, np.uint8)
NONE_DUE = Windows(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros((0, 0, 0), np.float32))


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
    proof: ProofSpec | None = None


class Onlooker(Protocol):
    """Sees what a stream judges, and changes nothing."""

    def look(self, windows: Windows, outputs: Outputs) -> None:
        """A batch of windows that has just been judged, and what the model made of it."""
        ...

    def reset(self, series: NDArray[np.int32]) -> None:
        """These series have given their places back."""
        ...


class Stream:
    """One stream: the rooms of the core in the order of the flow."""

    def __init__(self, spec: StreamSpec, model: Model) -> None:
        m = model.manifest
        self.spec, self.model = spec, model
        self.intake = Intake(
            spec.name, Pattern.parse(spec.topic), spec.series, spec.payload, m, spec.max_series, spec.grid.max_ahead,
            spec.proof,
        )  # fmt: skip
        self.grid = Grid(spec.grid, len(m.channels), m.length)
        self.buffers = buffers_for(model, spec.stride, self.grid.stale_after)
        interval = float(spec.grid.step * spec.stride) if spec.grid.step else None
        self.judge = Judge(self.intake, m, spec.alert, spec.budget, spec.threshold, interval)
        self.fates = np.zeros(len(Fate), np.int64)
        self.shed = 0
        self.onlooker: Onlooker | None = None

    def gather(self) -> Due:
        """Align and window what has been decoded since the last call."""
        readings = self.intake.take()
        if not len(readings):
            return Due(self.spec.name, self.model, NONE_DUE, letters=self.intake.take_letters(NO_FATE, readings))
        self._make_room()
        aligned = self.grid.align(readings)
        self.fates += np.bincount(aligned.fate, minlength=len(Fate))
        letters = self.intake.take_letters(aligned.fate, readings)
        return Due(self.spec.name, self.model, *gather(self.buffers, aligned.steps), aligned.silence, letters)

    def tick(self, now: int) -> Due:
        """Idle series close, silent ones are told of. now: µs since 1970."""
        self._make_room()
        steps, silence = self.grid.tick(now)
        moved = bool(len(steps) or len(silence.series))
        return Due(self.spec.name, self.model, *gather(self.buffers, steps), silence, moved=moved)

    def flush(self) -> Due:
        """Closes all open steps."""
        return Due(self.spec.name, self.model, *gather(self.buffers, self.grid.flush()))

    def judged(self, due: Due, outputs: Outputs) -> Events:
        """What is to be said of windows for which the model has been asked."""
        if due.silence is not None and len(due.silence.series):
            events = self.judge.judge_around(due.silence, due.windows, outputs)
        else:
            events = self.judge.judge(due.windows, outputs) if len(due.windows) else Events()
        events.dead_letters += due.letters
        events.moved |= due.moved
        if self.onlooker is not None and len(due.windows):
            self.onlooker.look(due.windows, outputs)
        return events

    def forget(self, now: int) -> tuple[bool, Events]:
        """Series of which nothing was heard for long give their places back: whether there were any."""
        gone = self.grid.forgotten(now)
        if not len(gone):
            return False, Events()
        events = Events(alerts=self.judge.standing.forget(gone, now), moved=True)
        for room in (self.grid, self.buffers, self.judge):
            room.reset(gone)
        if self.onlooker is not None:
            self.onlooker.reset(gone)
        self.intake.forget(gone.tolist())
        return True, events

    def call(self, call: Call) -> None:
        """What a person asks of this stream; what names a series that is not here has no effect."""
        self._make_room()
        self.judge.call(call, self.intake.find(call.series) if call.series else None)

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
        invalid = fates[Fate.INVALID] + sum(counts[kind] for kind in REFUSED)
        return {
            "received": counts["received"] + self.shed, "accepted": fates[Fate.ACCEPTED], "invalid": invalid,
            "duplicate": fates[Fate.DUPLICATE] + counts["repeated"], "late": fates[Fate.LATE] + counts["retained"],
            "shed": self.shed,
            **{f"invalid_{kind}": counts[kind] for kind in REFUSED}, "invalid_time": fates[Fate.INVALID],
            "retained": counts["retained"], "unused": counts["unused"],
            "open": self.grid.pending(), "series": self.intake.series_count,
            "stale": int(self.grid.stale.sum()), "alerting": int(self.judge.alerts.active.sum()),
            "gaps": rhythm["gaps"] + sequences.gaps, "missing": rhythm["missing"] + sequences.missing,
            "muted": self.judge.attention.muted(), "withheld": self.judge.attention.withheld,
            **self.judge.counts,
        }  # fmt: skip

    def drifting(self, most: int) -> tuple[int, list[DriftReport]]:
        """How many channels drift, and those `most` that have moved farthest."""
        return self.judge.drifting(most)

    def fingerprint(self) -> list[Any]:
        """What must be equal for a snapshot to fit: the model and the shape of the grid."""
        m, g = self.model.manifest, self.spec.grid
        return [m.label, self.model.sha256, m.length, len(m.channels), g.step, g.aggregate, self.spec.topic,
                list(self.spec.series)]  # fmt: skip

    def kind(self) -> list[Any]:
        """What must be equal besides the shape for another model to go on with the state of this one (`adoption`)."""
        m = self.model.manifest
        return [m.task, [c.name for c in m.channels]]

    def snapshot(self) -> dict[str, Any]:
        return {
            "fingerprint": self.fingerprint(), "kind": self.kind(), "intake": self.intake.snapshot(),
            "grid": self.grid.snapshot(), "buffers": self.buffers.snapshot(), "judge": self.judge.snapshot(),
            "fates": self.fates.copy(), "shed": self.shed,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        for name in ("intake", "grid", "buffers", "judge"):
            getattr(self, name).restore(state[name])
        self.fates, self.shed = np.array(state["fates"]), int(state["shed"])
