"""Pictures: valid, small, honest about what they leave out, and safe whatever a series is called."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from transom.core.alerts import State
from transom.core.events import Alert, Events, Predictions
from transom.plots.drawing import LARGEST, draw
from transom.plots.panel import About
from transom.plots.traces import MOST_SPANS, Timing, Traces

SECOND = 1_000_000
BEGIN = 1_767_225_600 * SECOND
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert(1)</script>&\"'\x00\x1b\u202e]]>"


def predictions(
    series: list[str], times: np.ndarray, channels: tuple[str, ...] = ("value",), **more: object
) -> Predictions:
    """One window of each series at each time, with a band of 1 around what is expected."""
    n, c = len(series) * len(times), len(channels)
    end = np.tile(times, len(series)).astype(np.int64)
    value = np.sin(end / (300 * SECOND))[:, None].repeat(c, 1).astype(np.float32)
    given = {
        "stream": "s", "model": "m@1", "series": [s for s in series for _ in times], "channels": [channels] * n, "end": end,
        "value": value, "state": np.full(n, State.NORMAL, np.uint8), "score": np.abs(value[:, 0]),
        "p_value": np.full(n, 0.5), "expected": value, "interval": np.stack([value - 1, value + 1], 2),
        "contribution": np.ones((n, c), np.float32),
    }  # fmt: skip
    return Predictions(**(given | more))


def alert(series: str, since: int, until: int | None = None, **more: object) -> list[Alert]:
    first = Alert(
        f"{series}{since}", "raise", "anomaly", "warning", "s", series, "m@1", since, since, f"{series} odd", **more
    )
    return [first] if until is None else [first, replace(first, event="clear", time=until)]


def traces(timing: Callable[[str], Timing] = lambda _: Timing(SECOND, 1), variants: int = 1) -> Traces:
    return Traces(timing, variants)


def picture(made: Traces, about: About | None = None, **more: object) -> ET.Element:
    drawn = draw(made, lambda _: about or About(), **more)
    assert len(drawn.encode()) < LARGEST
    return ET.fromstring(drawn)


def words(root: ET.Element) -> str:
    return "\n".join("".join(e.itertext()) for e in root.iter() if e.tag in (f"{SVG}text", f"{SVG}title"))


def minutes(n: int) -> np.ndarray:
    return BEGIN + np.arange(n) * 60 * SECOND


def test_values_band_score_p_value_and_alerts_are_drawn_with_units_and_times() -> None:
    made = traces()
    made.take(
        Events(
            [predictions(["pump-1"], minutes(600), p_value=np.full(600, 1e-4))],
            alert("pump-1", int(minutes(600)[100]), int(minutes(600)[150])),
        )
    )
    root = picture(made, About(units={"value": "mm/s"}, bars={"pump-1": 1e-3}), title="day.csv")
    said = words(root)
    for expected in (
        "pump-1",
        "value mm/s",
        "score",
        "p-value, raises at 0.001",
        "02:00",
        "2026-01-01 00:00 to 09:59 UTC",
        "pump-1 odd",
    ):
        assert expected in said
    kinds = {e.get("class") for e in root.iter(f"{SVG}path")}
    assert {"v", "b", "sc", "bar", "g"} <= kinds
    (group,) = [e for e in root.iter(f"{SVG}g") if e.get("class") == "a"]
    assert "pump-1 odd" in group.findtext(f"{SVG}title", "")
    assert "01:40" in group.findtext(f"{SVG}title", "")
    x = float(group.find(f"{SVG}rect").get("x"))  # type: ignore[union-attr, arg-type]
    assert 78 + 900 * 100 / 599 - 2 < x < 78 + 900 * 100 / 599 + 2


def test_a_hostile_name_stays_text() -> None:
    made = traces()
    made.take(Events([predictions([HOSTILE], minutes(50), (HOSTILE,))], alert(HOSTILE, int(minutes(50)[9]))))
    root = picture(made, About(units={HOSTILE: HOSTILE}), title=HOSTILE, variants=(HOSTILE,))
    assert {e.tag for e in root.iter()} <= {
        SVG + t for t in ("svg", "g", "title", "desc", "style", "rect", "path", "text", "tspan")
    }
    assert "<script>alert(1)</script>&\"'" in words(root)
    assert "\u202e" not in words(root)


def test_nothing_is_fetched_and_dark_screens_have_a_suit() -> None:
    made = traces()
    made.take(Events([predictions(["a"], minutes(50))]))
    drawn = draw(made, lambda _: About())
    assert "prefers-color-scheme:dark" in drawn
    assert re.findall(r"https?://[^\s\"]+", drawn) == ["http://www.w3.org/2000/svg"]
    assert "href" not in drawn
    assert "script" not in drawn


def test_a_million_readings_are_a_small_picture_that_shows_the_one_spike() -> None:
    made = traces()
    for i in range(100):
        times = BEGIN + (np.arange(10_000) + 10_000 * i) * SECOND
        value = np.random.default_rng(i).standard_normal((10_000, 1)).astype(np.float32)
        value[77] = 1000 if i == 50 else 0
        made.take(Events([predictions(["a"], times, value=value, expected=value * 0)]))
    root = picture(made)
    assert len(ET.tostring(root)) < 150_000
    (values,) = [e.get("d") for e in root.iter(f"{SVG}path") if e.get("class") == "v" and len(e.get("d", "")) > 99]
    y = [float(pair.split()[1]) for pair in re.split("[ML]", values)[1:]]  # type: ignore[arg-type]
    assert min(y) < sorted(y)[1] - 50


def test_hundreds_of_series_of_eight_channels_with_many_alerts_stay_below_the_limit() -> None:
    made, names = traces(), [f"device-{i}" for i in range(40)]
    channels = tuple(f"channel {i}" for i in range(8))
    for i in range(4):
        made.take(Events([predictions(names, minutes(2000)[500 * i : 500 * (i + 1)], channels)]))
    for name in names:
        for i in range(0, 2000, 20):
            made.take(Events([], alert(name, int(minutes(2000)[i]), int(minutes(2000)[i + 9]))))
    root = picture(made, most=100)
    assert words(root).count("device-39") >= 1


def test_series_with_alerts_come_first_and_the_picture_says_how_many_are_left_out() -> None:
    made = traces()
    made.take(Events([predictions([f"d{i}" for i in range(20)], minutes(30))]))
    made.take(
        Events(
            [],
            [
                *alert("d17", int(minutes(30)[3])),
                *alert("d3", int(minutes(30)[3]), int(minutes(30)[9])),
                *alert("d3", int(minutes(30)[12])),
            ],
        )
    )
    assert [key[1] for key in made.order()[:3]] == ["d3", "d17", "d0"]
    said = words(picture(made, most=5))
    assert "15 more series are not drawn (--plot-series)" in said
    assert "d17 odd" in said
    assert "d9" not in said


def test_more_alerts_than_can_be_told_apart_are_one_span_that_says_so() -> None:
    made = traces()
    made.take(Events([predictions(["a"], minutes(3000))]))
    for i in range(0, 2000, 2):
        made.take(Events([], alert("a", int(minutes(3000)[i]), int(minutes(3000)[i + 1]))))
    spans = made.spans[0]["s", "a"]
    assert len(spans) == MOST_SPANS
    assert spans[-1].more == 1000 - MOST_SPANS
    assert spans[-1].end == int(minutes(3000)[1999])
    assert "997 more alerts" in words(picture(made))


def test_each_variant_has_a_lane() -> None:
    made = traces(variants=2)
    made.take(Events([predictions(["a"], minutes(60))], alert("a", int(minutes(60)[5]))), 0)
    made.take(Events([predictions(["a"], minutes(60))], []), 1)
    said = words(picture(made, variants=("false_alarms=1/day", "false_alarms=1/month")))
    assert "false_alarms=1/month" in said
    assert {"1 alert", "0 alerts"} <= set(said.split("\n"))


@pytest.mark.parametrize("step", [60 * SECOND, None])
def test_a_forecast_stands_at_the_time_that_it_is_about(step: int | None) -> None:
    made, times, horizon = traces(lambda _: Timing(step, 1)), minutes(100), 12
    value = np.arange(100, dtype=np.float32)[:, None]
    ahead = (
        value[:, None, :, None]
        + np.arange(1, horizon + 1, dtype=np.float32)[:, None, None]
        + np.array([-1, 0, 1], np.float32)
    )
    none = dict.fromkeys(("score", "p_value", "expected", "interval", "contribution"))
    made.take(Events([predictions(["a"], times, value=value, forecast=ahead, quantiles=(0.1, 0.5, 0.9), **none)]))
    group, trace = made["s", "a"]
    assert group.ahead is not None
    when, low, high = group.ahead.read(trace.row, 2000)
    first = horizon if step else horizon + 1  # the first window has no spacing to go by
    assert abs(int(when[0]) - int(times[0]) - first * 60 * SECOND) < 10 * SECOND
    assert int(when[-1]) == int(times[-1]) + horizon * 60 * SECOND
    assert low[-1].tolist() == [110.0, 111.0]
    assert high[-1].tolist() == [112.0, 111.0]
    assert "latest forecast" in words(picture(made))


def test_a_target_that_is_no_input_has_a_row_of_its_own() -> None:
    made, times = traces(), minutes(50)
    ahead = np.full((50, 1, 1, 3), 7, np.float32)
    none = dict.fromkeys(("score", "p_value", "expected", "interval", "contribution"))
    made.take(Events([predictions(["engine"], times, forecast=ahead, targets=("rul",), lead=0, **none)]))
    said = words(picture(made, About(units={"rul": "cycles"})))
    assert "rul cycles" in said


def test_classes_are_a_stripe_with_their_names() -> None:
    made, times = traces(), minutes(50)
    probability = np.where(np.arange(50)[:, None] < 25, [[0.9, 0.1]], [[0.2, 0.8]]).astype(np.float32)
    none = dict.fromkeys(("score", "p_value", "expected", "interval", "contribution"))
    made.take(Events([predictions(["watch"], times, probability=probability, classes=("run", "walk"), **none)]))
    root = picture(made)
    stripes = [g.findtext(f"{SVG}title") for g in root.iter(f"{SVG}g") if g.get("fill")]
    assert stripes == ["run", "walk"]


@pytest.mark.parametrize("value", [np.nan, 1e30, -1e30, 0.0])
def test_odd_values_draw(value: float) -> None:
    made = traces()
    made.take(Events([predictions(["a"], minutes(20), value=np.full((20, 1), value, np.float32))]))
    drawn = draw(made, lambda _: About())
    assert "nan" not in drawn.replace("nanosecond", "")
    ET.fromstring(drawn)


def test_a_recording_without_a_window_is_a_picture_that_says_so() -> None:
    assert "shorter than the model's context" in words(picture(traces()))
