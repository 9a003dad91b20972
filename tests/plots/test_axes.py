"""Axes that a person can read."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.plots.axes import moment, span_text, time_ticks, value_ticks


def micro(*when: int) -> int:
    return round(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        ((2014, 7, 1), (2015, 1, 31), ["Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "2015"]),
        ((2026, 1, 1), (2026, 1, 2), ["1 Jan 2026", "03:00", "06:00", "09:00", "12:00", "15:00", "18:00", "21:00", "2 Jan"]),
        ((2026, 3, 3, 10, 0, 5), (2026, 3, 3, 10, 1, 0), ["10:00:10", "10:00:20", "10:00:30", "10:00:40", "10:00:50", "10:01:00"]),
        ((1998, 5, 1), (2026, 1, 1), ["2000", "2005", "2010", "2015", "2020", "2025"]),
    ],
)  # fmt: skip
def test_times_stand_at_round_places(begin: tuple[int, ...], end: tuple[int, ...], said: list[str]) -> None:
    assert [words for _, words in time_ticks(micro(*begin), micro(*end), 10)] == said


@given(st.integers(-(10**16), 10**16), st.integers(0, 10**16))
def test_marks_lie_within_and_are_few(begin: int, span: int) -> None:
    ticks = time_ticks(begin, begin + span, 10)
    assert len(ticks) <= 12
    assert all(begin <= t <= begin + span for t, _ in ticks)
    assert moment(begin).tzinfo is UTC
    assert span_text(begin, begin + span).endswith("UTC")


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_numbers_are_round_and_few(low: float, span: float) -> None:
    ticks = value_ticks(low, low + span, 4)
    assert len(ticks) <= 16
    assert len({words for _, words in ticks}) == len(ticks) or span < 1e-3 * abs(low)


def test_numbers_say_as_many_digits_as_their_distance_needs() -> None:
    assert [words for _, words in value_ticks(0.21, 0.25, 4)] == ["0.21", "0.22", "0.23", "0.24", "0.25"]
    assert [words for _, words in value_ticks(0, 40_000, 2)] == ["0", "20000", "40000"]
