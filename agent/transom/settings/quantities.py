"""Durations, sizes, alarm budgets and lists as people write them, and back to that writing.

Text, a number or a list in; an int (ms, bytes), a float (alarms/ms) or a tuple out. Knows no key and no file.
"""

import json
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator

DURATIONS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
PERIODS = {"hour": 3_600_000, "day": 86_400_000, "week": 604_800_000, "month": 2_592_000_000, "year": 31_536_000_000}
RATES = {"s": 1, "second": 1, "min": 60, "minute": 60, "hour": 3600}
MOST_A_SECOND = 1e9
SIZES = {"B": 1, "kB": 1000, "KiB": 1 << 10, "MB": 1_000_000, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
LONGEST = 100 * PERIODS["year"]
WIDEST = 64  # windows that `raise_after` may look back on

_NUMBER = r"\d+(?:\.\d+)?"
_DURATION = re.compile(rf"({_NUMBER})\s*(ms|s|m|h|d|w)\s*")
_BUDGET = re.compile(rf"({_NUMBER})\s*(?:/|per)\s*(hour|day|week|month|year)")
_SIZE = re.compile(rf"({_NUMBER})\s*([kKMG]i?B|B)?", re.IGNORECASE)
_RATE = re.compile(rf"({_NUMBER})\s*(?:/|per)\s*(s|min|hour|second|minute)")
_OF = re.compile(r"(\d+)\s*(?:of|,)\s*(\d+)")


def shown(raw: object) -> str:
    """A value for an error message: on one line, at most 60 characters."""
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}…"


def parse_duration(raw: object) -> int:
    """Milliseconds from "500ms", "90s", "1h 30m" or a number of seconds. Raises ValueError(problem, remedy)."""
    refusal = ValueError(
        f"{shown(raw)} is not a duration", 'write it like "500ms", "90s", "5m", "1h", "2d", "1w", or as seconds'
    )
    seconds = _plain_number(raw)
    if seconds is not None:
        exact = seconds * 1000
    elif isinstance(raw, str) and re.fullmatch(rf"(?:{_DURATION.pattern})+", raw.strip()):
        exact = sum(float(n) * DURATIONS[unit] for n, unit in _DURATION.findall(raw))
    else:
        raise refusal
    if exact < 0 or 0 < exact < 1:
        raise refusal
    if exact > LONGEST:
        raise ValueError(f"{shown(raw)} is longer than 100 years", "choose a shorter duration")
    return round(exact)


def parse_positive_duration(raw: object) -> int:
    """A duration that is not zero."""
    duration = parse_duration(raw)
    if duration == 0:
        raise ValueError(f"{shown(raw)} is no time at all", 'write a duration of at least "1ms"')
    return duration


def parse_duration_or_off(raw: object) -> int | None:
    """A duration that is not zero, or None for "off"."""
    return None if raw is None or raw == "off" else parse_positive_duration(raw)


def parse_step(raw: object) -> int | Literal["reading"] | None:
    """ "reading", a duration that is not zero, or None for what the model says."""
    return raw if raw is None or raw == "reading" else parse_positive_duration(raw)


def parse_budget(raw: object) -> float:
    """Alarms per millisecond from "1/week" or "2 per day". A month has 30 days. Raises ValueError(problem, remedy)."""
    found = _BUDGET.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if found is None:
        raise ValueError(
            f"{shown(raw)} is not an alarm budget", 'write it like "1/week": N/hour, N/day, N/week, N/month or N/year'
        )
    if float(found[1]) == 0:
        raise ValueError(f"{shown(raw)}: nobody can promise no false alarm at all", 'write a small number: "1/year"')
    return float(found[1]) / PERIODS[found[2]]


def parse_rate(raw: object) -> float | None:
    """Messages a second from "1000/s" or "10 per minute", None for "off". Raises ValueError(problem, remedy)."""
    if raw is None or raw == "off":
        return None
    found = _RATE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if found is None or not 0 < float(found[1]) <= MOST_A_SECOND:
        raise ValueError(f"{shown(raw)} is not a rate", 'write it like "1000/s", "10/min" or "1/hour", or "off"')
    return float(found[1]) / RATES[found[2]]


def parse_size(raw: object) -> int:
    """Bytes from "64KiB", "1MiB", "2 MB" or a number of bytes. Raises ValueError(problem, remedy)."""
    size = _plain_number(raw)
    found = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if size is None and found is not None:
        size = float(found[1]) * {unit.lower(): n for unit, n in SIZES.items()}[(found[2] or "B").lower()]
    if size is None or not 1 <= size <= 1 << 40:
        raise ValueError(f"{shown(raw)} is not a size", 'write it like "64KiB" or "1MiB", or as bytes')
    return round(size)


