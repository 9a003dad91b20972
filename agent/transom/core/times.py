"""A raw time to µs since 1970: ISO 8601, or a number whose unit is stated or found from its magnitude.

Never asks a clock; the time of arrival decides only which of two equal local times is meant.
"""

import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal

from transom.core.values import LONGEST_NUMBER, NUMBER, PayloadError, shown_raw

TimeUnit = Literal["auto", "iso", "s", "ms", "us", "ns", "arrival"]

LATEST = 7_258_118_400_000_000  # 2200-01-01 in µs: later than this is no time of a reading
CLOCK_SET = 100_000_000_000_000  # 1973 in µs: an earlier time that was found, not configured, is an unset clock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PER_UNIT = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}


class TimeRangeError(PayloadError):
    """A time, but none that a reading can have."""


def instant(raw: object, unit: TimeUnit, timezone: tzinfo, received: int) -> int:
    """µs since 1970 from ISO 8601 text, a number or numeric text. Raises PayloadError for what is no time.

    A naive local time that exists twice (the end of daylight saving) is the one nearer to `received`.
    """
    if isinstance(raw, str):
        text = raw.strip()
        if len(text) > LONGEST_NUMBER:
            raise PayloadError(f"not a time: {shown_raw(text)}")
        if unit == "iso" or not NUMBER.fullmatch(text):
            return _iso(text, timezone, received)
        raw = float(text) if not text.lstrip("+-").isdigit() else int(text)
    if isinstance(raw, datetime):  # CBOR tags 0 and 1
        return _in_range(raw if raw.tzinfo else raw.replace(tzinfo=timezone), raw.isoformat())
    if isinstance(raw, bool) or not isinstance(raw, int | float) or (isinstance(raw, float) and not math.isfinite(raw)):
        raise PayloadError(f"not a time: {shown_raw(raw)}")
    if unit == "iso":
        raise PayloadError(f"time {shown_raw(raw)} is not ISO 8601 (time_unit)")
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
        raise TimeRangeError(f"time {shown_raw(raw)} is not between 1970 and 2200")
    return micro


def _iso(text: str, timezone: tzinfo, received: int) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise PayloadError(f"not a time: {shown_raw(text)}") from None
    if moment.tzinfo is None:
        first = _in_range(moment.replace(tzinfo=timezone), text)
        second = _in_range(moment.replace(tzinfo=timezone, fold=1), text)
        return first if abs(first - received) <= abs(second - received) else second
    return _in_range(moment, text)


def _in_range(moment: datetime, raw: object) -> int:
    micro = (moment - _EPOCH) // _MICROSECOND  # years 1 to 9999 with any offset: no overflow
    if not 0 <= micro <= LATEST:
        raise TimeRangeError(f"time {shown_raw(raw)} is not between 1970 and 2200")
    return micro
