"""The bounded queue between the network thread and the pipeline. Messages in, all that has arrived out.

Never blocks the network: over the limit the oldest message is shed, and kept apart so that it can be accounted for.
"""

import threading
from collections import deque

from transom.core.pipeline import Message

MOST = 65_536  # messages of one drain, so that a batch fits into memory


class Inbox:
    """One thread puts, one drains."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._messages: deque[Message] = deque()
        self._shed: list[Message] = []
        self._arrived = threading.Condition()

    def put(self, message: Message) -> None:
        with self._arrived:
            if len(self._messages) >= self._limit:
                self._shed.append(self._messages.popleft()._replace(payload=b""))
            self._messages.append(message)
            self._arrived.notify()

    def wait(self, timeout: float) -> bool:
        """True as soon as there is a message, False after `timeout` seconds without one."""
        with self._arrived:
            return self._arrived.wait_for(lambda: bool(self._messages), timeout)

    def drain(self) -> tuple[list[Message], list[Message]]:
        """Everything that has arrived, at most MOST, and what was shed since the last call; both oldest first."""
        with self._arrived:
            shed, self._shed = self._shed, []
            if len(self._messages) <= MOST:
                messages, self._messages = list(self._messages), deque()
            else:
                messages = [self._messages.popleft() for _ in range(MOST)]
        return messages, shed

    def __len__(self) -> int:
        return len(self._messages)
