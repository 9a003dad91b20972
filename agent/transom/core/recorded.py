"""The lines of our own recordings: a message as it arrived, or a word of the recorder on what it heard.

Lines in, turns out, and messages in, lines out: a replay does what the agent would have done. No file, no clock.

One JSON object a line. A message: `time` (RFC 3339, of arrival), `topic`, `payload` (its text) or `base64`, and where
they say something `qos`, `retained` and `sender`. A word: `time` and `event`: `begin` (with `filters`, and `streams`:
how their payloads are read), `gap` (with `seconds` for which nothing could be heard before `time`, and `reason`),
`end`.
"""

import base64
from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any, Literal

import msgspec
import numpy as np

from transom.core.pipeline import Message, Turn
from transom.core.times import instant
from transom.core.values import PayloadError
from transom.errors import RecordingError

FORMAT = 1
BATCH = 1024  # messages of one turn
LONGEST_GAP = 4e9  # seconds; more than a century is no gap, and far more would not fit into what counts it
_encode = msgspec.json.Encoder().encode


class Recorded(msgspec.Struct, omit_defaults=True):
    """A line. time: RFC 3339, when the message arrived; payload: its text, or base64."""

    time: str
    topic: str | None = None
    payload: str | None = None
    base64: str | None = None
    qos: int = 0
    retained: bool = False
    sender: str | None = None
    event: Literal["begin", "gap", "end"] | None = None
    seconds: float | None = None
    reason: str | None = None
    filters: list[str] | None = None
    streams: dict[str, dict[str, Any]] | None = None
    format: int = FORMAT


_decode = msgspec.json.Decoder(Recorded).decode


def shown(ms: int) -> str:
    """ms since 1970 as a recording writes it."""
    return f"{np.datetime64(ms, 'ms')}Z"


def line(message: Message, qos: int = 0) -> bytes:
    """A message as a line, with its end."""
    text = plain = None
    try:
        text = message.payload.decode()
    except UnicodeDecodeError:
        plain = base64.b64encode(message.payload).decode()
    said = Recorded(shown(message.received), message.topic, text, plain, qos, message.retained, message.sender)
    return _encode(said) + b"\n"


def word(event: Literal["begin", "gap", "end"], ms: int, **more: Any) -> bytes:
    """A word of the recorder as a line, with its end. more: fields of `Recorded`."""
    return _encode(Recorded(shown(ms), event=event, **more)) + b"\n"


def begin_of(text: str) -> Recorded | None:
    """The first line of a recording, when it is the recorder's word: what was listened to."""
    try:
        first = _decode(text)
    except msgspec.DecodeError:
        return None
    return first if first.event == "begin" else None


def turns(lines: Iterable[str], name: str, after: int | None = None) -> Iterator[Turn]:
    """What happened, as the agent takes it: the messages, and for a gap a jump, for nobody knows of the sensors what
    they did meanwhile. name: for errors; after: ms since 1970 at which an earlier recording ended.

    The last line may be cut short, where a recorder was killed; it is left out. Raises RecordingError naming the line
    for any other that cannot be read.
    """
    messages: list[Message] = []
    last = after
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            said = _decode(text)
            received = instant(said.time, "iso", UTC, 0) // 1000
            payload = (
                base64.b64decode(said.base64, validate=True)
                if said.base64 is not None
                else (said.payload or "").encode()
            )
            if said.event is None and said.topic is None:
                raise ValueError("neither a topic nor an event")  # noqa: TRY301
            if not 0 <= (said.seconds or 0) <= LONGEST_GAP:
                raise ValueError(f"a gap of {said.seconds} seconds")  # noqa: TRY301
        except (msgspec.DecodeError, PayloadError, ValueError) as error:
            if not text.endswith(("\n", "\r")):
                break
            raise RecordingError(
                f"{name}:{number}", f"is no line of a recording ({error})", "see `transom replay --help`"
            ) from None
        if said.event is not None:
            jump = round(1000 * (said.seconds or 0)) if said.event == "gap" else 0
            if said.event == "begin" and last is not None:
                jump = max(0, received - last)
            if jump:
                yield _turn(messages)
                yield Turn(jump=jump)
                messages = []
            last = received
            continue
        last = received
        messages.append(Message(str(said.topic), payload, received, retained=said.retained, sender=said.sender))
        if len(messages) >= BATCH:
            yield _turn(messages)
            messages = []
    yield _turn(messages)


def _turn(messages: list[Message]) -> Turn:
    return Turn(messages, messages[-1].received if messages else None)
