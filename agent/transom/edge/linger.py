"""When turns that came together are committed: at once when there are enough, else after a while that adapts.

A broker that may send only a few messages ahead of acknowledgements waits for ours: then waiting for more is in vain.
"""

import time

TOGETHER = 16  # messages that are committed at once: a broker may not send more before it hears of them
SOONEST = 0.005  # seconds, the shortest wait for more
RUSH = 0.05  # seconds after an acknowledgement in which new messages say that the broker had been waiting


class Linger:
    """longest: seconds that a commit may wait for more messages. messages: that wait for it."""

    def __init__(self, longest: float) -> None:
        self.longest = self._pause = longest
        self.messages = 0
        self._since: float | None = None  # when the oldest of what waits came
        self._acknowledged = (0.0, 0)  # when, and how many messages

    def at_most(self, longest: float) -> None:
        self.longest = self._pause = longest

    def add(self, count: int) -> None:
        """A turn with so many messages waits from now on."""
        now = time.monotonic()
        when, acknowledged = self._acknowledged
        if acknowledged and count:
            if now - when < RUSH and count >= acknowledged / 2:  # it had been waiting for us
                self._pause = max(self._pause / 4, SOONEST)
            else:
                self._pause = min(self._pause * 2, self.longest)
            self._acknowledged = 0.0, 0
        self.messages += count
        if self._since is None:
            self._since = now

    def wait(self, at_once: bool) -> float | None:
        """Seconds until the commit is due, None when nothing waits. at_once: something in it cannot wait."""
        if self._since is None:
            return None
        if at_once or self.messages >= TOGETHER:
            return 0.0
        return max(0.0, self._since + self._pause - time.monotonic())

    def committed(self) -> bool:
        """Nothing waits any more; True when what did was waited for, and not enough by itself."""
        waited = self.messages < TOGETHER
        self._since, self.messages = None, 0
        return waited

    def acknowledged(self, count: int) -> None:
        """So many messages that were waited for are acknowledged now."""
        self._acknowledged = time.monotonic(), count
