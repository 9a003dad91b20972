"""When what survives is written: turns are committed together, snapshots follow, a disk that refuses is waited for.

Between the run loop and the journal. Gives messages back to be acknowledged only when they are safe, or when it has
said that the journal is off.
"""

import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from transom.core.pipeline import Pipeline, Turn
from transom.dialects.plain import Publication
from transom.edge.inbox import Token
from transom.edge.journal import Journal
from transom.edge.redelivered import Mark, Redelivered

log = logging.getLogger(__name__)

TOGETHER = 16  # messages that are committed at once: a broker may not send more before it hears of them
SOONEST = 0.005  # seconds, the shortest wait for more
RUSH = 0.05  # seconds after an acknowledgement in which new messages say that the broker had been waiting
RETRY = 5.0  # seconds between attempts while the disk refuses
SNAPSHOT_BYTES = 1 << 20  # of turns, at least, before a new snapshot
SNAPSHOT_TIMES = 4  # turns may be so many times as large as the last snapshot
SNAPSHOT_MESSAGES = 500_000  # more would make a start slow


class Committed(NamedTuple):
    """tokens: messages that may be acknowledged; alerts: with their ids; unsaved: alerts that are not on disk."""

    tokens: list[Token]
    alerts: list[tuple[int, Publication]]
    unsaved: list[Publication]


