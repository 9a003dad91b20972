"""What the live page is told: the latest points of each series within a bound, the worst first, and only what is new."""

from collections import defaultdict, deque
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.alerts import State
from transom.core.events import Alert, Predictions
from transom.dialects.live import rings as rings_module
from transom.dialects.live.board import LISTED, Board, Seen
from transom.dialects.live.chart import About
from transom.dialects.live.notices import MOST, Notices
from transom.dialects.live.rings import LEAST, Rings

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">/../%2e\u202egnp.exe"


def batch(rows: list[tuple[str, int, float]], *, stream: str = "s", state: int = 1, p: float = 0.5) -> Predictions:
    """rows: series, time in µs, value; expected is a tenth more, the band one to each side."""
    n = len(rows)
    value = np.array([[v] for *_, v in rows], np.float32).reshape(n, 1)
    middle = value * 1.1
    return Predictions(
        stream, "m@1", [s for s, *_ in rows], [("t",)] * n, np.array([t for _, t, _ in rows], np.int64), value,
        np.full(n, state, np.uint8), score=value[:, 0], p_value=np.full(n, p), expected=middle,
        interval=np.stack([middle - 1, middle + 1], -1), contribution=np.ones((n, 1), np.float32),
    )  # fmt: skip


def alert(
    event: str = "raise", kind: str = "anomaly", series: str = "a", name: str = "1", summary: str = "t 9 °C"
) -> Alert:
    return Alert(name, event, kind, "warning", "s", series, "m@1", 1_000_000, 2_000_000, summary)  # type: ignore[arg-type]


def told(board: Board, seen: Seen) -> dict[str, Any]:
    """As a browser gets it."""
    body: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(board.tell(seen)))
    return body


# --- points -------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcdefghijklmnopqrst"), st.floats(-9, 9, width=32)), max_size=40),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_each_series_keeps_its_latest_points_however_the_batches_are_put_together(
    batches: list[list[tuple[str, float]]], together: int
) -> None:
    rings, known = Rings(20 * LEAST * 40), defaultdict[str, deque[tuple[int, float]]](lambda: deque(maxlen=LEAST))
    made, time = [], 0
    for rows in batches:
        stamped = []
        for series, value in rows:
            time += 1000
            stamped.append((series, time, value))
            known[series].append((time, value))
        if stamped:
            made.append(batch(sorted(stamped, key=lambda row: row[:2])))
    for i in range(0, len(made), together):
        rings.take(made[i : i + together])
    for series, points in known.items():
        place = rings.place(series)
        assert place is not None
        kept = rings.read(place)
        pairs = list(zip(kept.time.tolist(), kept.rows[:, 0].tolist(), strict=True))
        assert pairs[-len(points) :] == list(points)
        assert rings.latest(place)[0] == points[-1][0]


def test_memory_is_bounded_and_those_silent_longest_make_room() -> None:
    room = 200_000
    rings = Rings(room)
    for k in range(3000):
        rings.take([batch([(f"d{k}", 1000 * k, 1.0)])])
    held = sum(a.nbytes for a in (rings._time, rings._state, rings._rows, rings._count))
    assert held <= 1.1 * room
    assert rings.place("d2999") is not None
    assert rings.place("d0") is None
    assert [rings.names[rings.place(name) or 0] for name in rings.names] == rings.names


def test_few_series_keep_many_points_and_more_of_them_fewer_but_none_is_lost_that_has_room() -> None:
    rings = Rings(400_000)
    for k in range(1000):
        rings.take([batch([("a", 1000 * k, float(k))])])
    assert len(rings.read(0).time) == rings_module.MOST
    rings.take([batch([(f"d{i}", 5_000_000, 0.0) for i in range(200)])])
    kept = rings.read(0)
    assert LEAST <= len(kept.time) < rings_module.MOST
    assert kept.rows[:, 0].tolist() == [float(k) for k in range(1000 - len(kept.time), 1000)]


