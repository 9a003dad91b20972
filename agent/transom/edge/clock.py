"""The present, and by how much it has jumped: a clock that was set, or a machine that slept.

Reads three clocks of the system and nothing else; says each jump once.
"""

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

JUMP = 2_000_000_000  # ns: less is a clock being slewed

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # goes on while the machine sleeps; Linux has it


def _since_boot() -> int:
    return time.clock_gettime_ns(_BOOT)


class Clock:
    """Milliseconds since 1970 as our own clock has it, and what happened to it since the last look."""

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        since_boot: Callable[[], int] = _since_boot,
        awake: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Each gives ns: since 1970; since the machine started, asleep or not; the same while awake."""
        self._wall, self._since_boot, self._awake = wall, since_boot, awake
        self._set = wall() - since_boot()
        self._slept = since_boot() - awake()
        self.steps = 0

    def look(self) -> tuple[int, int]:
        """(now, jump) in ms: jump is how far the clock was set and how long the machine slept since the last look."""
        wall, boot = self._wall(), self._since_boot()
        stepped, slept = wall - boot - self._set, boot - self._awake() - self._slept
        jump = 0
        if abs(stepped) >= JUMP:
            jump += stepped
            self._set += stepped
            log.warning(
                "the clock was set %s by %.0f s: silence is counted from the new time",
                "forward" if stepped > 0 else "back", abs(stepped) / 1e9,
            )  # fmt: skip
        if slept >= JUMP:
            jump += slept
            self._slept += slept
            log.warning("the machine slept for %.0f s: silence is not counted for that time", slept / 1e9)
        self.steps += bool(jump)
        return wall // 1_000_000, jump // 1_000_000
