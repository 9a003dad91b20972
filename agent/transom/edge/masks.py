"""Which privacy holds in this process, for whatever goes past events: log lines, problems, what health says of series.

One for the process, as logging is. What is published of events goes through it in `turns`; here are names only.
"""

import traceback
from types import TracebackType

from transom.dialects.privacy import Privacy, Rule
from transom.settings import Settings
from transom.settings.secrets import LARGEST_PASSWORD, read_text

_held = [Privacy(Rule())]
Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def privacy_of(settings: Settings) -> Privacy:
    """What the configuration says of it; reads the key. Raises OSError and ValueError for a key that cannot be read;
    `rules.across` has looked at it before."""
    p, file = settings.privacy, settings.privacy.series_key_file
    key = None if file is None else read_text(file, LARGEST_PASSWORD).encode()
    resolution = {
        (stream, name): channel.resolution
        for stream, s in settings.streams.items() for name, channel in s.channels.items()
        if channel.resolution
    }  # fmt: skip
    return Privacy(Rule(p.values, p.digits, resolution, key))


def use(privacy: Privacy) -> None:
    _held[0] = privacy


def name(series: str) -> str:
    """A series, as a log line or a message may call it."""
    return _held[0].name(series)


def topic(text: str) -> str:
    """A topic or filter of sensors."""
    return _held[0].topic(text)


def alert(alert_id: str) -> str:
    return _held[0].alert_id(alert_id)


def reason(error: BaseException) -> str:
    """Why something failed; without its text, which may quote a value, where values do not leave."""
    return f"{type(error).__name__}: {error}" if _held[0].off else type(error).__name__


def trace(raised: Raised) -> str | None:
    """A traceback without what the errors say, None where they may say it."""
    if _held[0].off or raised[1] is None:
        return None
    return "".join(traceback.format_tb(raised[2])) + raised[0].__name__
