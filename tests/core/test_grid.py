"""Steps: aggregates against a plain reference, gaps, and windows drawn above their assertions."""

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.admission import GridSpec
from transom.core.grid import Grid
from transom.core.readings import Readings, Steps
from transom.core.windows import Buffers

REFERENCE = {"last": lambda v: v[-1], "mean": np.mean, "min": min, "max": max, "sum": sum, "count": len}


def readings(*rows: tuple[int, int, int, float]) -> Readings:
    """(series, channel, time in s, value)"""
    series, channel, time, value = (np.array(c) for c in zip(*rows, strict=True))
    micro = time.astype(np.int64) * 1_000_000
    return Readings(
        series.astype(np.int32),
        channel.astype(np.int16),
        micro,
        value.astype(float),
        micro,
        np.zeros(len(series), bool),
    )


def closed(grid: Grid, *batches: Readings) -> list[tuple[int, int, list[float]]]:
    """(series, begin in s, values) of all steps that close, the open ones at the end too."""
    grid.resize(8)
    parts = [grid.align(b).steps for b in batches] + [grid.flush()]
    return [
        (int(s), int(t) // 1_000_000, [None if np.isnan(x) else float(x) for x in v])
        for p in parts for s, t, v in zip(p.series, p.time, p.values, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("aggregate", REFERENCE)
@given(data=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(-9, 9)), min_size=1, max_size=40))
def test_an_aggregate_is_what_a_plain_loop_makes_of_it(aggregate: str, data: list[tuple[int, int, int]]) -> None:
    ordered, seen = [], set()
    for s, t, v in sorted(data, key=lambda row: row[1]):
        if (s, t) not in seen:
            seen.add((s, t))
            ordered.append((s, 0, t, v))
    wanted: dict[tuple[int, int], list[float]] = defaultdict(list)
    for s, _, t, v in ordered:
        wanted[s, t - t % 5].append(v)
    found = closed(Grid(GridSpec(step=5000, aggregate=aggregate, max_gap=1), 1, 4), readings(*ordered))
    fresh = {(s, t): v[0] for s, t, v in found if (s, t) in wanted}
    assert fresh == {k: pytest.approx(float(np.float32(REFERENCE[aggregate](v)))) for k, v in wanted.items()}


def test_a_gap_is_held_up_to_max_gap_and_missing_after_that() -> None:
    #   time   0    5    10   15   20
    #   value  1    -    -    -    2
    #   held   1    1    1    -    2      max_gap 10 s
    found = closed(Grid(GridSpec(step=5000, max_gap=10_000), 1, 8), readings((0, 0, 0, 1), (0, 0, 20, 2)))
    assert [(t, v[0]) for _, t, v in found] == [(0, 1), (5, 1), (10, 1), (15, None), (20, 2)]


def test_a_gap_longer_than_a_window_is_filled_for_one_window_only() -> None:
    found = closed(Grid(GridSpec(step=1000), 1, 4), readings((0, 0, 0, 1), (0, 0, 1_000_000, 2)))
    assert [t for _, t, _ in found] == [0, 999_996, 999_997, 999_998, 999_999, 1_000_000]


def test_a_counted_gap_holds_zeros() -> None:
    found = closed(Grid(GridSpec(step=1000, aggregate="count"), 1, 8), readings((0, 0, 0, 5), (0, 0, 2, 5)))
    assert [v[0] for _, _, v in found] == [1, 0, 1]


def steps(series: list[int], values: list[float]) -> Steps:
    order = np.argsort(series, kind="stable")
    count = len(series)
    return Steps(
        np.array(series, np.int32)[order],
        np.arange(count)[order],
        np.array(values, np.float32)[order, None],
        np.ones(count, bool),
    )


def test_windows_are_due_each_stride_and_begin_with_what_is_missing() -> None:
    #   steps     1  2  3  4  5  6        T = 3, stride 2, first after 2 steps
    #   windows  [-  1  2]
    #                  [2  3  4]
    #                        [4  5  6]
    buffers = Buffers(3, 1, stride=2, min_steps=2)
    buffers.resize(1)
    due = buffers.push(steps([0] * 6, [1, 2, 3, 4, 5, 6]))
    assert np.array_equal(due.values[:, :, 0], [[np.nan, 1, 2], [2, 3, 4], [4, 5, 6]], equal_nan=True)


@given(
    st.lists(st.integers(0, 3), max_size=120),
    st.lists(st.integers(0, 120), max_size=8),
    st.integers(1, 7),
    st.integers(1, 3),
)
def test_windows_are_those_of_a_plain_deque_in_any_batches(
    series: list[int], cuts: list[int], length: int, stride: int
) -> None:
    buffers = Buffers(length, 1, stride)
    buffers.resize(4)
    found: dict[int, list[list[float]]] = defaultdict(list)
    edges = sorted({0, len(series), *(c for c in cuts if c < len(series))})
    for a, b in zip(edges, edges[1:], strict=False):
        due = buffers.push(steps(series[a:b], [float(i) for i in range(a, b)]))
        for s, v in zip(due.series, due.values, strict=True):
            found[int(s)].append(v[:, 0].tolist())
    for s in range(4):
        mine = [float(i) for i, x in enumerate(series) if x == s]
        padded = [np.nan] * (length - 1) + mine
        expected = [padded[i : i + length] for i in range(0, len(mine), stride)]
        assert np.array_equal(
            np.array(found[s]).reshape(-1, length), np.array(expected).reshape(-1, length), equal_nan=True
        )


def test_ten_thousand_series_are_unremarkable() -> None:
    grid, buffers, count = Grid(GridSpec(), 1, 64), Buffers(64, 1), 10_000
    grid.resize(count)
    buffers.resize(grid.size)
    for second in range(3):
        aligned = grid.align(readings(*((i, 0, second, i) for i in range(count))))
        assert len(buffers.push(aligned.steps)) == count
    assert buffers.buffer.nbytes < count * 64 * 2 * 4 * 2


@pytest.mark.parametrize(("aggregate", "opened", "shut"), [("max", 1.0, 0.0), ("min", 0.0, 1.0)])
def test_what_is_held_after_a_step_is_what_was_there_at_its_end(aggregate: str, opened: float, shut: float) -> None:
    """A door that was open for a moment, and says nothing for a while: it was open once, and is not open since."""
    grid = Grid(GridSpec(step=5000, aggregate=aggregate, max_gap=60_000), 1, 8)
    spoken = [(0, 0, 0, shut), (0, 0, 1, opened), (0, 0, 2, shut), (0, 0, 16, shut)]
    wanted = [(0, 0, [opened]), (0, 5, [shut]), (0, 10, [shut]), (0, 15, [shut])]
    assert closed(grid, readings(*spoken)) == wanted
    one_by_one = Grid(GridSpec(step=5000, aggregate=aggregate, max_gap=60_000), 1, 8)
    assert closed(one_by_one, *(readings(row) for row in spoken)) == wanted
