"""Columns of time hide nothing, whatever the order and the batches in which readings come."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from transom.plots.columns import LEAST, ROOM, Columns

times = st.lists(st.integers(0, 10**15), min_size=1, max_size=60)


def filled(series: list[int], time: list[int], value: list[float], cuts: list[int]) -> Columns:
    columns = Columns(1, 1, limit=1 << 16)
    while columns.count <= max(series):
        assert columns.new() is not None
    rows, when = np.array(series), np.array(time, np.int64)
    what = np.array(value, np.float32)[:, None]
    for part in np.split(np.arange(len(rows)), sorted(cuts)):
        columns.add(rows[part], when[part], what[part], what[part])
    return columns


@given(times, st.data())
def test_the_smallest_and_largest_are_kept_and_any_split_gives_the_same(time: list[int], data: st.DataObject) -> None:
    n = len(time)
    series = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    value = data.draw(st.lists(st.floats(-1e6, 1e6, width=32), min_size=n, max_size=n))
    cuts = data.draw(st.lists(st.integers(0, n), max_size=4))
    whole, parts = filled(series, time, value, []), filled(series, time, value, cuts)
    for row in set(series):
        mine = np.array([v for s, v in zip(series, value, strict=True) if s == row], np.float32)
        for most in (1000, 7):
            when, low, high = whole.read(row, most)
            assert len(when) <= most
            assert (low.min(), high.max()) == (mine.min(), mine.max())
            assert (np.diff(when) > 0).all()
            for a, b in zip((when, low, high), parts.read(row, most), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_single_spike_in_a_million_readings_is_there() -> None:
    columns = Columns(1, 1)
    columns.new()
    value = np.zeros((10_000, 1), np.float32)
    for i in range(100):
        part = value.copy()
        part[5000] = 9.0 if i == 63 else 0.0
        columns.add(np.zeros(10_000, np.int64), (np.arange(10_000) + 10_000 * i) * 1_000_000, part, part)
    when, _, high = columns.read(0, 1000)
    assert 400 < len(when) <= 1000
    assert high.max() == 9
    assert abs(int(when[high[:, 0].argmax()]) - 635_000 * 1_000_000) < 2_100 * 1_000_000


def test_many_series_have_fewer_columns_each_and_the_most_a_place_no_more() -> None:
    columns = Columns(1, 1, limit=1 << 14)
    rows = []
    while (row := columns.new()) is not None:
        rows.append(row)
        columns.add(np.array([row]), np.array([row * 1000]), np.ones((1, 1), np.float32), np.ones((1, 1), np.float32))
    assert len(rows) == columns.most == (1 << 14) // (2 * LEAST)
    assert columns.room == LEAST < ROOM
    assert columns._low.size + columns._high.size <= 1 << 14
    assert all(len(columns.read(row, 1000)[0]) == 1 for row in rows)