def parse_n_of_m(raw: object) -> tuple[int, int]:
    """(n, m) with 1 <= n <= m from [2, 3] or "2 of 3". Raises ValueError(problem, remedy)."""
    if isinstance(raw, str) and (found := _OF.fullmatch(raw.strip().strip("[]"))):
        raw = [int(found[1]), int(found[2])]
    match raw:
        case [int(n), int(m)] if 1 <= n <= m <= WIDEST and not isinstance(n, bool) and not isinstance(m, bool):
            return n, m
    raise ValueError(
        f"{shown(raw)} is not 'n of m'", f'write [2, 3] or "2 of 3", with 1 <= n <= m <= {WIDEST}'
    )  # fmt: skip


def parse_list(raw: object) -> Any:
    """A list from itself, from "a, b" or from a JSON array (in an environment variable or a flag); else unchanged."""
    if not isinstance(raw, str):
        return raw
    if raw.lstrip().startswith("["):
        try:
            return json.loads(raw)
        except ValueError:
            raise ValueError(f"{shown(raw)} is not a list", "write it like a, b") from None
    return [part.strip() for part in raw.split(",") if part.strip()]


def whole(raw: object) -> object:
    """Keeps true and false from counting as 1 and 0."""
    if isinstance(raw, bool):
        raise ValueError(f"must be a number, not {str(raw).lower()}", "write a number")  # noqa: TRY004 (pydantic's rule)
    return raw


def format_duration(ms: int) -> str:
    """The shortest writing in one unit: 90_000 is "90s", 3_600_000 is "1h"."""
    unit = next((u for u, n in reversed(DURATIONS.items()) if ms and ms % n == 0), "s")
    return f"{ms // DURATIONS[unit]}{unit}"


def format_budget(rate: float) -> str:
    """Alarms per millisecond as the largest whole number a period, "1/week"; else to three digits a week."""
    for period, length in PERIODS.items():
        n = rate * length
        if n > 0.5 and math.isclose(n, round(n), rel_tol=1e-9):
            return f"{round(n)}/{period}"
    return f"{rate * PERIODS['week']:.3g}/week"


def format_rate(rate: float | None) -> str:
    """Messages a second as the largest whole number a period, "1000/s"; else to three digits an hour; None: "off"."""
    if rate is None:
        return "off"
    for period in ("s", "min", "hour"):
        n = rate * RATES[period]
        if n > 0.5 and math.isclose(n, round(n), rel_tol=1e-9):
            return f"{round(n)}/{period}"
    return f"{rate * RATES['hour']:.3g}/hour"


def format_size(size: int) -> str:
    unit = next(u for u in ("GiB", "MiB", "KiB", "B") if size % SIZES[u] == 0)
    return f"{size // SIZES[unit]}{unit}"


def _plain_number(raw: object) -> float | None:
    """A finite number, also one written as text (an environment variable); true and false are none."""
    if isinstance(raw, str) and re.fullmatch(_NUMBER, raw.strip()):
        return float(raw)
    if isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw):
        return float(raw)
    return None


_as_duration = PlainSerializer(format_duration, return_type=str, when_used="json")
_as_step = PlainSerializer(lambda v: format_duration(v) if isinstance(v, int) else v, when_used="json")
_as_off = PlainSerializer(lambda v: "off" if v is None else format_duration(v), return_type=str, when_used="json")

Duration = Annotated[int, PlainValidator(parse_duration), _as_duration]
PositiveDuration = Annotated[int, PlainValidator(parse_positive_duration), _as_duration]
DurationOrOff = Annotated[int | None, PlainValidator(parse_duration_or_off), _as_off]
Step = Annotated[int | Literal["reading"] | None, PlainValidator(parse_step), _as_step]
Budget = Annotated[float, PlainValidator(parse_budget), PlainSerializer(format_budget, str, when_used="json")]
Rate = Annotated[float | None, PlainValidator(parse_rate), PlainSerializer(format_rate, str, when_used="json")]
Size = Annotated[int, PlainValidator(parse_size), PlainSerializer(format_size, str, when_used="json")]
NofM = Annotated[tuple[int, int], PlainValidator(parse_n_of_m), PlainSerializer(list, list[int], when_used="json")]
Words = Annotated[tuple[str, ...], BeforeValidator(parse_list)]
Whole = Annotated[int, BeforeValidator(whole)]
