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
    return _sifted(turn, list(turn.messages), rebuild)


def _sifted(turn: Turn, messages: list[Message], rebuild: Callable[[], Pipeline]) -> tuple[list[Message], Refused]:
    try:
        rebuild().take(turn._replace(messages=messages))
    except Exception as error:  # noqa: BLE001  # whatever it is, it becomes the reason of a dead letter
        if len(messages) == 1:
            reason = f"cannot be processed ({type(error).__name__}: {error})"
            log.error("%s: %s", messages[0].topic[:200], reason)  # noqa: TRY400
            return [], [(messages[0], reason)]
        half = len(messages) // 2
        left, bad = _sifted(turn, messages[:half], rebuild)
        right, worse = _sifted(turn, messages[half:], rebuild)
        return left + right, bad + worse
    return messages, []
