"""Where the marks of an axis stand and what they say: times in UTC, and numbers at round values."""

import math
from datetime import UTC, datetime, timedelta

SECOND, MINUTE, HOUR, DAY = 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000  # µs
MONTH = 30 * DAY
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MONDAY = 4 * DAY  # 1970-01-05, so that weeks begin on Mondays
_STEPS = (
    *(m * 1000 for m in (1, 2, 5, 10, 20, 50, 100, 200, 500)),
    *(s * SECOND for s in (1, 2, 5, 10, 15, 30)),
    *(m * MINUTE for m in (1, 2, 5, 10, 15, 30)),
    *(h * HOUR for h in (1, 2, 3, 6, 12)),
    *(d * DAY for d in (1, 2, 7, 14)),
)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600)


def moment(micro: int) -> datetime:
    """µs since 1970 as a time in UTC, at the ends of the calendar where it lies beyond them."""
    try:
        return _EPOCH + timedelta(microseconds=micro)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if micro > 0 else datetime.min.replace(tzinfo=UTC)


def time_ticks(begin: int, end: int, most: int) -> list[tuple[int, str]]:
    """At most `most` marks between two times in µs, with their text. Days and months stand at their beginning."""
    span = max(1, end - begin)
    step = next((s for s in _STEPS if span / s <= most), None)
    if step is None:
        return _month_ticks(begin, end, next((m for m in _MONTHS if span / (m * MONTH) <= most), _MONTHS[-1]))
    offset = _MONDAY if step % (7 * DAY) == 0 else 0
    first = -(-(begin - offset) // step) * step + offset
    return [(t, _label(t, step)) for t in range(first, end + 1, step)]


def _month_ticks(begin: int, end: int, months: int) -> list[tuple[int, str]]:
    ticks, count = [], 0
    start = moment(begin)
    count = -(-(12 * start.year + start.month - 1) // months) * months
    while 12 <= count < 12 * 10_000:
        when = datetime(count // 12, count % 12 + 1, 1, tzinfo=UTC)
        micro = (when - _EPOCH) // timedelta(microseconds=1)
        if micro > end:
            break
        if micro >= begin:
            ticks.append((micro, str(when.year) if months >= 12 or when.month == 1 else f"{when:%b}"))
        count += months
    return ticks


def _label(micro: int, step: int) -> str:
    when = moment(micro)
    if micro % DAY == 0:
        return f"{when.day} {when:%b}" + (f" {when.year}" if when.month == when.day == 1 else "")
    if step < SECOND:
        return f"{when:%H:%M:%S}.{when.microsecond // 1000:03}"
    return f"{when:%H:%M}" if step >= MINUTE else f"{when:%H:%M:%S}"


def span_text(begin: int, end: int) -> str:
    """ "2014-07-01 00:00 to 2015-01-31 23:30 UTC", with seconds where the span is short."""
    form = "%H:%M" if end - begin >= HOUR else "%H:%M:%S"
    first, last = moment(begin), moment(end)
    same = first.date() == last.date()
    return f"{first:%Y-%m-%d} {first.strftime(form)} to {last.strftime(form if same else f'%Y-%m-%d {form}')} UTC"


def value_ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Marks at round values between two numbers, about `most` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return []
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if last - first > 4 * most:  # numbers that differ in their last digit only
        return []
    return [(i * step, number(i * step, step)) for i in range(first, last + 1)]


def number(value: float, step: float) -> str:
    """A value on an axis whose marks are `step` apart."""
    size = max(abs(value), step)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.3g}"
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
