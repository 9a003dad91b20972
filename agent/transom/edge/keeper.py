"""When what survives is written: turns are committed together, snapshots follow, a disk that refuses is waited for.

Between the run loop and the journal. Gives messages back to be acknowledged only when they are safe, or when it has
said that the journal is off.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from transom.core.pipeline import Pipeline, Turn
from transom.dialects.plain import Publication
from transom.edge import recovery
from transom.edge.inbox import Token
from transom.edge.journal import Journal, JournalBusyError
from transom.edge.linger import Linger
from transom.edge.past import Past
from transom.edge.redelivered import Mark, Redelivered
from transom.edge.retention import Retention

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds, at least, between two looks whether the file is still in its folder
RETRY = 5.0  # seconds between attempts while the disk refuses
SNAPSHOT_BYTES = 1 << 20  # of turns, at least, before a new snapshot
SNAPSHOT_TIMES = 4  # turns may be so many times as large as the last snapshot
SNAPSHOT_MESSAGES = 500_000  # more would make a start slow


class Committed(NamedTuple):
    """tokens: messages that may be acknowledged; alerts: with their ids; unsaved: alerts that are not on disk; undone:
    ids of alerts that the broker has and the disk does not know it."""

    tokens: list[Token]
    alerts: list[tuple[int, Publication]]
    unsaved: list[Publication]
    undone: list[int]


class Keeper:
    """journal: None keeps nothing ("none"); commit_every: seconds that a commit may wait for more messages."""

    def __init__(self, journal: Journal | None, commit_every: float, retention: Retention | None = None) -> None:
        self.journal, self.linger = journal, Linger(commit_every)
        self.retention = retention or Retention(None, None)
        self.problem = ""  # why the journal is off, "" while it is on
        self.redelivered = Redelivered()
        self._turns: list[Turn] = []
        self._tokens: list[Token] = []
        self._marks: list[Mark] = []
        self._alerts: list[Publication] = []
        self._notes: dict[str, Any] = {}
        self._past = Past()  # where the journal cannot be asked
        self._space = 0  # of the ids of alerts that were given out
        self._unread = False  # what the last run has left
        self._damaged = ""  # why the file has to be set aside
        self._size, self._begun, self._count = 0, 0, 0  # of the last snapshot; bytes then; messages since
        self._retry = self._looked = 0.0
        self.commits = self.snapshots = 0

    # --- start --------------------------------------------------------------------------------------------------------

    @property
    def on(self) -> bool:
        return self.journal is not None and not self.problem

    def start(self, pipeline: Pipeline) -> tuple[list[str], int | None]:
        """Restores the snapshot and replays the turns after it. Returns the streams that start anew, and when (ms)
        the last turn was, None when there is nothing. Raises JournalBusyError."""
        if self.journal is None:
            return [], None
        empty = pipeline.snapshot()
        try:
            self.journal.open()
            try:
                found = self._recover(pipeline)
            except sqlite3.OperationalError:
                raise  # the disk, not what is on it
            except Exception as error:  # noqa: BLE001  # whatever it is, it would be the same at each start
                pipeline.restore(empty)
                self.redelivered = Redelivered()
                self.journal.replace(f"is damaged ({type(error).__name__}: {error})", with_alerts=True)
                found = [], None
        except (sqlite3.Error, OSError) as error:
            self._unread = True
            self._switch_off(error)
            return [], None
        self._space = self.journal.space
        return found

    def _recover(self, pipeline: Pipeline) -> tuple[list[str], int | None]:
        assert self.journal is not None
        fresh, last, turns, marks = recovery.recover(self.journal, pipeline)
        self.redelivered.add(marks)
        if turns or fresh:
            self.renew(pipeline)
        return fresh, last

    # --- a pipeline made again ----------------------------------------------------------------------------------------

    @property
    def wants_pipeline(self) -> bool:
        """True when the next call of `remember` or `commit` is to look at the pipeline, which must be settled then."""
        return (not self._past and not self.on) or self._past.full or (self.on and self._snapshot_due())

    def remember(self, pipeline: Pipeline) -> None:
        """To be called before a turn when the pipeline is wanted. Where no journal is, a copy in memory is kept, and
        for a while after one was needed, for then it may be needed again soon."""
        if not self._past and not self.on:
            self._past.keep(pipeline)
        elif self._past.full:
            if self.on and not self._past.used:
                self._past.drop()
            else:
                self._past.keep(pipeline)

    def rebuild(self, pipeline: Pipeline) -> Callable[[], Pipeline]:
        """Gives, at each call, a new pipeline that is what this one was after the turns that were added."""
        base = pipeline.fresh()
        if self._past:
            self._past.replay(base)
        elif self.on:
            try:
                assert self.journal is not None
                recovery.recover(self.journal, base)
                for turn in self._turns:
                    base.take(turn)
            except (sqlite3.Error, OSError, KeyError, TypeError, ValueError) as error:
                base = pipeline.fresh()
                self._damaged = str(error)
                log.error("the state cannot be read again (%s): all windows start anew", error)  # noqa: TRY400
                self._switch_off(error)
        self._past.keep(base)
        self._past.used = True
        return lambda: self._past.copy(pipeline.fresh())

    def renew(self, pipeline: Pipeline) -> None:
        """Another pipeline goes on from here: the turns so far belong to the streams as they were."""
        self._past.drop()
        if self.on:
            try:
                self.snapshot(pipeline)
            except (sqlite3.Error, OSError) as error:
                self._switch_off(error)

    # --- while running ------------------------------------------------------------------------------------------------

    def add(self, turn: Turn, tokens: Sequence[Token], marks: Sequence[Mark], alerts: Sequence[Publication]) -> None:
        """A turn that the pipeline has taken, and what came of it that must not be lost."""
        self.linger.add(len(turn.messages))
        if self.on:
            self._turns.append(turn)
        self._past.add(turn)
        self._tokens += tokens
        self._marks += marks
        self._alerts += alerts

    def note(self, name: str, value: Any) -> None:
        """Something small to be kept with the next commit."""
        self._notes[name] = value

    def noted(self, name: str) -> Any:
        """What was noted, in this run or the last one, and is on disk."""
        if not self.on:
            return None
        assert self.journal is not None
        try:
            return self.journal.note(name)
        except sqlite3.Error as error:
            self._switch_off(error)
            return None

    def wait(self) -> float | None:
        """Seconds until the next commit is due, None when there is nothing to commit."""
        if self.on and self.retention.due:
            return 0.0
        return self.linger.wait(bool(self._alerts) or not self.on)

    def commit(self, pipeline: Pipeline | None, done: Sequence[int]) -> Committed:
        """Writes what has come together, and a snapshot when it is time. pipeline: None while it is ahead of the turns
        that were added; done: ids of alerts that the broker has."""
        turns, tokens, marks, alerts, notes = self._turns, self._tokens, self._marks, self._alerts, self._notes
        self._count += self.linger.messages
        lingered = self.linger.committed()
        self._turns, self._tokens, self._marks, self._alerts, self._notes = [], [], [], [], {}
        unsaved, undone = alerts, list(done)
        stored: list[tuple[int, Publication]] = []
        if self.on and self._look():
            assert self.journal is not None
            try:
                if turns or alerts or done or notes:
                    stored = list(zip(self.journal.commit(turns, marks, alerts, done, notes), alerts, strict=True))
                    self.commits += 1
                if turns:
                    self.retention.wrote()
                unsaved, undone, notes = [], [], {}
                if pipeline is not None and self._snapshot_due():
                    self.snapshot(pipeline)
            except (sqlite3.Error, OSError) as error:
                self._switch_off(error)
        self._notes = notes | self._notes  # of those that were not written
        if tokens and lingered:
            self.linger.acknowledged(len(tokens))
        return Committed(tokens, stored, unsaved, undone)

    def _look(self) -> bool:
        assert self.journal is not None
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._looked = now
            try:
                self.journal.look()
            except sqlite3.Error as error:
                self._switch_off(error)
                self._retry = now  # that folder can be made again at once
                return False
        return True

    def _snapshot_due(self) -> bool:
        assert self.journal is not None
        written = self.journal.bytes - self._begun
        large = written > max(SNAPSHOT_BYTES, SNAPSHOT_TIMES * self._size) or self._count > SNAPSHOT_MESSAGES
        return large or self.retention.due

    def snapshot(
        self, pipeline: Pipeline, alerts: Sequence[Publication] = (), done: Sequence[int] = ()
    ) -> list[int]:  # fmt: skip
        """Writes a snapshot of the pipeline as it is after all committed turns, and in the same transaction alerts,
        whose ids it returns, and which the broker has. Raises sqlite3.Error."""
        assert self.journal is not None
        notes = self._notes | {"now": time.time_ns() // 1_000_000}
        state, marks = pipeline.snapshot(), self.redelivered.marks()
        self._size, ids = self.journal.snapshot(state, marks, notes, alerts, done)
        self._notes, self._begun, self._count = {}, self.journal.bytes, 0
        self.snapshots += 1
        self.retention.emptied()
        return ids

    # --- when the disk refuses ----------------------------------------------------------------------------------------

    def _switch_off(self, error: Exception) -> None:
        self.problem = str(error)
        self._retry = time.monotonic() + RETRY
        assert self.journal is not None
        log.error(
            "state %s cannot be written (%s): going on WITHOUT the journal, a crash loses windows and alerts that "
            "wait; trying again every %.0f s", self.journal.path, error, RETRY,
        )  # fmt: skip

    def reopen(self) -> bool | None:
        """While the journal is off: opens it again. True when it is another file, in which no alert that is held has
        an id; None as long as that cannot be done."""
        assert self.journal is not None
        self._retry = time.monotonic() + RETRY
        try:
            self.journal.close()
            self.journal.open()
            if self._damaged:
                self.journal.replace(f"is damaged ({self._damaged})", with_alerts=False)
            elif self._unread and self.journal.holds_state:
                self.journal.replace("could not be read when the agent started", with_alerts=True)
        except (sqlite3.Error, OSError, JournalBusyError) as error:
            self.problem = error.problem if isinstance(error, JournalBusyError) else str(error)
            log.debug("the journal is still off: %s", error)
            return None
        self._damaged, self._unread = "", False
        space, self._space = self._space, self.journal.space
        return self._space != space

    def resume(self, pipeline: Pipeline, rescued: Sequence[Publication], done: Sequence[int]) -> list[int] | None:
        """After `reopen`: writes all that there is. rescued: alerts in memory only; returns their ids, None when the
        disk refuses."""
        assert self.journal is not None
        try:
            ids = self.snapshot(pipeline, rescued, done)
        except (sqlite3.Error, OSError) as error:
            log.debug("the journal is still off: %s", error)
            return None
        self.problem = ""
        log.info("state %s can be written again: the journal is on", self.journal.path)
        return ids

    def waiting(self, after: int, limit: int) -> Sequence[tuple[int, Publication]]:
        """Alerts on disk that the broker does not have, with ids above `after`."""
        if not self.on:
            return ()
        assert self.journal is not None
        try:
            return self.journal.waiting(after, limit)
        except sqlite3.Error as error:
            self._switch_off(error)
            return ()

    def counts(self) -> dict[str, Any]:
        """For BASE/health; bytes: of turns and snapshots written since the start."""
        return {
            "on": self.on, "commits": self.commits, "snapshots": self.snapshots,
            "bytes": self.journal.bytes if self.journal else 0,
        }  # fmt: skip

    @property
    def retry_due(self) -> bool:
        return bool(self.problem) and time.monotonic() >= self._retry

    def close(self, pipeline: Pipeline, done: Sequence[int] = ()) -> None:
        """Saves everything: the next start has nothing to replay."""
        if self.journal is None:
            return
        try:
            if self.on and self._look():
                self.snapshot(pipeline, done=done)
            self.journal.close()
        except (sqlite3.Error, OSError) as error:
            self._switch_off(error)

    def abandon(self, done: Sequence[int]) -> None:
        """Closes with what was taken whole, and no snapshot: of a pipeline that a turn has half changed there is
        nothing to save. The next start makes it again."""
        if self.journal is None:
            return
        try:
            if self.on:
                self.journal.commit(self._turns, self._marks, self._alerts, done, self._notes)
            self.journal.close()
        except (sqlite3.Error, OSError) as error:
            self._switch_off(error)
