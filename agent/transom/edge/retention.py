"""How long what was read stays in the journal: when a snapshot has to take its place, and which alerts have waited too
long or are too many. Nothing of it unless the configuration says so.

Looks at a journal and deletes from it; decides nothing of what is written. What is deleted is overwritten with zeros in
the file (SQLite's secure_delete); what a disk keeps of its own beside that, as flash memory does, nobody here reaches.
"""

import logging
import sqlite3
import time
from collections.abc import Collection
from typing import NamedTuple

from transom.edge.journal import NAME, Journal
from transom.settings import PrivacySettings

log = logging.getLogger(__name__)

LOOK = 5.0  # seconds, at most, between two looks for what is too old

_SIZES = "SELECT id, sum(length(topic) + length(payload)) OVER (ORDER BY id DESC) AS size FROM outbox"
_BEYOND = f"SELECT max(id) FROM ({_SIZES}) WHERE size > ?"


class Dropped(NamedTuple):
    """upto: alerts with this id and lower ones are gone, but those on their way; number: how many went."""

    upto: int = 0
    number: int = 0


class Retention:
    """keep: seconds that readings, alerts and damaged files may stay, None for ever; most: bytes of waiting alerts."""

    def __init__(self, keep: float | None, most: int | None) -> None:
        self.keep, self.most = keep, most
        self._oldest: float | None = None  # when the oldest turn in the journal was written
        self._looked = float("-inf")

    @classmethod
    def of(cls, settings: PrivacySettings) -> "Retention":
        return cls(None if settings.keep is None else settings.keep / 1000, settings.keep_alerts)

    def wrote(self) -> None:
        """Turns are in the journal."""
        if self._oldest is None:
            self._oldest = time.monotonic()

    def emptied(self) -> None:
        """A snapshot has taken their place."""
        self._oldest = None

    @property
    def due(self) -> bool:
        """Turns have been there for too long."""
        return self.keep is not None and self._oldest is not None and time.monotonic() - self._oldest >= self.keep

    @property
    def tidy_due(self) -> bool:
        if self.keep is None and self.most is None:
            return False
        every = LOOK if self.keep is None else min(LOOK, self.keep / 4)
        return time.monotonic() - self._looked >= every

    def tidy(self, journal: Journal, under_way: Collection[int]) -> Dropped:
        """Deletes what has been there for too long, and the oldest alerts beyond the size. under_way: ids of alerts
        that the broker is being given. Raises sqlite3.Error and OSError."""
        self._looked, now = time.monotonic(), time.time()
        upto = 0
        if self.keep is not None:
            upto = journal.asked("SELECT max(id) FROM outbox WHERE made < ?", round(1000 * (now - self.keep))) or 0
            self._forget_files(journal, now - self.keep)
        if self.most is not None:
            upto = max(upto, journal.asked(_BEYOND, self.most) or 0)
        count = journal.drop_alerts(upto, under_way) if upto else 0
        if count:
            log.warning("%s alerts that the broker did not take are dropped: privacy.keep, privacy.keep_alerts", count)
        return Dropped(upto, count)

    def _forget_files(self, journal: Journal, before: float) -> None:
        for path in journal.path.parent.glob(f"{NAME}*.damaged-*"):
            if path.stat().st_mtime < before:
                path.unlink()
                log.info("state %s was set aside for longer than privacy.keep: deleted", path)


def tidied(retention: Retention, journal: Journal | None, under_way: Collection[int]) -> Dropped:
    """As `tidy`; nothing where there is no journal, or while the disk refuses: it is tried again."""
    try:
        return retention.tidy(journal, under_way) if journal is not None else Dropped()
    except (sqlite3.Error, OSError) as error:
        log.warning("what is older than privacy.keep cannot be deleted (%s): trying again", error)
        return Dropped()
