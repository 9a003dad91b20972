"""Turns through the pipeline, one after another; under load the models work on one while the next is being decoded.

The interpreter's lock is free while a model computes, so a second core decodes, encodes and sends meanwhile. One turn
ahead and no more: memory stays bounded, and what came first is always told first.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from transom.core.due import Due, infer
from transom.core.events import Events
from transom.core.model import Outputs
from transom.core.pipeline import Pipeline, Turn
from transom.dialects.plain import Publication, publications
from transom.dialects.privacy import Privacy, Rule
from transom.edge.inbox import Token
from transom.edge.redelivered import Mark
from transom.edge.sift import digest

log = logging.getLogger(__name__)

WORTH = 64  # windows or steps that a model must have to do for it to be asked beside the rest
TICK_AGAIN = 60.0  # seconds until idle series are looked for again after that has failed


@dataclass(slots=True)
class Work:
    """A turn, and what belongs to its messages: what acknowledges those that are new, what they are known by later,
    and what acknowledges those that were here before."""

    turn: Turn
    tokens: Sequence[Token] = ()
    marks: Sequence[Mark] = ()
    again: Sequence[Token] = ()


@dataclass(slots=True)
class Done:
    """What became of it. work.turn is without messages that could not be processed; those it has refused."""

    work: Work
    events: Events
    publications: list[Publication]


class Turns:
    """pipeline: what it is after the turns that were landed, while `settled`. untick: time (monotonic) before which no
    turn should ask for idle series."""

    def __init__(
        self, pipeline: Pipeline, base: str, rebuild: Callable[[Pipeline], Callable[[], Pipeline]],
        privacy: Privacy | None = None,
    ) -> None:  # fmt: skip
        """rebuild: gives, at each call, the pipeline as it was after the turns that were landed. privacy: what of the
        events may leave, all of them if None."""
        self.pipeline, self.settled, self.untick = pipeline, True, 0.0
        self._base, self._rebuild, self._privacy = base, rebuild, privacy or Privacy(Rule())
        self._worker = ThreadPoolExecutor(1, "transom-model")
        self._flying: tuple[Work, list[Due], Future[list[Outputs]]] | None = None

    @property
    def under_way(self) -> bool:
        return self._flying is not None

    def take(self, work: Work, land: Callable[[Done], None], *, ahead: bool) -> None:
        """Has the pipeline take a turn. land: told of each that is done, in their order. ahead: this one may stay under
        way, because there is more to do; the next call, or `settle`, lands it."""
        if work.turn.now is not None:
            self.settle(land)  # a tick forgets series, which what is under way may still name
        if work.turn.now is not None or not (ahead or self._flying):
            land(self._whole(work))
            return
        self.settled = False
        try:
            waiting = self.pipeline.gather(work.turn)
        except Exception as error:
            log.exception("a message cannot be processed (%s): looking for it", type(error).__name__)
            if self._flying is not None:
                self._landed(land)
            land(self._digested(work))
            return
        if self._flying is not None and not self._landed(land):
            land(self._whole(work))  # another pipeline goes on, which has not seen it
        elif ahead and sum(due.rows for due in waiting) >= WORTH:
            self._flying = work, waiting, self._worker.submit(infer, waiting)
        else:
            done = self._finished(work, waiting, lambda: infer(waiting)) or self._digested(work)
            self.settled = True
            land(done)

    def settle(self, land: Callable[[Done], None]) -> None:
        """Lands what is under way."""
        if self._flying is not None:
            self.settled = True  # nothing was gathered after it
            self._landed(land)

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _landed(self, land: Callable[[Done], None]) -> bool:
        """False when the pipeline had to be made again: what was gathered since is not in it."""
        assert self._flying is not None
        (work, waiting, future), self._flying = self._flying, None
        done = self._finished(work, waiting, future.result)
        land(done if done is not None else self._digested(work))
        return done is not None

    def _finished(self, work: Work, waiting: list[Due], outputs: Callable[[], list[Outputs]]) -> Done | None:
        """None when that is not possible."""
        try:
            events = self.pipeline.judge(waiting, outputs())
            return Done(work, events, self._published(events))
        except Exception as error:
            log.exception("a message cannot be processed (%s): looking for it", type(error).__name__)
            return None

    def _whole(self, work: Work) -> Done:
        try:
            return Done(work, *self._take(self.pipeline, work.turn))
        except Exception as error:
            log.exception("a message cannot be processed (%s): looking for it", type(error).__name__)
        return self._digested(work)

    def _digested(self, work: Work) -> Done:
        """A message that no code of ours can digest is set aside, and the rest goes on in a pipeline made again."""
        self.pipeline, left, (events, out) = digest(work.turn, self._rebuild(self.pipeline), self._take)
        self.settled = True
        if work.turn.now is not None and left.now is None:
            self.untick = time.monotonic() + TICK_AGAIN
        work.turn = left
        return Done(work, events, out)

    def _take(self, pipeline: Pipeline, turn: Turn) -> tuple[Events, list[Publication]]:
        events = pipeline.take(turn)
        return events, self._published(events)

    def _published(self, events: Events) -> list[Publication]:
        return list(publications(self._privacy.events(events), self._base))