class Keeper:
    """journal: None keeps nothing ("none"); commit_every: seconds that a commit may wait for more messages."""

    def __init__(self, journal: Journal | None, commit_every: float) -> None:
        self.journal, self._longest = journal, commit_every
        self.problem = ""  # why the journal is off, "" while it is on
        self.redelivered = Redelivered()
        self._turns: list[Turn] = []
        self._tokens: list[Token] = []
        self._marks: list[Mark] = []
        self._alerts: list[Publication] = []
        self._notes: dict[str, Any] = {}
        self._messages = 0
        self._since: float | None = None  # when the oldest uncommitted turn came
        self._linger = commit_every
        self._acknowledged = (0.0, 0)  # when, and how many messages
        self._size, self._begun, self._count = 0, 0, 0  # of the last snapshot; bytes then; messages since
        self._retry = 0.0
        self.commits = self.snapshots = 0

    # --- start --------------------------------------------------------------------------------------------------------

    def start(self, pipeline: Pipeline) -> tuple[list[str], int | None]:
        """Restores the snapshot and replays the turns after it. Returns the streams that start anew, and when (ms)
        the last turn was, None when there is nothing. Raises JournalBusyError."""
        if self.journal is None:
            return [], None
        try:
            self.journal.open()
            return self._recover(pipeline)
        except (sqlite3.Error, OSError) as error:
            self._switch_off(error)
            return [], None

    def _recover(self, pipeline: Pipeline) -> tuple[list[str], int | None]:
        assert self.journal is not None
        snapshot, rows, marks = self.journal.recover()
        self.redelivered.add(marks)
        last: int | None = self.journal.note("now")
        fresh: list[str] = []
        if snapshot is not None:
            try:
                fresh = pipeline.restore(snapshot)
            except (KeyError, TypeError, ValueError) as error:
                log.error("the saved state cannot be used (%s): starting without it", error)  # noqa: TRY400
                fresh = list(pipeline.streams)
        began, messages = time.monotonic(), 0
        for _, turns in self.journal.turns():
            for turn in turns:
                pipeline.take(turn)
                messages += len(turn.messages)
                last = turn.now or (turn.messages[-1].received if turn.messages else last)
        if rows:
            log.info("%s messages since the last snapshot replayed in %.1f s", messages, time.monotonic() - began)
        if rows or fresh:
            self.snapshot(pipeline)
        return fresh, last

    def rebuild(self, pipeline: Pipeline) -> None:
        """Makes a fresh pipeline what the journal and the turns not yet committed say. Raises sqlite3.Error."""
        if self.journal is None or self.problem:
            return
        snapshot, _, _ = self.journal.recover()
        if snapshot is not None:
            pipeline.restore(snapshot)
        for _, turns in self.journal.turns():
            for turn in turns:
                pipeline.take(turn)
        for turn in self._turns:
            pipeline.take(turn)

    # --- while running ------------------------------------------------------------------------------------------------

    def add(self, turn: Turn, tokens: Sequence[Token], marks: Sequence[Mark], alerts: Sequence[Publication]) -> None:
        """A turn that the pipeline has taken, and what came of it that must not be lost."""
        now = time.monotonic()
        when, acknowledged = self._acknowledged
        if acknowledged and turn.messages:
            if now - when < RUSH and len(turn.messages) >= acknowledged / 2:  # it had been waiting for us
                self._linger = max(self._linger / 4, SOONEST)
            else:
                self._linger = min(self._linger * 2, self._longest)
            self._acknowledged = 0.0, 0
        if self.journal is not None and not self.problem:
            self._turns.append(turn)
        self._tokens += tokens
        self._marks += marks
        self._alerts += alerts
        self._messages += len(turn.messages)
        if self._since is None:
            self._since = now

    def note(self, name: str, value: Any) -> None:
        """Something small to be kept with the next commit."""
        self._notes[name] = value

    def wait(self) -> float | None:
        """Seconds until the next commit is due, None when there is nothing to commit."""
        if self._since is None:
            return None
        if self._alerts or self._messages >= TOGETHER or self.journal is None or self.problem:
            return 0.0
        return max(0.0, self._since + self._linger - time.monotonic())

    def commit(self, pipeline: Pipeline, done: Sequence[int]) -> Committed:
        """Writes what has come together. done: ids of alerts that the broker has."""
        turns, tokens, marks, alerts, notes = self._turns, self._tokens, self._marks, self._alerts, self._notes
        lingered = self._messages < TOGETHER
        self._turns, self._tokens, self._marks, self._alerts, self._notes = [], [], [], [], {}
        self._since, self._count, self._messages = None, self._count + self._messages, 0
        unsaved: list[Publication] = alerts
        stored: list[tuple[int, Publication]] = []
        if self.journal is not None and not self.problem:
            try:
                if turns or alerts or done or notes:
                    stored = list(zip(self.journal.commit(turns, marks, alerts, done, notes), alerts, strict=True))
                    self.commits += 1
                unsaved = []
                if self._snapshot_due():
                    self.snapshot(pipeline)
            except (sqlite3.Error, OSError) as error:
                self._notes = notes
                self._switch_off(error)
        if tokens and lingered:
            self._acknowledged = time.monotonic(), len(tokens)
        return Committed(tokens, stored, unsaved)

    def _snapshot_due(self) -> bool:
        assert self.journal is not None
        written = self.journal.bytes - self._begun
        return written > max(SNAPSHOT_BYTES, SNAPSHOT_TIMES * self._size) or self._count > SNAPSHOT_MESSAGES

    def snapshot(self, pipeline: Pipeline) -> None:
        """Writes a snapshot of the pipeline as it is after all committed turns. Raises sqlite3.Error."""
        assert self.journal is not None
        notes, self._notes = self._notes | {"now": time.time_ns() // 1_000_000}, {}
        self._size = self.journal.snapshot(pipeline.snapshot(), self.redelivered.marks(), notes)
        self._begun, self._count = self.journal.bytes, 0
        self.snapshots += 1

    # --- when the disk refuses ----------------------------------------------------------------------------------------

    def _switch_off(self, error: Exception) -> None:
        self.problem = str(error)
        self._retry = time.monotonic() + RETRY
        assert self.journal is not None
        log.error(
            "state %s cannot be written (%s): going on WITHOUT the journal, a crash loses windows and alerts that "
            "wait; trying again every %.0f s", self.journal.path, error, RETRY,
        )  # fmt: skip

    def try_again(self, pipeline: Pipeline, rescued: Sequence[Publication]) -> list[tuple[int, Publication]] | None:
        """While the journal is off: now and then tries to begin anew. rescued: alerts in memory, with their ids when
        they could be saved, None as long as the disk refuses."""
        assert self.journal is not None
        self._retry = time.monotonic() + RETRY
        try:
            self.journal.close()
            self.journal.open()
            ids = self.journal.commit([], [], rescued, [], {})
            self.snapshot(pipeline)
        except (sqlite3.Error, OSError) as error:
            log.debug("the journal is still off: %s", error)
            return None
        self.problem = ""
        log.info("state %s can be written again: the journal is on", self.journal.path)
        return list(zip(ids, rescued, strict=True))

    def waiting(self, after: int, limit: int) -> Sequence[tuple[int, Publication]]:
        """Alerts on disk that the broker does not have, with ids above `after`."""
        if self.journal is None or self.problem:
            return ()
        try:
            return self.journal.waiting(after, limit)
        except sqlite3.Error as error:
            self._switch_off(error)
            return ()

    def counts(self) -> dict[str, Any]:
        """For BASE/health; bytes: of turns and snapshots written since the start."""
        return {
            "on": self.journal is not None and not self.problem, "commits": self.commits, "snapshots": self.snapshots,
            "bytes": self.journal.bytes if self.journal else 0,
        }  # fmt: skip

    @property
    def retry_due(self) -> bool:
        return bool(self.problem) and time.monotonic() >= self._retry

    def close(self, pipeline: Pipeline) -> None:
        """Saves everything: the next start has nothing to replay."""
        if self.journal is None:
            return
        try:
            if not self.problem:
                self.snapshot(pipeline)
            self.journal.close()
        except (sqlite3.Error, OSError) as error:
            self._switch_off(error)