def test_a_model_of_another_shape_begins_anew() -> None:
    rings = Rings(100_000)
    rings.take([batch([("a", 1000, 1.0)])])
    wider = Predictions(
        "s", "m@2", ["b"], [("x", "y")], np.array([2000]), np.ones((1, 2), np.float32), np.ones(1, np.uint8)
    )
    rings.take([wider])
    assert rings.names == ["b"]


def test_a_clock_that_was_set_back_begins_another_story() -> None:
    rings = Rings(100_000)
    rings.take([batch([("a", t, 0.0)]) for t in (5000, 6000, 1000, 2000)])
    assert rings.read(0).time.tolist() == [1000, 2000]


# --- what a viewer is told ----------------------------------------------------------------------------------------


def test_a_viewer_is_told_all_and_then_only_what_is_new() -> None:
    board, seen = Board(), Seen()
    board.configure({"s": About({"t": "°C"}, None, "anomaly", "m@1")})
    board.take([batch([("a", 1000, 20.0), ("a", 2000, 21.0)])], [alert()])
    first = told(board, seen)
    assert first["chart"]["value"] == [[20.0, 21.0]]
    assert (first["chart"]["low"], first["chart"]["high"]) == ([[21.0, 22.1]], [[23.0, 24.1]])
    assert first["chart"]["units"] == ["°C"]
    assert first["list"]["rows"] == [["s", "a", "normal", "21 °C", 2.0, 21.0]]
    assert [entry["summary"] for entry in first["alerts"]] == ["t 9 °C"]
    assert told(board, seen) == {}
    board.take([batch([("b", 3000, 1.0)])], [])
    assert set(told(board, seen)) == {"list"}  # the points of a only
    board.take([batch([("a", 3000, 22.0)])], [])
    more = told(board, seen)["chart"]
    assert (more["value"], more["anew"]) == ([[22.0]], False)


def test_the_worst_comes_first_and_a_list_of_normal_series_stands_still() -> None:
    board = Board()
    for name, state, p in (
        ("calm", State.NORMAL, 0.5), ("calm2", State.NORMAL, 0.9), ("odd", State.NORMAL, 0.001),
        ("new", State.LEARNING, 1.0), ("up", State.ALERT, 0.02), ("worse", State.ALERT, 1e-9), ("soon", State.PENDING, 0.01),
    ):  # fmt: skip
        board.take([batch([(name, 1000, 1.0)], state=state, p=p)], [])
    rows = told(board, Seen())["list"]["rows"]
    assert [row[1] for row in rows] == ["worse", "up", "soon", "new", "odd", "calm", "calm2"]
    board.take([batch([("calm", 2000, 1.0)], p=0.95), batch([("calm2", 2000, 1.0)], p=0.4)], [])
    assert [row[1] for row in told(board, Seen())["list"]["rows"]][-2:] == ["calm", "calm2"]


def test_silence_is_a_state_until_it_ends() -> None:
    board = Board()
    board.take([batch([("a", 1000, 1.0), ("b", 1000, 1.0)])], [alert(kind="no-data", series="b")])
    assert [(row[1], row[2]) for row in told(board, Seen())["list"]["rows"]] == [("b", "stale"), ("a", "normal")]
    board.take([], [alert("clear", "no-data", "b")])
    assert told(board, Seen())["list"]["states"]["stale"] == 0


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("", 1000), ("D77", 11), ("d77 d7", 11), ("7 alert", 1), ("alert", 1), ("nothing", 0), ("s", 1000), ("  ", 1000),
        ("<script>", 0), ("\x00", 0), ("x" * 10_000, 0),
    ],
)  # fmt: skip
def test_a_search_finds_names_and_states_among_thousands(search: str, found: int) -> None:
    board = Board()
    board.take([batch([(f"d{i}", 1000, 1.0) for i in range(1000)]), batch([("d7", 2000, 1.0)], state=State.ALERT)], [])
    listed = told(board, Seen(search))["list"]
    assert (listed["total"], listed["matching"], len(listed["rows"])) == (1000, found, min(found, LISTED))


