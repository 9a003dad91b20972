"""A raw JSON or CBOR value to a finite float: numbers, numeric text, and on/off words where the channel says so.

Knows nothing of payloads' shapes. Refuses with a reason instead of guessing.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

ON = ("on", "true", "open", "opened", "yes", "1", "active", "detected", "occupied")
OFF = ("off", "false", "closed", "close", "no", "0", "inactive", "clear", "unoccupied")
LARGEST = 3.4028234e38  # windows are float32
MOST_SHOWN = 10**40
LONGEST_NUMBER = 400  # characters: enough for any float written out
NUMBER = re.compile(r"[ \t\r\n]*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?[ \t\r\n]*", re.ASCII)


class PayloadError(Exception):
    """Why a payload, or a part of it, is no reading. The text is a reason for the dead-letter topic."""


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A channel as configured. path: dotted path in the payload ("" = the name); switch: words and booleans are 1/0."""

    name: str
    path: str = ""
    unit: str = ""
    switch: bool = False
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()


def number(raw: object, channel: ChannelSpec | None = None) -> float:
    """A finite float from a JSON or CBOR value; booleans and on/off words only for a switch. Raises PayloadError."""
    if isinstance(raw, float | Decimal) or (isinstance(raw, int) and not isinstance(raw, bool)):
        try:
            value = float(raw)
        except OverflowError:
            value = math.inf
    elif channel is not None and channel.switch:
        value = _switched(raw, channel)
    elif isinstance(raw, bool):
        raise PayloadError(f"boolean {raw}: set switch = true for this channel to read it as 1/0")
    elif (
        isinstance(raw, str)
        and len(raw) <= LONGEST_NUMBER
        and (NUMBER.fullmatch(raw) or raw.strip().lower() in ("nan", "inf", "-inf"))
    ):
        value = float(raw.strip())  # which takes more for space than float does
    else:
        raise PayloadError(f"not a number: {shown_raw(raw)}")
    if not -LARGEST <= value <= LARGEST:
        raise PayloadError(f"not a finite number of 32 bits: {shown_raw(raw)}")
    return value


def tried(raw: object, channel: ChannelSpec | None = None) -> float | PayloadError:
    try:
        return number(raw, channel)
    except PayloadError as error:
        return PayloadError(f"{channel.name}: {error}") if channel else error


def _switched(raw: object, channel: ChannelSpec) -> float:
    if isinstance(raw, bool):
        return float(raw)
    word = raw.strip().lower() if isinstance(raw, str) else None
    if word is not None and word in (tuple(w.lower() for w in channel.on) or ON):
        return 1.0
    if word is not None and word in (tuple(w.lower() for w in channel.off) or OFF):
        return 0.0
    if isinstance(raw, str) and NUMBER.fullmatch(raw):
        return float(raw)
    raise PayloadError(f"neither on nor off: {shown_raw(raw)}")


def shown_raw(raw: object, depth: int = 0) -> str:
    """A value for a sentence, in at most 60 characters or so, whatever it is: also one that has no end."""
    if isinstance(raw, str | bytes):
        text = repr(raw[:60])
    elif isinstance(raw, int) and not -MOST_SHOWN < raw < MOST_SHOWN:  # Python refuses to write thousands of digits
        text = f"a whole number of {raw.bit_length()} bits"
    elif isinstance(raw, Mapping):
        text = (
            "{…}"
            if depth
            else "{" + ", ".join(shown_raw(key, 1) for key, _ in zip(raw, range(8), strict=False)) + ": …}"
        )
    elif isinstance(raw, list | tuple):
        text = "[…]" if depth else "[" + ", ".join(shown_raw(item, 1) for item in raw[:8]) + "]"
    elif raw is None or isinstance(raw, bool | int | float):
        text = repr(raw)
    else:
        text = f"a {type(raw).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}…"
