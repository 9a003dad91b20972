"""What a pipeline was a while ago and the turns since, in memory: what it is made again of where there is no journal.

Bounded: after so many messages a new copy takes the place of the old one and of its turns.
"""

from transom.core.pipeline import Pipeline, Turn
from transom.edge import packing

MESSAGES = 20_000  # since the copy; some 0.3 s to take them again
MOST = 100_000  # the same of a large pipeline, which costs more to copy
WORTH = 64  # bytes of a copy that cost about as much as a message more
BYTES = 8 << 20  # of their payloads


class Past:
    def __init__(self) -> None:
        self._state: bytes | None = None
        self._turns: list[Turn] = []
        self._messages = self._bytes = 0
        self.used = False  # since the last copy

    def __bool__(self) -> bool:
        return self._state is not None

    @property
    def full(self) -> bool:
        size = len(self._state or b"")
        return self._messages > min(MESSAGES + size // WORTH, MOST) or self._bytes > BYTES

    def keep(self, pipeline: Pipeline) -> None:
        """A copy of the pipeline as it is; bytes, so that nobody can change it."""
        self.drop()
        self._state = packing.pack(pipeline.snapshot())

    def add(self, turn: Turn) -> None:
        """A turn that the pipeline has taken."""
        if self._state is None:
            return
        self._turns.append(turn)
        self._messages += 1 + len(turn.messages)
        self._bytes += sum(len(m.payload) for m in turn.messages)

    def drop(self) -> None:
        self._state, self._turns, self._messages, self._bytes, self.used = None, [], 0, 0, False

    def copy(self, pipeline: Pipeline) -> Pipeline:
        """A fresh pipeline made what the last one was when it was kept. Raises ValueError when nothing is."""
        if self._state is None:
            raise ValueError("nothing is kept")
        pipeline.restore(packing.unpack(self._state))
        return pipeline

    def replay(self, pipeline: Pipeline) -> None:
        """A fresh pipeline made what the last one is after all turns since."""
        self.copy(pipeline)
        for turn in self._turns:
            pipeline.take(turn)
