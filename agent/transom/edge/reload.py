"""A changed configuration: noticed, read, built beside the old one, and handed over when it is ready.

Reads the file and loads models in a thread of its own; a configuration that is refused changes nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from transom.edge.assembly import Assembly, Updates, build_pipeline
from transom.edge.tls import make_context
from transom.edge.wire import tls_options
from transom.errors import SettingsError, TransomError
from transom.settings import Settings

log = logging.getLogger(__name__)

LOOK = 2.0  # seconds between looks at the file
SETTLE = 1.0  # seconds for which the file must not have changed: an editor may be half way through it
FIXED = ("id", "state", "durability")  # of the agent: a change of these is refused
RESTART = ("inbox",)  # of the agent: a change of these is taken at the next start


class Reload:
    """read: gives the settings as they are configured now, or raises TransomError; file: watched for changes; updates:
    newer models that run instead of the configured ones."""

    def __init__(self, read: Callable[[], Settings], file: Path | None, updates: Updates | None = None) -> None:
        self._read, self._file, self._updates = read, file, updates
        self._seen = self._stamp()
        self._asked = False  # no event: a handler that waits for its lock would wait for itself
        self._looked = 0.0
        self._settling: float | None = None  # since when the file, as seen, is to be read
        self._building: threading.Thread | None = None
        self._built: tuple[Settings, Assembly] | None = None
        self._problems: list[TransomError] = []
        self._concluded = False

    def ask(self) -> None:
        """Reads again at the next turn; safe in a signal handler."""
        self._asked = True

    def take(self, current: Settings, running: Collection[str] = ()) -> tuple[Settings, Assembly] | None:
        """The new settings and what they make, once; None as long as there is nothing new. running: streams that must
        not break by it."""
        if self._building is not None:
            if self._building.is_alive():
                return None
            self._building = None
            built, self._built = self._built, None
            self._concluded = built is not None or bool(self._problems)
            return built
        if self._wanted():
            job = (current, frozenset(running), self._seen)
            self._building = threading.Thread(target=self._build, args=job, name="transom-reload", daemon=True)
            self._building.start()
        return None

    @property
    def under_way(self) -> bool:
        """A configuration is being built, or waits to be taken."""
        return self._building is not None

    def concluded(self) -> list[TransomError] | None:
        """Once after each reading of the configuration: why it was refused, [] when it was taken; else None."""
        if not self._concluded:
            return None
        self._concluded = False
        return self._problems

    def _wanted(self) -> bool:
        now = time.monotonic()
        if now - self._looked < (LOOK if self._settling is None and not self._asked else SETTLE / 10):
            return False
        self._looked = now
        asked, self._asked = self._asked, False
        stamp = self._stamp()
        if stamp != self._seen or (asked and self._settling is None):
            self._seen, self._settling = stamp, now
        if self._settling is None or (self._file is not None and now - self._settling < SETTLE):
            return False
        self._settling = None
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self._file.stat() if self._file is not None else None
        except OSError:
            return None  # being replaced, or gone: what runs goes on
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat else None

    def _build(self, current: Settings, running: Collection[str], seen: tuple[int, int, int] | None) -> None:
        log.info("reading the configuration again")
        self._problems = []
        try:
            settings = self._read()
            if self._stamp() != seen:
                self._asked = True  # it changed meanwhile
                return
            check_fixed(settings, current)
            if settings.broker != current.broker and settings.broker.tls.enabled:
                make_context(tls_options(settings.broker.tls))  # refused here, the present connection goes on
            assembly = build_pipeline(settings, updates=self._updates)
            broken = [error for name, error in assembly.broken.items() if name in running]
            if broken:
                raise SettingsError(broken)  # noqa: TRY301  # what runs is worth more than what is new
            for error in assembly.broken.values():
                log.error("a stream is left out: %s", error)
            self._built = settings, assembly
        except SettingsError as error:
            self._problems = list(error.problems)
            for problem in error.problems:
                log.error("the new configuration is refused, the old one goes on: %s", problem)  # noqa: TRY400
        except TransomError as error:
            self._problems = [error]
            log.error("the new configuration is refused, the old one goes on: %s", error)  # noqa: TRY400
        except Exception as error:  # a thread that dies in silence would hide it
            self._problems = [TransomError("configuration", f"cannot be read ({type(error).__name__})", "see the log")]
            log.exception("the new configuration is refused, the old one goes on")


def _resolutions(settings: Settings) -> set[tuple[str, str, float]]:
    streams = settings.streams.items()
    return {(name, c, one.resolution) for name, s in streams for c, one in s.channels.items() if one.resolution}


def check_fixed(settings: Settings, current: Settings) -> None:
    """Raises TransomError for what cannot change in a running agent."""
    for place, fixed in (
        ("privacy", settings.privacy == current.privacy),
        ("resolution of channels", _resolutions(settings) == _resolutions(current)),
    ):
        if not fixed:
            raise TransomError(place, "is fixed while the agent runs", "restart the agent to change it")
    for key in FIXED:
        if getattr(settings.agent, key) != getattr(current.agent, key):
            raise TransomError(f"agent.{key}", "is fixed while the agent runs", "restart the agent to change it")
