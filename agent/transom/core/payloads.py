"""Payload bytes to samples: (leaf, time, value). A registry of formats, each compiled once per stream.

leaf: the path of the value inside a payload that carries many, or None; time: µs since 1970, or None for the time of
arrival; value: a finite float, or the PayloadError that says why it is none, so that one bad value of eight costs no
other. Never looks at a topic or a clock; refuses with a reason instead of guessing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from decimal import Decimal
from typing import Any, Literal

import msgspec

from transom.core.bodies import from_cbor, from_json
from transom.core.times import CLOCK_SET, TimeRangeError, TimeUnit, instant
from transom.core.values import LARGEST, ChannelSpec, PayloadError, number, shown_raw, tried

Format = Literal["auto", "number", "json", "object", "array", "cbor"]

TIME_KEYS = ("time", "timestamp", "ts", "datetime", "date", "last_seen")
VALUE_KEYS = ("value", "v", "val")
DEEPEST = 32
_SURELY_SECONDS = (1e8, 7e9)  # a number between them is seconds of a set clock, whoever looks for its unit


Sample = tuple[str | None, int | None, float | PayloadError]
Decode = Callable[[bytes, int], list[Sample]]


@dataclass(frozen=True, slots=True)
class PayloadSpec:
    """How a stream's payloads are read.

    value, time: dotted paths, None = found by the usual names; time_unit: of numeric times, "auto" = by magnitude;
    timezone: of ISO times that name none; channels: () = every number is a channel; max_bytes: larger is refused;
    sequence: dotted path of a number that each message counts up.
    """

    format: Format = "auto"
    value: str | None = None
    time: str | None = None
    time_unit: TimeUnit = "auto"
    timezone: tzinfo = UTC
    channels: tuple[ChannelSpec, ...] = ()
    max_bytes: int = 1 << 20
    sequence: str | None = None

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
        try:
            return read(payload, received)
        except PayloadError:
            raise
        except Exception as error:  # whatever a hostile payload finds in a decoder, it is that message's end only
            raise PayloadError(f"cannot be decoded ({type(error).__name__})") from error

    return _quick_json(spec, decode) if _is_flat(spec) else decode


def sequence_of(payload: bytes, spec: PayloadSpec) -> int | None:
    """The number at `spec.sequence`, None where there is none that counts. Decodes the payload once more."""
    assert spec.sequence is not None
    try:
        body = from_cbor(payload) if spec.format == "cbor" else from_json(payload)
    except PayloadError:
        return None  # the decoder has said why
    raw = at(body, spec.sequence)
    return raw if isinstance(raw, int) and not isinstance(raw, bool) else None


# --- shapes -------------------------------------------------------------------------------------------------------


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
            raise PayloadError(f"no value: the object has {shown_raw(list(body)[:8])}; set `value` to its path")
        raw = at(body, path)
        if raw is None:
            raise PayloadError(f"no value at {path!r}")
    elif spec.value is not None:
        raise PayloadError(f"no value at {spec.value!r}: the payload is {shown_raw(body)}")
    else:
        raw = body
    return [(None, time, number(raw, spec.only))]


def _many(body: object, spec: PayloadSpec, received: int) -> list[Sample]:
    """Every configured channel of an object; with none configured, every number in it."""
    if not isinstance(body, Mapping):
        raise PayloadError(f"not an object: {shown_raw(body)}")
    time = _found_time(body, spec, received)
    if spec.channels:
        found = [(c, at(body, c.path or c.name)) for c in spec.channels]
        samples: list[Sample] = [(c.name, time, tried(raw, c)) for c, raw in found if raw is not None]
    else:
        skip = spec.time if spec.time is not None else None
        samples = [
            (leaf, time, tried(raw))
            for leaf, raw in _leaves(body)
            if isinstance(raw, int | float | Decimal) and not isinstance(raw, bool) and leaf != skip
            and not (skip is None and leaf.lower() in TIME_KEYS)
        ]  # fmt: skip
    if not samples:
        wanted = ", ".join(c.path or c.name for c in spec.channels) or "a number"
        raise PayloadError(f"no channel found: looked for {wanted}, the object has {shown_raw(list(body)[:8])}")
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
        raise PayloadError(f"not an array: {shown_raw(body)}")
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
        raise PayloadError(f"not a [time, value] pair: {shown_raw(item)}")
    return None, instant(item[0], spec.time_unit, spec.timezone, received), number(item[1], spec.only)


# --- formats ------------------------------------------------------------------------------------------------------


def _of_json(shape: Callable[[object, PayloadSpec, int], list[Sample]]) -> Callable[[PayloadSpec], Decode]:
    def build(spec: PayloadSpec) -> Decode:
        return lambda payload, received: shape(from_json(payload), spec, received)

    return build


def _number_format(spec: PayloadSpec) -> Decode:
    def decode(payload: bytes, _received: int) -> list[Sample]:
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            raise PayloadError("invalid UTF-8") from None
        return [(None, None, number(text, spec.only))]

    return decode


def _is_flat(spec: PayloadSpec) -> bool:
    """One value in an object with flat keys."""
    value, time = spec.value or "value", spec.time or "time"
    flat = "." not in value and "." not in time and not spec.channels and spec.time_unit != "arrival" and value != time
    return flat and spec.format in ("auto", "json")


def _quick_json(spec: PayloadSpec, general: Decode) -> Decode:
    """Typed decoding of what `_is_flat`; whatever does not fit it is left to `general`, which says what is wrong."""
    value, time, most = spec.value or "value", spec.time or "time", spec.max_bytes
    # A key found by its usual name could also be another one: only "time" is unambiguous, the rest goes the slow way.
    sample_type = msgspec.defstruct(
        "Sample",
        [("value", float), ("time", int | float | str | None, None)],
        rename={"value": value, "time": time},
        gc=False,
        forbid_unknown_fields=spec.time is None,
    )
    quick = msgspec.json.Decoder(sample_type).decode
    seconds = spec.time_unit in ("auto", "s")
    earliest, latest = _SURELY_SECONDS
    named = spec.value is not None

    def decode(payload: bytes, received: int) -> list[Sample]:
        if payload[:1] == b"{" and (named or b'"value"' in payload) and len(payload) <= most:
            try:
                sample: Any = quick(payload)
                raw, when = sample.value, sample.time
                if when is not None and -LARGEST <= raw <= LARGEST:
                    if seconds and when.__class__ is float and earliest < when < latest:
                        return [(None, round(when * 1e6), raw)]  # what `instant` makes of it, in a third of the time
                    micro = instant(when, spec.time_unit, spec.timezone, received)
                    if spec.time is not None or micro >= CLOCK_SET:
                        return [(None, micro, raw)]
            except (msgspec.DecodeError, PayloadError, RecursionError, UnicodeDecodeError):
                pass
        return general(payload, received)

    return decode


def _auto_format(spec: PayloadSpec) -> Decode:
    """By the first byte: an object, an array, or a bare number or word."""
    bare, named = _number_format(spec), spec.value is not None
    single_first = named or not spec.channels

    def decode(payload: bytes, received: int) -> list[Sample]:
        start = payload.lstrip()[:1]
        if start == b'"' or (payload[:1] == b"{" and single_first and (named or b'"value"' in payload)):
            return _single(from_json(payload), spec, received)
        if start in (b"{", b"["):
            return _any(from_json(payload), spec, received)
        return bare(payload, received)

    return decode


def _cbor_format(spec: PayloadSpec) -> Decode:
    def decode(payload: bytes, received: int) -> list[Sample]:
        return _any(from_cbor(payload), spec, received)

    return decode


FORMATS: dict[str, Callable[[PayloadSpec], Decode]] = {
    "auto": _auto_format,
    "number": _number_format,
    "json": _of_json(_single),
    "object": _of_json(_many),
    "array": _of_json(_array),
    "cbor": _cbor_format,
}
