"""A turn that the pipeline cannot take: which of its messages is to blame, found by halves, and what is left of it.

Works on pipelines that are made again for each try; knows nothing of disks or brokers.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from transom.core.pipeline import Message, Pipeline, Turn
from transom.edge import masks

log = logging.getLogger(__name__)

T = TypeVar("T")
Take = Callable[[Pipeline, Turn], T]
Refused = list[tuple[Message, str]]


def digest(turn: Turn, again: Callable[[], Pipeline], take: Take[T]) -> tuple[Pipeline, Turn, T]:
    """As much of a turn as can be taken: the pipeline that has taken it, what is left of it, and what `take` gave.
    again: gives the pipeline as it was before the turn, a new one at each call; take: has it take a turn. Raises only
    when not even an empty turn can be taken."""
    for left in _less_and_less(turn, again, take):
        pipeline = again()
        try:
            return pipeline, left, take(pipeline, left)
        except Exception as error:
            log.exception("a turn cannot be processed without its bad messages either (%s)", type(error).__name__)
    pipeline = again()
    return pipeline, Turn(), take(pipeline, Turn())


def _less_and_less(turn: Turn, again: Callable[[], Pipeline], take: Take[T]) -> Iterator[Turn]:
    try:
        take(again(), turn._replace(messages=()))
    except Exception as error:  # noqa: BLE001  # no message is to blame
        log.error("the look for idle series fails (%s): left out", masks.reason(error))  # noqa: TRY400
        turn = turn._replace(now=None)
    for _ in range(2):  # what was harmless in one try may not be in the next: near the end of the stack, say
        good, bad = sift(turn, again, take)
        turn = turn._replace(messages=good, refused=[*turn.refused, *bad])
        yield turn
    rest = [(m, "cannot be processed together with others of its turn") for m in turn.messages]
    turn = turn._replace(messages=(), refused=[*turn.refused, *rest])
    yield turn
    yield Turn(refused=turn.refused)


def sift(turn: Turn, again: Callable[[], Pipeline], take: Take[T]) -> tuple[list[Message], Refused]:
    """Messages that can be processed together, and those that cannot, each with the reason."""
    good: list[Message] = []
    bad: Refused = []

    def halve(messages: list[Message]) -> None:
        # With all good ones before it: a message may be harmless alone, where it completes no window.
        try:
            take(again(), turn._replace(messages=[*good, *messages]))
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes the reason of a dead letter
            if len(messages) == 1:
                reason = f"cannot be processed ({type(error).__name__}: {error})"
                told = f"cannot be processed ({masks.reason(error)})"
                log.error("%s: %s", masks.topic(messages[0].topic)[:200], told)  # noqa: TRY400
                bad.append((messages[0], reason))
                return
            half = len(messages) // 2
            halve(messages[:half])
            halve(messages[half:])
        else:
            good.extend(messages)

    if turn.messages:
        halve(list(turn.messages))
    return good, bad
