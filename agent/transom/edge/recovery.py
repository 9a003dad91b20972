"""A pipeline made again from a journal: the snapshot, and the turns after it in their order.

Reads only. Raises sqlite3.Error, and whatever a pipeline raises that cannot take what is there.
"""

import logging
import time
from typing import NamedTuple

from transom.core.pipeline import Pipeline
from transom.edge.journal import Journal, Recent

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """fresh: streams that start anew; last: when (ms) the last turn was, None when there is nothing; turns: how many
    were taken again; marks: of the latest messages."""

    fresh: list[str]
    last: int | None
    turns: int
    marks: Recent


def recover(journal: Journal, pipeline: Pipeline) -> Recovered:
    """Into a pipeline that is fresh."""
    began, count, messages = time.monotonic(), 0, 0
    snapshot, _, marks = journal.recover()
    last: int | None = journal.note("now")
    fresh = [] if snapshot is None else pipeline.restore(snapshot)
    for _, turns in journal.turns():
        for turn in turns:
            pipeline.take(turn)
            count, messages = count + 1, messages + len(turn.messages)
            last = turn.now or (turn.messages[-1].received if turn.messages else last)
    if count:
        log.info("%s messages since the last snapshot replayed in %.1f s", messages, time.monotonic() - began)
    return Recovered(fresh, last, count, marks)
