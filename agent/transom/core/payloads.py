"""Payload bytes to samples: (leaf, time, value). A registry of formats, each compiled once per stream.

leaf: the path of the value inside a payload that carries many, or None; time: µs since 1970, or None for the time of
arrival; value: a finite float, or the PayloadError that says why it is none, so that one bad value of eight costs no
other. Never looks at a topic or a clock; refuses with a reason instead of guessing.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal

import cbor2
import msgspec

Format = Literal["auto", "number", "json", "object", "array", "cbor"]
TimeUnit = Literal["auto", "iso", "s", "ms", "us", "ns", "arrival"]

ON = ("on", "true", "open", "opened", "yes", "1", "active", "detected", "occupied")
OFF = ("off", "false", "closed", "close", "no", "0", "inactive", "clear", "unoccupied")
TIME_KEYS = ("time", "timestamp", "ts", "datetime", "date", "last_seen")
VALUE_KEYS = ("value", "v", "val")
LARGEST = 3.4028234e38  # windows are float32
LATEST = 7_258_118_400_000_000  # 2200-01-01 in µs: later than this is no time of a reading
CLOCK_SET = 100_000_000_000_000  # 1973 in µs: an earlier time that was found, not configured, is an unset clock
DEEPEST = 32

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PER_UNIT = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


class PayloadError(Exception):
    """Why a payload, or a part of it, is no reading. The text is a reason for the dead-letter topic."""


class TimeRangeError(PayloadError):
    """A time, but none that a reading can have."""


Sample = tuple[str | None, int | None, float | PayloadError]
Decode = Callable[[bytes, int], list[Sample]]


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """A channel as configured. path: dotted path in the payload ("" = the name); switch: words and booleans are 1/0."""

    name: str
    path: str = ""
    unit: str = ""
    switch: bool = False
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PayloadSpec:
    """How a stream's payloads are read.

    value, time: dotted paths, None = found by the usual names; time_unit: of numeric times, "auto" = by magnitude;
    timezone: of ISO times that name none; channels: () = every number is a channel; max_bytes: larger is refused.
    """

    format: Format = "auto"
    value: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "auto"
    timezone: tzinfo = UTC
    channels: tuple[ChannelSpec, ...] = ()
    max_bytes: int = 1 << 20

    @property
    def only(self) -> ChannelSpec | None:
        """The channel of a payload with one value, when one channel is configured."""
        return self.channels[0] if len(self.channels) == 1 else None


def compile_decoder(spec: PayloadSpec) -> Decode:
    """(payload, received µs) -> samples. The decoder raises PayloadError, and nothing else, for what it cannot read."""
    read = FORMATS[spec.format](spec)

    def decode(payload: bytes, received: int) -> list[Sample]:
        if len(payload) > spec.max_bytes:
            raise PayloadError(f"payload of {len(payload):,} bytes, the limit is {spec.max_bytes:,} (max_payload)")
        return read(payload, received)

    return decode


# --- values -------------------------------------------------------------------------------------------------------


def number(raw: object, channel: ChannelSpec | None = None) -> float:
    """A finite float from a JSON or CBOR value; booleans and on/off words only for a switch. Raises PayloadError."""
    if isinstance(raw, float) or (isinstance(raw, int) and not isinstance(raw, bool)):
        try:
            value = float(raw)
        except OverflowError:
            value = math.inf
    elif channel is not None and channel.switch:
        value = _switched(raw, channel)
    elif isinstance(raw, bool):
        raise PayloadError(f"boolean {raw}: set switch = true for this channel to read it as 1/0")
    elif isinstance(raw, str) and (_NUMBER.fullmatch(raw) or raw.strip().lower() in ("nan", "inf", "-inf")):
        value = float(raw)
    else:
        raise PayloadError(f"not a number: {_shown(raw)}")
    if not -LARGEST <= value <= LARGEST:
        raise PayloadError(f"not a finite number of 32 bits: {_shown(raw)}")
    return value


def _tried(raw: object, channel: ChannelSpec | None = None) -> float | PayloadError:
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
    if isinstance(raw, str) and _NUMBER.fullmatch(raw):
        return float(raw)
    raise PayloadError(f"neither on nor off: {_shown(raw)}")


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}…"


# --- times --------------------------------------------------------------------------------------------------------


def instant(raw: object, unit: TimeUnit, timezone: tzinfo, received: int) -> int:
    """µs since 1970 from ISO 8601 text, a number or numeric text. Raises PayloadError for what is no time.

    A naive local time that exists twice (the end of daylight saving) is the one nearer to `received`.
    """
    if isinstance(raw, str):
        text = raw.strip()
        if unit == "iso" or not _NUMBER.fullmatch(text):
            return _iso(text, timezone, received)
        raw = float(text) if not text.lstrip("+-").isdigit() else int(text)
    if isinstance(raw, datetime):  # CBOR tags 0 and 1
        return _in_range((raw if raw.tzinfo else raw.replace(tzinfo=timezone)).astimezone(UTC), raw)
    if isinstance(raw, bool) or not isinstance(raw, int | float) or (isinstance(raw, float) and not math.isfinite(raw)):
        raise PayloadError(f"not a time: {_shown(raw)}")
    if unit == "iso":
        raise PayloadError(f"time {_shown(raw)} is not ISO 8601 (time_unit)")
    if unit in ("auto", "arrival"):
        size = abs(raw)
        unit = "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"
    try:
        if isinstance(raw, int):  # whole numbers stay exact: float64 ends at 2^53
            micro = raw * 1_000_000 if unit == "s" else raw * 1000 if unit == "ms" else raw
            micro = micro // 1000 if unit == "ns" else micro
        else:
            micro = round(raw * _PER_UNIT[unit])
    except OverflowError:
        micro = -1
    if not 0 <= micro <= LATEST:
        raise TimeRangeError(f"time {_shown(raw)} is not between 1970 and 2200")
    return micro


def _iso(text: str, timezone: tzinfo, received: int) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PayloadError(f"not a time: {_shown(text)}") from None
    if moment.tzinfo is None:
        first = _in_range(moment.replace(tzinfo=timezone), text)
        second = _in_range(moment.replace(tzinfo=timezone, fold=1), text)
        return first if abs(first - received) <= abs(second - received) else second
    return _in_range(moment, text)


def _in_range(moment: datetime, raw: object) -> int:
    micro = (moment - _EPOCH) // _MICROSECOND
    if not 0 <= micro <= LATEST:
        raise TimeRangeError(f"time {_shown(raw)} is not between 1970 and 2200")
    return micro


def _found_time(body: Mapping[str, Any], spec: PayloadSpec, received: int) -> int | None:
    """The time of a payload object: at the configured path, or at a usual key when it holds a time of a set clock."""
    if spec.time_unit == "arrival":
        return None
    if spec.time is not None:
        raw = at(body, spec.time)
        if raw is None:
            raise PayloadError(f"no time at {spec.time!r}")
        return instant(raw, spec.time_unit, spec.timezone, received)
    for key, raw in body.items():
        if isinstance(key, str) and key.lower() in TIME_KEYS and raw is not None:
            try:
                found = instant(raw, spec.time_unit, spec.timezone, received)
            except TimeRangeError:
                raise
            except PayloadError:
                continue  # "time": "12:30" on a display: nobody said that this key is the reading's time
            if found >= CLOCK_SET:
                return found
    return None


# --- shapes -------------------------------------------------------------------------------------------------------


def at(body: object, path: str) -> Any:
    """The value at a dotted path ("AM2301.Temperature", "samples.0.v"), or None. A key with dots is found whole."""
    if isinstance(body, Mapping) and path in body:
        return body[path]
    for key in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(key)
        elif isinstance(body, list) and key.isdigit() and int(key) < len(body):
            body = body[int(key)]
        else:
            return None
    return body


def _leaves(body: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    if depth > DEEPEST:
        raise PayloadError(f"nested deeper than {DEEPEST} levels")
    for key, value in body.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _single(body: object, spec: PayloadSpec, received: int) -> list[Sample]:
    """One value, at the configured path or under a usual key."""
    time: int | None = None
    if isinstance(body, Mapping):
        time = _found_time(body, spec, received)
        path = spec.value or next((k for k in VALUE_KEYS if k in body), None)
        if path is None:
            raise PayloadError(f"no value: the object has {_shown(list(body)[:8])}; set `value` to its path")
        raw = at(body, path)
        if raw is None:
            raise PayloadError(f"no value at {path!r}")
    elif spec.value is not None:
        raise PayloadError(f"no value at {spec.value!r}: the payload is {_shown(body)}")
    else:
        raw = body
    return [(None, time, number(raw, spec.only))]


def _many(body: object, spec: PayloadSpec, received: int) -> list[Sample]:
    """Every configured channel of an object; with none configured, every number in it."""
    if not isinstance(body, Mapping):
        raise PayloadError(f"not an object: {_shown(body)}")
    time = _found_time(body, spec, received)
    if spec.channels:
        found = [(c, at(body, c.path or c.name)) for c in spec.channels]
        samples: list[Sample] = [(c.name, time, _tried(raw, c)) for c, raw in found if raw is not None]
    else:
        skip = spec.time if spec.time is not None else None
        samples = [
            (leaf, time, _tried(raw))
            for leaf, raw in _leaves(body)
            if isinstance(raw, int | float) and not isinstance(raw, bool) and leaf != skip
            and not (skip is None and leaf.lower() in TIME_KEYS)
        ]  # fmt: skip
    if not samples:
        wanted = ", ".join(c.path or c.name for c in spec.channels) or "a number"
        raise PayloadError(f"no channel found: looked for {wanted}, the object has {_shown(list(body)[:8])}")
    return samples


def _any(body: object, spec: PayloadSpec, received: int) -> list[Sample]:
    """A value, an object with one or many, or an array of timed samples."""
    if isinstance(body, list):
        return _array(body, spec, received)
    if not isinstance(body, Mapping) or spec.value is not None:
        return _single(body, spec, received)
    named = any(at(body, c.path or c.name) is not None for c in spec.channels)
    usual = any(k in body and not isinstance(body[k], Mapping | list) for k in VALUE_KEYS)
    return _single(body, spec, received) if usual and not named else _many(body, spec, received)


def _array(body: object, spec: PayloadSpec, received: int) -> list[Sample]:
    """Samples of a device that sends batches: objects, [time, value] pairs or bare values."""
    if isinstance(body, Mapping) and spec.value is not None:
        head, _, rest = spec.value.partition("[].")  # "samples[].v": the array, then the value in each of its objects
        return _array(at(body, head.removesuffix("[]")), replace(spec, value=rest or None), received)
    if not isinstance(body, list):
        raise PayloadError(f"not an array: {_shown(body)}")
    samples: list[Sample] = []
    for i, item in enumerate(body):
        try:
            if isinstance(item, list):
                samples.append(_pair(item, spec, received))
            else:
                samples.extend(_any(item, spec, received))
        except PayloadError as error:
            samples.append((None, None, PayloadError(f"sample {i} of {len(body)}: {error}")))
    if not samples:
        raise PayloadError("an empty array")
    return samples


def _pair(item: list[Any], spec: PayloadSpec, received: int) -> Sample:
    if len(item) != 2:
        raise PayloadError(f"not a [time, value] pair: {_shown(item)}")
    return None, instant(item[0], spec.time_unit, spec.timezone, received), number(item[1], spec.only)


# --- formats ------------------------------------------------------------------------------------------------------

_json = msgspec.json.Decoder()


def _loads(payload: bytes) -> Any:
    try:
        return _json.decode(payload)
    except msgspec.DecodeError as error:
        raise PayloadError(f"malformed JSON: {error}") from None
    except RecursionError:
        raise PayloadError("malformed JSON: nested too deep") from None
    except UnicodeDecodeError:
        raise PayloadError("malformed JSON: invalid UTF-8") from None


def _of_json(shape: Callable[[object, PayloadSpec, int], list[Sample]]) -> Callable[[PayloadSpec], Decode]:
    def build(spec: PayloadSpec) -> Decode:
        return lambda payload, received: shape(_loads(payload), spec, received)

    return build


def _number_format(spec: PayloadSpec) -> Decode:
    def decode(payload: bytes, _received: int) -> list[Sample]:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise PayloadError("invalid UTF-8") from None
        return [(None, None, number(text, spec.only))]

    return decode


def _quick_json(spec: PayloadSpec) -> Decode:
    """One value in an object with flat keys: typed decoding, and the general way for whatever does not fit it."""
    value, time = spec.value or "value", spec.time or "time"
    flat = "." not in value and "." not in time and not spec.channels and spec.time_unit != "arrival"
    if not flat or value == time:
        return _of_json(_single)(spec)
    # A key found by its usual name could also be another one: only "time" is unambiguous, the rest goes the slow way.
    sample_type = msgspec.defstruct(
        "Sample",
        [("value", float), ("time", int | float | str | None, None)],
        rename={"value": value, "time": time},
        gc=False,
        forbid_unknown_fields=spec.time is None,
    )
    quick = msgspec.json.Decoder(sample_type)

    def decode(payload: bytes, received: int) -> list[Sample]:
        try:
            sample: Any = quick.decode(payload)
            raw, when = sample.value, sample.time
            if when is not None and -LARGEST <= raw <= LARGEST:
                micro = instant(when, spec.time_unit, spec.timezone, received)
                if spec.time is not None or micro >= CLOCK_SET:
                    return [(None, micro, raw)]
        except (msgspec.DecodeError, PayloadError, RecursionError, UnicodeDecodeError):
            pass  # the general way below says what is wrong, or reads what the quick one does not know
        return _single(_loads(payload), spec, received)

    return decode


def _auto_format(spec: PayloadSpec) -> Decode:
    """By the first byte: an object, an array, or a bare number or word."""
    quick, bare = _quick_json(spec), _number_format(spec)
    quick_first = spec.value is not None or not spec.channels

    def decode(payload: bytes, received: int) -> list[Sample]:
        if payload[:1] == b"{" and quick_first and (spec.value is not None or b'"value"' in payload):
            return quick(payload, received)
        start = payload.lstrip()[:1]
        if start in (b"{", b"["):
            return _any(_loads(payload), spec, received)
        if start == b'"':
            return _single(_loads(payload), spec, received)
        return bare(payload, received)

    return decode


def _cbor_format(spec: PayloadSpec) -> Decode:
    def decode(payload: bytes, received: int) -> list[Sample]:
        try:
            body = cbor2.loads(payload)
        except (cbor2.CBORError, ValueError, TypeError, OverflowError, RecursionError, MemoryError, EOFError) as error:
            raise PayloadError(f"malformed CBOR: {error}") from None
        return _any(body, spec, received)

    return decode


FORMATS: dict[str, Callable[[PayloadSpec], Decode]] = {
    "auto": _auto_format,
    "number": _number_format,
    "json": _quick_json,
    "object": _of_json(_many),
    "array": _of_json(_array),
    "cbor": _cbor_format,
}
