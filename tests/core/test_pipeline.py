"""The pipeline as a whole: any split of the same messages gives the same events, and the accounts balance."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests_support import T0, Distance, published, reading
from transom.core.admission import GridSpec
from transom.core.alerts import AlertSpec
from transom.core.events import Events
from transom.core.model import CalibrationTable, Channel, Manifest
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec


def run(pipeline: Pipeline, messages: list[Message], cuts: list[int]) -> list[Events]:
    edges = [0, *sorted(c % (len(messages) + 1) for c in cuts), len(messages)]
    return [pipeline.process(messages[a:b]) for a, b in zip(edges, edges[1:], strict=False)] + [pipeline.flush()]


message = st.tuples(
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["x", "y", "z"]),
    st.one_of(st.integers(-3000, 9000), st.none(), st.just(-400_000), st.just(900_000)),
    st.one_of(st.integers(-50, 50), st.sampled_from(["1e3", "nonsense", "NaN", '"17"'])),
    st.sampled_from([0, 0, 1, 40, 700, 2500, 15_000, 70_000, -200, -3_600_000]),
)

spec = st.builds(
    lambda step, aggregate, lateness, max_gap, stride, raised, no_data: {
        "grid": GridSpec(step, aggregate, lateness, max_gap, resync_after=60_000), "stride": stride,
        "alert": AlertSpec(*raised, hold_off=2000, no_data=no_data), "threshold": 20.0, "budget": None,
    },
    st.sampled_from([None, 1, 1000, 5000]), st.sampled_from(["last", "mean", "min", "max", "sum", "count"]),
    st.sampled_from([0, 800, 6000]), st.sampled_from([None, 3000, 20_000]), st.integers(1, 3),
    st.sampled_from([(1, 1), (2, 3)]), st.booleans(),
)  # fmt: skip


def messages_of(drawn: list[tuple[Any, ...]]) -> list[Message]:
    now, made = T0, []
    for device, channel, offset, value, pause in drawn:
        now = max(T0 - 7_200_000, now + pause)
        body = f'{{"value":{value}}}' if offset is None else f'{{"value":{value},"time":{(now + offset) / 1000}}}'
        made.append(Message(f"plant/{device}/{channel}", body.encode(), now))
    return made


@hypothesis_settings(max_examples=400)
@given(
    st.lists(message, max_size=60), spec, st.booleans(), st.lists(st.integers(0, 1000), max_size=12), st.integers(0, 60)
)
def test_any_split_of_the_same_messages_gives_the_same_events(
    drawn: list[tuple[Any, ...]], given_spec: dict[str, Any], wide: bool, cuts: list[int], save_at: int
) -> None:
    messages = messages_of(drawn)

    def make() -> Pipeline:
        model = Distance(("x", "y", "z")) if wide else Distance()
        return Pipeline([(StreamSpec("s", "plant/{device}/{channel}", **given_spec), model)])

    whole, split, single, saved = make(), make(), make(), make()
    expected = published(run(whole, messages, []))
    assert published(run(split, messages, cuts)) == expected
    assert published(run(single, messages, list(range(len(messages))))) == expected
    begun = [saved.process(messages[:save_at])]
    resumed = make()
    assert resumed.restore(copy.deepcopy(saved.snapshot())) == []
    assert published(begun + run(resumed, messages[save_at:], [])) == expected
    for pipeline in (whole, split, single, resumed):
        counts = pipeline.accounts()["s"]
        parts = ("accepted", "invalid", "duplicate", "late", "shed")
        assert counts["received"] == sum(counts[p] for p in parts)
        assert counts["received"] + counts["unused"] == len(messages)
        assert counts == whole.accounts()["s"]


def simple(**changes: Any) -> Pipeline:
    return Pipeline([(StreamSpec("s", "plant/{device}/{channel}", **changes), Distance())], own_prefix="transom/me/")


def test_a_redelivered_message_is_counted_as_a_duplicate() -> None:
    pipeline = simple()
    pipeline.process([reading(1, 0), reading(2, 1000)])
    pipeline.process([reading(2, 1000)])
    counts = pipeline.accounts()["s"]
    assert (counts["accepted"], counts["duplicate"]) == (2, 1)


def test_a_reading_behind_the_watermark_is_late_and_opens_nothing_again() -> None:
    pipeline = simple(grid=GridSpec(step=1000, lateness=2000))
    events = run(pipeline, [reading(1, 0), reading(2, 1500), reading(3, 6000), reading(9, 500)], [1, 2, 3])
    counts = pipeline.accounts()["s"]
    assert (counts["accepted"], counts["late"]) == (3, 1)
    assert all(b'"value":{"x":9.0}' not in line for lines in published(events).values() for line in lines)


def test_readings_within_lateness_are_put_in_order() -> None:
    pipeline = simple(grid=GridSpec(step=1000, lateness=2000))
    events = run(pipeline, [reading(1, 0), reading(3, 2100), reading(2, 1200)], [])
    lines = [json.loads(line) for line in published(events)["transom/test/s/a/x/prediction"]]
    assert [line["value"]["x"] for line in lines] == [1.0, 2.0, 3.0]


def test_two_readings_without_a_time_in_one_millisecond_are_two_readings() -> None:
    pipeline = simple()
    pipeline.process([Message("plant/a/x", b"1", T0), Message("plant/a/x", b"2", T0)])
    assert pipeline.accounts()["s"]["accepted"] == 2


def test_an_idle_series_is_closed_by_the_clock_and_then_stale() -> None:
    pipeline = simple(grid=GridSpec(step=1000, max_gap=5000), alert=AlertSpec(no_data=True))
    assert not pipeline.process([reading(1, 0)], T0).predictions
    assert pipeline.process([], T0 + 1500).predictions[0].end.tolist() == [T0 * 1000]
    told = pipeline.process([], T0 + 6000).alerts
    assert [(a.event, a.kind, a.series) for a in told] == [("raise", "no-data", "a/x")]
    back = pipeline.process([reading(1, 7000)], T0 + 7000).alerts
    assert [(a.event, a.id) for a in back] == [("clear", told[0].id)]


def test_an_anomaly_that_outlives_a_silence_is_told_again_after_it() -> None:
    pipeline = simple(
        grid=GridSpec(step=1000, max_gap=5000), alert=AlertSpec(no_data=True), threshold=20.0, budget=None
    )
    events = run(pipeline, [*(reading(0, 1000 * i) for i in range(8)), reading(500, 8000), reading(500, 9000)], [])
    raised = [a for e in events for a in e.alerts]
    assert [(a.event, a.kind) for a in raised] == [("raise", "anomaly")]
    assert pipeline.process([], T0 + 20_000).alerts[-1].kind == "no-data"
    back = pipeline.process([reading(500, 21_000)], T0 + 21_000).alerts
    assert [(a.event, a.kind) for a in back[:2]] == [("clear", "no-data"), ("update", "anomaly")]
    assert back[1].id == raised[0].id


def test_a_jump_of_the_clock_makes_no_series_silent() -> None:
    pipeline = simple(grid=GridSpec(step=1000, max_gap=5000, forget_after=60_000), alert=AlertSpec(no_data=True))
    pipeline.process([Message("plant/a/x", b"1", 1000)], 1000)
    events = pipeline.take(Turn((), T0, T0 - 1000))
    assert (events.alerts, pipeline.accounts()["s"]["series"]) == ([], 1)
    assert pipeline.take(Turn((), T0 + 6000)).alerts[0].kind == "no-data"


def test_holes_in_a_regular_rhythm_are_counted() -> None:
    pipeline = simple()
    times = [*range(0, 20_000, 1000), *range(24_000, 30_000, 1000)]  # 20, 21, 22, 23 never came
    pipeline.process([reading(1, ms) for ms in times])
    counts = pipeline.accounts()["s"]
    assert (counts["gaps"], counts["missing"]) == (1, 4)


def test_an_irregular_sensor_has_no_holes() -> None:
    pipeline = simple()
    pipeline.process([reading(1, 1000 * i + 700 * (i % 2)) for i in range(50)])
    pipeline.process([reading(1, 10_000_000)])
    assert pipeline.accounts()["s"]["missing"] == 0


@pytest.mark.parametrize(
    ("numbers", "missing", "duplicate"),
    [
        ([5, 6, 7], 0, 0),
        ([5, 6, 9], 2, 0),
        ([5, 8, 6], 1, 0),
        ([5, 6, 6, 7, 5], 0, 2),
        ([5000, 5001, 0, 1, 2], 0, 0),
    ],
)
def test_sequence_numbers_tell_what_is_missing_and_what_came_twice(
    numbers: list[int], missing: int, duplicate: int
) -> None:
    pipeline = simple(payload=PayloadSpec(sequence="n"))
    pipeline.process(
        [Message("plant/a/x", json.dumps({"value": 1, "n": n}).encode(), T0 + i) for i, n in enumerate(numbers)]
    )
    resumed = simple(payload=PayloadSpec(sequence="n"))
    assert resumed.restore(pipeline.snapshot()) == []
    for each in (pipeline, resumed):
        counts = each.accounts()["s"]
        assert (counts["missing"], counts["duplicate"], counts["received"]) == (missing, duplicate, len(numbers))


def test_a_snapshot_of_another_version_changes_nothing() -> None:
    pipeline = simple()
    pipeline.process([reading(1, 0)])
    before = pipeline.accounts()
    with pytest.raises(ValueError, match="version 99"):
        pipeline.restore(simple().snapshot() | {"version": 99})
    assert pipeline.accounts() == before


def test_a_stream_whose_snapshot_is_incomplete_starts_anew_and_whole() -> None:
    saved = simple()
    saved.process([reading(1, 0)])
    state = saved.snapshot()
    del state["streams"]["s"]["judge"]
    pipeline = simple()
    assert pipeline.restore(state) == ["s"]
    pipeline.process([reading(2, 1000)])
    assert pipeline.accounts()["s"]["received"] == 1


def test_a_full_stream_remembers_the_topics_of_its_series() -> None:
    pipeline = simple(max_series=2)
    pipeline.process([Message(f"plant/d{i}/x", b"1", T0) for i in range(9)])
    resumed = simple(max_series=2)
    resumed.restore(pipeline.snapshot())
    resumed.process([Message(f"plant/d{i}/x", b"1", T0 + 5) for i in range(9)])
    assert set(resumed._routes) == {"plant/d0/x", "plant/d1/x"}


def test_one_dead_channel_of_three_does_not_block_the_others() -> None:
    spec = StreamSpec("s", "plant/{device}/{channel}", grid=GridSpec(step=1000, max_gap=2000))
    pipeline = Pipeline([(spec, Distance(("x", "y", "z")))])
    messages = [reading(i, 1000 * i, f"plant/a/{c}") for i in range(8) for c in ("x", "y", "z") if c != "z" or i < 2]
    lines = [json.loads(line) for line in published(run(pipeline, messages, []))["transom/test/s/a/prediction"]]
    assert [line["value"]["x"] for line in lines] == list(map(float, range(8)))
    assert [line["value"]["z"] for line in lines] == [0.0, 1.0, 1.0, 1.0, None, None, None, None]


def test_a_sensor_that_sets_its_clock_back_is_heard_again_after_a_while() -> None:
    pipeline = simple(grid=GridSpec(resync_after=10_000))
    ahead = [reading(1, 1000 * i) for i in range(5)]
    back = [
        Message(m.topic, m.payload, T0 + 5000 + 1000 * i)
        for i, m in enumerate(reading(2, 1000 * i - 3_600_000) for i in range(20))
    ]
    pipeline.process(ahead)
    pipeline.process(back)
    counts = pipeline.accounts()["s"]
    assert counts["late"] == 10
    assert counts["accepted"] == 15


@pytest.mark.parametrize("ms", [400_000, 15_000_000_000_000])
def test_a_time_far_ahead_of_its_arrival_is_invalid(ms: int) -> None:
    pipeline = simple()
    pipeline.process([Message("plant/a/x", json.dumps({"value": 1, "time": (T0 + ms) / 1000}).encode(), T0)])
    assert pipeline.accounts()["s"]["invalid"] == 1


def test_overlapping_streams_each_take_a_message() -> None:
    streams = [StreamSpec("all", "plant/#"), StreamSpec("one", "plant/{device}/x")]
    pipeline = Pipeline([(s, Distance()) for s in streams])
    pipeline.process([reading(1, 0)])
    assert [a["accepted"] for a in pipeline.accounts().values()] == [1, 1]


def test_its_own_output_is_never_read() -> None:
    pipeline = Pipeline([(StreamSpec("s", "#"), Distance())], own_prefix="transom/me/")
    pipeline.process([reading(1, 0, "transom/me/s/a/prediction"), reading(1, 0, "transom/other/x")])
    assert pipeline.accounts()["s"]["received"] == 1


def test_a_million_topics_are_bounded_by_max_series_and_counted() -> None:
    pipeline, letters = simple(max_series=100), 0
    for begin in range(0, 1_000_000, 10_000):
        messages = [Message(f"plant/d{begin + i}/x", b"1", T0 + begin) for i in range(10_000)]
        letters += len(pipeline.process(messages).dead_letters)
    counts = pipeline.accounts()["s"]
    assert (counts["series"], counts["accepted"], counts["invalid_series"]) == (100, 100, 999_900)
    assert len(pipeline._routes) <= 200
    assert 0 < letters <= 20 * 1000


def test_a_topic_that_floods_with_nonsense_does_not_hide_the_refusal_of_another() -> None:
    flood = [Message("plant/a/x", b"nonsense", T0 + i) for i in range(500)]
    quiet = [Message("plant/b/x", b"12,5", T0 + 600), Message("plant/b/x", b"off", T0 + 601)]
    later = [Message("plant/a/x", b"nonsense", T0 + 1000)]
    before, pipeline = simple(), simple()
    batches = [before.process(flood)]
    pipeline.restore(before.snapshot())  # a restart opens no door either
    batches += [pipeline.process(flood[:5]), pipeline.process(quiet), pipeline.process(later)]
    told = [letter.topic for events in batches for letter in events.dead_letters]
    assert told == ["plant/a/x"] * 10 + ["plant/b/x", "plant/a/x"]
    assert pipeline.accounts()["s"]["invalid_payload"] == 508


@pytest.mark.parametrize("topic", ["plant//x", "plant/a/", "plant/" + "a" * 600 + "/x"])
def test_a_topic_that_cannot_name_a_series_is_a_dead_letter(topic: str) -> None:
    pipeline = simple()
    events = pipeline.process([Message(topic, b"1", T0)])
    assert pipeline.accounts()["s"]["invalid_topic"] == 1
    assert events.dead_letters[0].topic == topic


def test_a_topic_of_a_thousand_levels_is_a_stranger() -> None:
    pipeline = simple()
    pipeline.process([Message("/".join("abc" * 333), b"1", T0)])
    assert pipeline.strangers == 1


def test_a_forgotten_series_gives_its_place_back() -> None:
    pipeline = simple(max_series=1, grid=GridSpec(forget_after=60_000))
    pipeline.process([reading(1, 0)], T0)
    pipeline.process([], T0 + 70_000)
    assert pipeline.accounts()["s"]["series"] == 0
    pipeline.process([reading(1, 80_000, "plant/b/x")], T0 + 80_000)
    assert pipeline.accounts()["s"]["accepted"] == 2


def test_shed_messages_are_accounted_for() -> None:
    pipeline = simple()
    pipeline.shed({"plant/a/x": 2})
    counts = pipeline.accounts()["s"]
    assert (counts["received"], counts["shed"]) == (2, 2)


def test_a_clock_that_is_an_hour_ahead_stops_its_series_for_a_while_only_and_is_told_of() -> None:
    """Its readings are refused until nothing else has come for resync_after; then the difference is taken off."""
    pipeline = simple(grid=GridSpec(resync_after=60_000))
    ahead = 3_600_000
    made = [reading(i, 1000 * i) for i in range(10)]
    made += [
        Message("plant/a/x", b'{"value":%d,"time":%d}' % (i, T0 + 1000 * i + ahead), T0 + 1000 * i)
        for i in range(10, 200)
    ]
    made += [reading(i, 1000 * i) for i in range(200, 210)]  # and somebody sets the clock right
    events = run(pipeline, made, list(range(len(made))))
    counts = pipeline.accounts()["s"]
    assert counts["invalid_time"] == 60
    assert counts["accepted"] == len(made) - 60
    letters = [letter for batch in events for letter in batch.dead_letters]
    assert len(letters) == 60
    assert letters[0].topic == "plant/a/x"
    assert "60 min ahead" in letters[0].reason
    assert "timezone" in letters[0].reason
    ends = [json.loads(line)["time"] for line in published(events)["transom/test/s/a/x/prediction"]]
    assert ends == sorted(ends)
    assert ends[-1].startswith("2023-11-14T22:16:49")  # T0 and 209 s: by the clock here


def test_what_the_broker_had_kept_is_late_unless_it_names_its_time() -> None:
    pipeline = simple()
    pipeline.process([Message("plant/a/x", b"42", T0, False, True), reading(1, 0)._replace(retained=True)])
    counts = pipeline.accounts()["s"]
    assert (counts["received"], counts["accepted"], counts["late"], counts["retained"]) == (2, 1, 1, 1)


def test_bare_values_in_an_array_are_readings_one_after_the_other() -> None:
    pipeline = simple()
    pipeline.process([Message("plant/a/x", b"[1,2,3]", T0), Message("plant/a/x", b"4", T0)])
    counts = pipeline.accounts()["s"]
    assert (counts["received"], counts["accepted"], counts["duplicate"]) == (4, 4, 0)


def test_a_sequence_number_far_ahead_is_a_new_beginning_and_no_loss() -> None:
    pipeline = simple(payload=PayloadSpec(sequence="n"))
    for n in (1, 2, 2**60, 2**60 + 1, 2**60 + 3):
        pipeline.process([Message("plant/a/x", b'{"value":1,"n":%d}' % n, T0 + n % 1000 * 1000)])
    assert pipeline.accounts()["s"]["missing"] == 1


silent_message = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from([1, 1, 1, 1, 50]),
    st.sampled_from([None, 0, 0, -1500, -400, 200, -9000]),
    st.sampled_from([1, 200, 1000, 1000, 3000, 7000, 12_000]),
)


@hypothesis_settings(max_examples=300)
@given(
    st.lists(silent_message, min_size=5, max_size=60),
    st.sampled_from([None, 1000]),
    st.sampled_from([0, 2000]),
    st.lists(st.integers(0, 1000), max_size=12),
)
def test_silences_among_anomalies_are_told_alike_in_any_split(
    drawn: list[tuple[Any, ...]], step: int | None, lateness: int, cuts: list[int]
) -> None:
    now, messages = T0, []
    for device, value, offset, pause in drawn:
        now += pause
        body = {"value": value} if offset is None else {"value": value, "time": now + offset}
        messages.append(Message(f"plant/{device}/x", json.dumps(body).encode(), now))

    def made() -> Pipeline:
        return simple(
            grid=GridSpec(step, max_gap=5000, lateness=lateness),
            threshold=10.0, budget=None, alert=AlertSpec(no_data=True),
        )  # fmt: skip

    expected = published(run(made(), messages, []))
    assert published(run(made(), messages, cuts)) == expected
    assert published(run(made(), messages, list(range(len(messages))))) == expected
    for topic, lines in expected.items():
        if topic.endswith("/alert"):
            told = [json.loads(line) for line in lines]
            begun = {t["id"] for t in told if t["event"] == "raise"}
            assert {t["id"] for t in told} <= begun
            for i, t in enumerate(told):
                assert t["event"] == "raise" or any(u["event"] == "raise" and u["id"] == t["id"] for u in told[:i])


def test_a_burst_of_what_had_waited_is_no_rhythm_whose_pauses_are_losses() -> None:
    """One a second; then a minute's worth at once, as after an outage; then one a second again."""
    pipeline = simple()
    pipeline.process([Message("plant/a/x", b"1", T0 + 1000 * i) for i in range(30)])
    pipeline.process([Message("plant/a/x", b"1", T0 + 90_000 + i // 20) for i in range(60)])
    pipeline.process([Message("plant/a/x", b"1", T0 + 91_000 + 1000 * i) for i in range(30)])
    counts = pipeline.accounts()["s"]
    assert counts["accepted"] == 120
    assert (counts["gaps"], counts["missing"]) == (1, 60)  # until the burst: who has no time of its own cannot say more


class Loudness:
    """A detector of one named channel whose score is the value's size; on normal data it is exponential."""

    sha256 = ""

    def __init__(self) -> None:
        table = CalibrationTable(
            scores=(0.0, 1.0, 5.0), p_values=(1.0, float(np.exp(-1)), float(np.exp(-5))), tail_scale=1.0
        )
        self.manifest = Manifest(
            name="loud", version="1", task="anomaly", family="none", channels=(Channel("x"),), length=1, learning=50,
            calibration=table,
        )  # fmt: skip

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        size = np.abs(values[:, -1])
        return {"score": size[:, 0], "contribution": size, "expected": np.zeros_like(size)}


def heard(values: list[float]) -> list[tuple[str, int]]:
    """(event, minute) of the alerts over one value a minute, one a month allowed."""
    pipeline = Pipeline([(StreamSpec("s", "plant/{device}/{channel}", budget=1 / 2_592_000_000), Loudness())])
    told = []
    for i, value in enumerate(values):
        events = pipeline.process([Message("plant/a/x", b"%.4f" % value, T0 + 60_000 * i)])
        told += [(alert.event, i) for alert in events.alerts if alert.event != "update"]
    return told


def test_a_long_fault_does_not_become_usual_while_it_is_told_of() -> None:
    rng = np.random.default_rng(5)
    quiet = np.minimum(rng.exponential(size=700), 6.0).tolist()
    told = heard([*quiet[:500], *([15.0] * 60), *quiet[500:], 16.0])
    assert told == [("raise", 500), ("clear", 564), ("raise", 760)]


def test_what_goes_on_for_very_long_is_a_new_usual() -> None:
    rng = np.random.default_rng(6)
    told = heard([*np.minimum(rng.exponential(size=500), 6.0), *(15.0 + rng.exponential(size=4000))])
    assert told[0] == ("raise", 500)
    assert "clear" in [event for event, _ in told]


@hypothesis_settings(max_examples=60)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(70, 200), st.integers(1, 40), st.sampled_from([-30, 8, 50])), max_size=4),
    st.lists(st.integers(0, 100_000), max_size=20),
    st.integers(0, 400),
)
def test_what_a_series_own_past_says_is_the_same_in_any_split(
    seed: int, faults: list[tuple[int, int, int]], cuts: list[int], save_at: int
) -> None:
    """Budgets, habits, records and alerts that are held: two series of 200 values, some minutes apart, with faults."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=(200, 2)) + 5 * np.sin(np.arange(200) / 12)[:, None], 2)
    for begin, length, size in faults:
        values[begin : begin + length, size % 2] += size
    messages = [
        Message(f"plant/{name}/x", json.dumps({"value": values[i, j], "time": T0 + 600_000 * i}).encode(), T0 + 600_000 * i)
        for i in range(200) for j, name in enumerate("ab")
    ]  # fmt: skip

    def made() -> Pipeline:
        return simple(budget=1 / 86_400_000)

    expected = published(run(made(), messages, []))
    assert published(run(made(), messages, cuts)) == expected
    saved, resumed = made(), made()
    begun = [saved.process(messages[:save_at])]
    assert resumed.restore(copy.deepcopy(saved.snapshot())) == []
    assert published(begun + run(resumed, messages[save_at:], [])) == expected
