"""A turn that the pipeline cannot take: which of its messages is to blame, found by halves.

Works on pipelines that are rebuilt for each try; knows nothing of disks or brokers.
"""

import logging
from collections.abc import Callable

from transom.core.pipeline import Message, Pipeline, Turn

log = logging.getLogger(__name__)

Refused = list[tuple[Message, str]]


def sift(turn: Turn, rebuild: Callable[[], Pipeline]) -> tuple[list[Message], Refused]:
    """Messages that can be processed together, and those that cannot, each with the reason. rebuild: gives the
    pipeline as it was before the turn."""
    good: list[Message] = []
    bad: Refused = []

    def take(messages: list[Message]) -> None:
        # With all good ones before it: a message may be harmless alone, where it completes no window.
        try:
            rebuild().take(turn._replace(messages=[*good, *messages]))
        except Exception as error:  # noqa: BLE001  # whatever it is, it becomes the reason of a dead letter
            if len(messages) == 1:
                reason = f"cannot be processed ({type(error).__name__}: {error})"
                log.error("%s: %s", messages[0].topic[:200], reason)  # noqa: TRY400
                bad.append((messages[0], reason))
                return
            half = len(messages) // 2
            take(messages[:half])
            take(messages[half:])
        else:
            good.extend(messages)

    take(list(turn.messages))
    return good, bad