def test_a_series_that_is_not_there_is_told_once_and_drawn_when_it_comes() -> None:
    board, seen = Board(), Seen("", ("s", "later"))
    board.take([batch([("a", 1000, 1.0)])], [])
    assert told(board, seen)["chart"] == {"stream": "s", "series": "later", "anew": True, "time": []}
    assert told(board, seen) == {}
    board.take([batch([("later", 2000, 7.0)])], [])
    assert told(board, seen)["chart"]["value"] == [[7.0]]


def test_a_name_goes_through_as_it_is() -> None:
    board = Board()
    board.take([batch([(HOSTILE, 1000, 1.0)])], [alert(series=HOSTILE)])
    body = told(board, Seen("", ("s", HOSTILE)))
    assert body["list"]["rows"][0][1] == body["chart"]["series"] == body["alerts"][0]["series"] == HOSTILE


def test_a_forecast_goes_on_from_the_latest_point() -> None:
    def ahead(time: int) -> Predictions:
        return Predictions(
            "s", "f@1", ["a"], [("x", "t")], np.array([time]), np.ones((1, 2), np.float32), np.ones(1, np.uint8),
            forecast=np.arange(6, dtype=np.float32).reshape(1, 2, 1, 3), quantiles=(0.1, 0.5, 0.9), targets=("t",), lead=2,
        )  # fmt: skip

    board, seen = Board(), Seen()
    board.configure({"s": About({}, 60_000_000, "forecast", "f@1")})
    board.take([ahead(0), ahead(60_000_000)], [])
    fan = told(board, seen)["chart"]["forecast"]
    assert fan == {
        "time": [180_000.0, 240_000.0], "targets": ["t"], "levels": [0.1, 0.5, 0.9], "low": [[0.0, 3.0]],
        "middle": [[1.0, 4.0]], "high": [[2.0, 5.0]],
    }  # fmt: skip


def test_the_likeliest_class_is_what_a_series_is() -> None:
    board = Board()
    board.take([Predictions(
        "s", "c@1", ["plug"], [("power",)], np.array([1000]), np.ones((1, 1), np.float32), np.ones(1, np.uint8),
        probability=np.array([[0.03, 0.97]], np.float32), classes=("fridge", "kettle"),
    )], [])  # fmt: skip
    body = told(board, Seen())
    assert body["list"]["rows"][0][3] == "kettle 97 %"
    assert body["chart"]["probability"] == [[0.03], [0.97]]


def test_a_reload_that_changes_the_model_begins_the_drawing_anew() -> None:
    board, seen = Board(), Seen()
    for _ in range(50):  # whatever the memory of the former is used for
        board.configure({"s": About()})
        board.take([batch([("a", 1000, 1.0)])], [])
        chart = told(board, seen)["chart"]
        assert (chart["value"], chart["anew"]) == ([[1.0]], True)
        board.configure({})


def test_missing_values_are_null() -> None:
    board = Board()
    board.take([batch([("a", 1000, float("nan"))])], [])
    assert told(board, Seen())["chart"]["value"] == [[None]]


# --- alerts -------------------------------------------------------------------------------------------------------


def test_an_alert_is_one_entry_that_keeps_the_sentence_of_its_raise() -> None:
    notices = Notices()
    notices.take(alert(summary="raised"))
    notices.take(alert(name="2"))
    notices.take(alert("clear", summary="over"))
    entry = notices.since(0)[-1]
    assert (entry["event"], entry["summary"], entry["latest"]) == ("clear", "raised", "over")
    assert len(notices.since(0)) == 2
    assert [e["id"] for e in notices.since(2)] == ["1"]


def test_alerts_are_bounded_and_those_that_are_over_go_first() -> None:
    notices = Notices()
    notices.take(alert(name="up"))
    for i in range(2 * MOST):
        notices.take(alert(name=str(i)))
        notices.take(alert("clear", name=str(i)))
    kept = [e["id"] for e in notices.since(0)]
    assert len(kept) == MOST
    assert kept[0] == "up"
