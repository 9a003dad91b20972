"""What a series' own past says of its present: habits, situations, records, and the p-values that come of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transom.core.alerts import AlertSpec
from transom.core.events import by_its_past
from transom.core.habit import HOUR, Habits
from transom.core.hold import ACCEPT
from transom.core.model import ANY, Channel, Manifest
from transom.core.news import Records
from transom.core.novelty import FIRST, NEIGHBOURS, PLACES, Situations
from transom.core.own import DOUBT, Own, Told, foreseen, realised
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec

ONE = np.zeros(1, np.int32)
T0 = 1_700_000_000_000_000 // (168 * HOUR) * (168 * HOUR)  # µs, the start of a week
NONE = np.zeros(1)


def departures(values: np.ndarray, step: int = HOUR) -> np.ndarray:
    habits = Habits()
    habits.resize(1)
    found = []
    for i, v in enumerate(values):
        found.append(habits.departure(ONE, np.array([T0 + i * step]), np.array([v]))[0])
        habits.learn(ONE, np.array([v], float))
    return np.array(found)


def novelties(values: np.ndarray) -> np.ndarray:
    situations = Situations()
    situations.resize(1)
    return np.array([seen(situations, v) for v in values])


def seen(situations: Situations, value: float) -> float:
    found = situations.novelty(ONE, np.array([value]), NONE)
    situations.learn(ONE, found)
    return float(found.novelty[0])


def taught(own: Own, ids: np.ndarray, end: int, values: np.ndarray) -> Told:
    ends = np.full(len(ids), end)
    told = own.judge(ids, ends, values, np.full(len(ids), 1e-4))
    own.learn(ids, told)
    return told


def p_values(values: np.ndarray, step: int = 300_000_000) -> tuple[Own, np.ndarray, np.ndarray]:
    own = Own(None)
    own.resize(1)
    told = [taught(own, ONE, T0 + i * step, np.array([v], np.float32)) for i, v in enumerate(values)]
    return own, np.array([t.p_value[0] for t in told]), np.array([t.news[0] for t in told])


def test_what_recurs_each_day_is_expected_after_a_week() -> None:
    day = np.where(np.arange(24 * 21) % 24 < 8, 10.0, 50.0)
    away = np.abs(departures(day))
    assert away[24 * 14 :].mean() < 0.2 * away[:24].mean()


def test_a_weekly_habit_is_told_from_a_daily_one() -> None:
    hour = np.arange(24 * 70)
    idle = (hour // 24) % 7 == 5
    away = np.abs(departures(np.where(idle, 0.0, 40.0)))
    assert away[24 * 63 :][idle[24 * 63 :]].mean() < 15
    missed = departures(np.append(np.where(idle, 0.0, 40.0), np.full(12, 0.0)))  # a workday on which nobody comes
    assert missed[-12] < -25


def test_one_huge_value_does_not_become_the_habit() -> None:
    values = 20 + np.random.default_rng(0).standard_normal(24 * 14)
    values[200] = 1e9
    assert np.abs(departures(values)[201:]).max() < 100


def test_nothing_is_novel_before_something_is_known() -> None:
    assert (novelties(np.random.default_rng(0).standard_normal(FIRST)) == 0).all()


def test_what_came_often_enough_is_no_news_however_long_ago() -> None:
    quiet = np.random.default_rng(0).standard_normal(400) * 0.1
    spikes = quiet.copy()
    at = 40 + 40 * np.arange(NEIGHBOURS + 2)
    spikes[at] = 30.0
    found = novelties(spikes)
    assert found[at[0]] > 50
    assert found[at[NEIGHBOURS + 1]] < 0.2 * found[at[0]]


def test_a_value_in_a_gap_of_all_seen_before_is_novel_though_in_range() -> None:
    switching = np.where(np.random.default_rng(1).random(600) < 0.5, 0.0, 10.0) + np.random.default_rng(2).normal(
        0, 0.1, 600
    )
    found = novelties(np.append(switching, 5.0))
    assert found[-1] > 5 * np.quantile(found[100:-1], 0.99)


def test_memory_is_bounded_and_knows_what_fills_it() -> None:
    situations = Situations()
    situations.resize(1)
    values = np.cumsum(np.random.default_rng(3).standard_normal(3000))
    for v in values:
        seen(situations, v)
    assert situations.centres.shape[2] == PLACES
    assert situations.members[0].sum() == 3000
    assert np.isfinite(situations.centres[0]).all()


def test_the_first_change_of_a_constant_is_as_novel_as_can_be() -> None:
    assert novelties(np.append(np.zeros(100), 1.0))[-1] > 1e5


def test_units_and_offsets_do_not_matter() -> None:
    values = np.random.default_rng(4).standard_normal(300)
    np.testing.assert_allclose(novelties(values), novelties(1000 * values), rtol=1e-3)


def test_only_the_first_and_the_highest_of_an_event_are_news() -> None:
    records = Records()
    records.resize(1)
    surprise = [1.0] * 60 + [9.0, 8.0, 9.0, 9.5, 3.0] + [1.0] * 30 + [9.0]
    found = [records.news(ONE, np.array([s]), np.full(1, 3.0)) for s in surprise]
    assert [i for i, (news, _) in enumerate(found) if news[0] and surprise[i] > 5] == [60, 63, 95]
    assert found[64][1][0] is np.False_  # lately: 9.5 was the window before
    assert [i for i, (_, lately) in enumerate(found) if lately[0] and surprise[i] > 5] == [60, 63, 95]


def test_p_values_fall_with_surprise_and_stay_within_bounds() -> None:
    p = realised(np.linspace(0, 1000, 5000))
    assert p[0] == 1.0
    assert (np.diff(p) <= 0).all()
    assert (p > 0).all()


@given(st.lists(st.floats(1e-12, 1.0), min_size=2, max_size=20), st.integers(1, 10**7))
def test_what_nobody_has_watched_long_enough_for_is_never_rarer_than_it_was_and_keeps_its_order(
    p: list[float], windows: int
) -> None:
    before = np.sort(np.array(p))
    after = foreseen(before, np.full(len(p), windows))
    assert (after >= before).all()
    assert (after <= 1).all()
    assert (np.diff(after) >= 0).all()
    np.testing.assert_array_equal(after[before * windows >= 1], before[before * windows >= 1])


def test_a_bar_that_lies_beyond_all_windows_so_far_is_as_much_harder_to_reach_as_it_lies_beyond() -> None:
    bar, windows = 1e-3, np.array([100])
    needed = bar * (bar * windows[0])
    assert needed > bar / DOUBT
    assert foreseen(np.array([needed * 0.99]), windows)[0] < bar < foreseen(np.array([needed * 1.01]), windows)[0]


def test_a_series_that_has_just_begun_tells_of_what_is_plain() -> None:
    """A bar far beyond all that was seen asks for no more than DOUBT times as much."""
    bar, windows = 3e-7, np.array([100])
    assert (
        foreseen(np.array([bar / DOUBT * 0.99]), windows)[0]
        < bar
        < foreseen(np.array([bar / DOUBT * 1.01]), windows)[0]
    )


@pytest.mark.parametrize("seed", range(3))
def test_normal_data_are_told_of_about_as_often_as_p_values_say(seed: int) -> None:
    _, p, _ = p_values(np.random.default_rng(seed).standard_normal(6000))
    assert 0.2 * 6000 / 288 < (p <= 1 / 288).sum() < 3 * 6000 / 288


def test_extreme_values_leave_it_sane() -> None:
    values = np.random.default_rng(5).standard_normal(200)
    values[[50, 51, 52]] = [3e38, -3e38, 1e-38]
    _, p, _ = p_values(values)
    assert np.isfinite(p).all()
    assert ((p > 0) & (p <= 1)).all()


def test_series_side_by_side_are_judged_as_if_alone() -> None:
    rng = np.random.default_rng(6)
    values = rng.standard_normal((250, 5)).cumsum(0).astype(np.float32)
    together = Own(None)
    together.resize(5)
    ids = np.arange(5, dtype=np.int32)
    told = [taught(together, ids, T0 + i * 300_000_000, values[i]).p_value for i in range(250)]
    for j in range(5):
        np.testing.assert_array_equal(np.array(told)[:, j], p_values(values[:, j])[1])


def test_a_snapshot_goes_on_as_if_nothing_had_happened() -> None:
    values = np.random.default_rng(7).standard_normal(400).astype(np.float32)
    own, _, _ = p_values(values[:300])
    again = Own(None)
    again.resize(1)
    again.restore(own.snapshot())
    for i, v in enumerate(values[300:], 300):
        a, b = (taught(o, ONE, T0 + i * 300_000_000, np.array([v])) for o in (own, again))
        assert a.p_value[0] == b.p_value[0]
        assert a.news[0] == b.news[0]


@pytest.mark.parametrize(
    ("value", "side", "said"),
    [
        (5.0, 0, "; like no value before it at such a level and hour"),
        (9.0, 0, ""),  # the band says it
        (5.0, 1, "; usually 7.5 at this hour"),
        (5.0, 2, "; its mean of late, 6.25, is like none before"),
    ],
)
def test_an_alert_says_what_the_band_does_not(value: float, side: int, said: str) -> None:
    assert by_its_past(value, (4.0, 6.0), side, 7.5, 6.25) == said


def test_a_busy_night_is_told_by_what_is_usual_at_that_hour() -> None:
    """Four weeks of days and nights, then a night that is as busy as a day: no value that was not seen before."""
    manifest = Manifest(
        name="band", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=2, learning=60
    )

    class Band:
        sha256 = ""

        def __init__(self) -> None:
            self.manifest = manifest

        def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
            last = np.nan_to_num(values[:, -1])
            score = np.ones(len(values), np.float32)
            return {"score": score, "contribution": score[:, None], "expected": last,
                    "interval": np.stack([last - 50, last + 50], 2)}  # fmt: skip

    pipeline = Pipeline([(StreamSpec("s", "city/{place}", budget=1 / 2_592_000_000), Band())])
    random, begin, told = np.random.default_rng(0), 1_700_006_400_000, []
    for step in range(28 * 48 + 6):
        hour = step / 2 % 24
        value = 100 + 80 * np.sin((hour - 6) / 24 * 2 * np.pi) + random.normal()
        if step >= 28 * 48:
            value = 160 + random.normal()
        events = pipeline.process([Message("city/a", b"%.3f" % value, begin + 1_800_000 * step)])
        told += [(step, alert.summary) for alert in events.alerts if alert.event == "raise"]
    assert [step for step, _ in told if step >= 28 * 48]
    assert "usually 2" in told[-1][1]  # some 20, at midnight
    assert "at this hour" in told[-1][1]


class TestHold:
    """Alerts that a series' own past has raised, by a budget of one a month at a value a minute."""

    def told(
        self, values: np.ndarray, minutes: int = 1, accept: int | None = None, days: int = 30
    ) -> list[tuple[str, int]]:  # fmt: skip
        """days: in which one false alarm is allowed."""

        class Band:
            sha256 = ""
            manifest = Manifest(
                name="band", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=2, learning=60
            )

            def infer(self, windows: np.ndarray) -> dict[str, np.ndarray]:
                score = np.ones(len(windows), np.float32)
                return {"score": score, "contribution": score[:, None], "expected": np.nan_to_num(windows[:, -1])}

        budget = 1 / (86_400_000 * days)
        spec = StreamSpec("s", "plant/{device}", budget=budget, alert=AlertSpec(accept_after=accept))
        pipeline = Pipeline([(spec, Band())])
        found = []
        for i, value in enumerate(values):
            at = 1_700_006_400_000 + 60_000 * minutes * i
            events = pipeline.process([Message("plant/a", b"%.4f" % value, at)])
            found += [(alert.event, i) for alert in events.alerts if alert.event != "update"]
        return found

    def test_an_alert_stays_up_while_the_value_stays_away_and_ends_when_it_is_back(self) -> None:
        quiet = np.random.default_rng(0).normal(size=900)
        quiet[600:680] += 40
        (raised, begun), (cleared, over) = self.told(quiet)
        assert (raised, begun, cleared) == ("raise", 600, "clear")
        assert 684 <= over < 700

    def test_alerts_on_hourly_data_by_a_budget_of_one_a_day_end(self) -> None:
        """Ten times a bar of 1/24 is what ordinary hours are below: they must be calm all the same."""
        told = self.told(np.random.default_rng(3).normal(size=24 * 60), minutes=60, days=1)
        assert [event for event, _ in told].count("clear") >= 10

    def test_a_spike_is_over_after_five_windows(self) -> None:
        quiet = np.random.default_rng(1).normal(size=700)
        quiet[600] += 40
        assert self.told(quiet) == [("raise", 600), ("clear", 605)]

    def test_what_stays_for_long_is_a_new_usual(self) -> None:
        quiet = np.random.default_rng(2).normal(size=600 + 2 * ACCEPT)
        quiet[600:] += 40
        told = self.told(quiet)
        assert told[0] == ("raise", 600)
        assert told[1][0] == "clear"
        assert ACCEPT <= told[1][1] - 600 < ACCEPT + 20

    def test_an_alert_is_held_for_as_long_as_the_setting_says(self) -> None:
        quiet = np.random.default_rng(2).normal(size=1200)
        quiet[600:] += 40
        (_, begun), (cleared, over) = self.told(quiet, accept=300 * 60_000)
        assert (begun, cleared) == (600, "clear")
        assert 300 <= over - begun < 330

    def faults(self, accept: int | None) -> list[int]:
        """A fault of ten minutes each 200 minutes from minute 600 on: the minutes of the raises."""
        values = np.random.default_rng(4).normal(size=2000)
        for begin in range(600, 2000, 200):
            values[begin : begin + 10] += 30
        return [at for event, at in self.told(values, accept=accept) if event == "raise" and at >= 600]

    def test_a_fault_that_comes_again_teaches_nothing_when_a_time_of_acceptance_is_set(self) -> None:
        assert len(self.faults(accept=86_400_000)) > len(self.faults(accept=None))
