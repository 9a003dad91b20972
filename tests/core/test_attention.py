"""Mutes, acknowledgements and budgets: inputs of a turn, so that any split of messages gives the same events."""

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests_support import T0, Distance, published, reading
from transom.core.admission import GridSpec
from transom.core.alerts import AlertSpec
from transom.core.attention import Call
from transom.core.events import Events
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec

TOPIC = "transom/test/s/a/x/alert"


def make(**changes: Any) -> Pipeline:
    chosen = {"threshold": 20.0, "budget": None} | changes
    return Pipeline([(StreamSpec("s", "plant/{device}/{channel}", **chosen), Distance())])


def level(value: float, begin: int, count: int) -> list[Message]:
    return [reading(value, 1000 * i) for i in range(begin, begin + count)]


def mute(until: int, verb: str = "mute", **changes: Any) -> Call:
    """until: seconds after T0."""
    return Call(verb, "s", "a/x", 1000 * T0, 1000 * (T0 + 1000 * until), **changes)


def told(events: list[Events]) -> list[tuple[str, int]]:
    """(event, seconds after T0) of the alerts that are published."""
    return [(a.event, (a.time // 1000 - T0) // 1000) for batch in events for a in batch.alerts]


def one(pipeline: Pipeline) -> str:
    """The id of the only alert that is up."""
    ((alert, _),) = pipeline.streams["s"].judge.standing.up(0)
    return alert


def test_a_muted_series_is_judged_and_counted_and_not_told_of() -> None:
    p = make()
    events = [
        p.process(level(0, 0, 10)),
        p.take(Turn(level(100, 10, 1), calls=[mute(60)])),
        p.process(level(0, 11, 20)),
    ]
    assert told(events) == []
    assert {int(s) for batch in events for predictions in batch.predictions for s in predictions.state} >= {1, 3}
    counts = p.accounts()["s"]
    assert (counts["alerts"], counts["withheld"]) == (1, 2)


def test_an_alert_that_is_still_up_when_the_mute_ends_is_told_then() -> None:
    p = make()
    events = [p.process(level(0, 0, 10))]
    events += [  # each step far from those before it
        p.take(Turn([reading(100 * 2 ** (i - 10), 1000 * i)], calls=[mute(15)] if i == 10 else []))
        for i in range(10, 30)
    ]
    (first, at), *_ = told(events)
    assert (first, at) == ("raise", 16)
    assert next(a for e in events for a in e.alerts).since == 1000 * (T0 + 10_000)


def test_unmuting_tells_of_what_was_kept_back_with_the_next_window() -> None:
    p = make()
    p.process(level(0, 0, 10))
    assert told([p.take(Turn(level(100, 10, 1), calls=[mute(3600)]))]) == []
    assert told([p.take(Turn([reading(400, 11_000)], calls=[mute(0, "unmute")]))]) == [("raise", 11)]


def test_the_end_of_an_alert_that_was_told_is_told_while_muted_too() -> None:
    p = make()
    events = [p.process([*level(0, 0, 10), *level(100, 10, 1)])]
    events.append(p.take(Turn(level(0, 11, 20), calls=[mute(3600)])))
    assert [event for event, _ in told(events)] == ["raise", "clear"]


def test_a_mute_of_an_alert_ends_with_it() -> None:
    p = make()
    p.process([*level(0, 0, 10), *level(100, 10, 1)])
    p.take(Turn(level(0, 11, 20), calls=[mute(3600, alert=one(p), kind="anomaly")]))
    assert told([p.process(level(100, 31, 1))]) == [("raise", 31)]


def test_an_acknowledgement_is_in_what_follows_and_ends_nothing() -> None:
    p = make()
    events = [p.process([*level(0, 0, 10), *level(100, 10, 1)])]
    seen = Call("acknowledge", "s", "a/x", 1000 * (T0 + 10_500), alert=one(p), kind="anomaly", by="anna")
    events.append(p.take(Turn([reading(1000, 11_000), *level(0, 12, 20)], calls=[seen])))
    bodies = [json.loads(b) for b in published(events)[TOPIC]]
    assert [b["event"] for b in bodies] == ["raise", "update", "clear"]
    assert "acknowledged" not in bodies[0]
    assert [b["acknowledged"] for b in bodies[1:]] == [{"by": "anna", "time": "2023-11-14T22:13:30.500Z"}] * 2
    again = published([p.process(level(100, 32, 1))])[TOPIC]
    assert "acknowledged" not in json.loads(again[0])


def test_an_acknowledgement_of_an_alert_that_is_over_has_no_effect() -> None:
    p = make()
    p.process([*level(0, 0, 10), *level(100, 10, 1)])
    old = one(p)
    p.process(level(0, 11, 20))
    late = Call("acknowledge", "s", "a/x", 0, alert=old, kind="anomaly", by="anna")
    alert = published([p.take(Turn(level(100, 31, 1), calls=[late]))])[TOPIC]
    assert "acknowledged" not in json.loads(alert[0])


def test_a_silence_that_a_mute_kept_back_is_told_when_it_ends() -> None:
    p = make(grid=GridSpec(1000, max_gap=5000), alert=AlertSpec(no_data=True))
    p.process(level(0, 0, 10))
    assert told([p.take(Turn(now=T0 + 20_000, calls=[mute(60)]))]) == []
    assert told([p.take(Turn(now=T0 + 59_000))]) == []
    assert told([p.take(Turn(now=T0 + 61_000))]) == [("raise", 61)]
    assert told([p.take(Turn(now=T0 + 62_000))]) == []
    (event, _), *_ = told([p.process(level(0, 70, 3))])
    assert event == "clear"
    assert p.accounts()["s"]["alerts"] == 1


def test_a_silence_that_is_over_within_a_mute_is_not_told() -> None:
    p = make(grid=GridSpec(1000, max_gap=5000), alert=AlertSpec(no_data=True))
    events = [p.process(level(0, 0, 10)), p.take(Turn(now=T0 + 20_000, calls=[mute(600)])), p.process(level(0, 30, 5))]
    events.append(p.take(Turn(now=T0 + 700_000)))
    assert told(events) == [("raise", 700)]  # the next silence, which outlasts the mute


def test_a_budget_is_set_until_the_configured_one_comes_back() -> None:
    p = make(threshold=None, budget=1e-9)
    assert p.streams["s"].judge.budget == 1e-9
    p.take(Turn(calls=[Call("set-budget", "s", budget=1e-3)]))
    resumed = make(threshold=None, budget=1e-9)
    resumed.restore(p.snapshot())
    assert resumed.streams["s"].judge.budget == 1e-3
    resumed.take(Turn(calls=[Call("configured", "s")]))
    assert resumed.streams["s"].judge.budget == 1e-9


def test_a_call_for_what_is_not_here_has_no_effect() -> None:
    p = make()
    p.take(Turn(calls=[mute(60), Call("mute", "nothing", "a/x"), Call("acknowledge", "s", "a/x", alert="0")]))
    assert p.accounts()["s"]["muted"] == 0


def test_a_snapshot_without_mutes_is_taken_back() -> None:
    p = make()
    p.process(level(0, 0, 10))
    state = p.snapshot()
    del state["streams"]["s"]["judge"]["attention"], state["streams"]["s"]["judge"]["budget"]
    resumed = make()
    assert resumed.restore(state) == []
    assert told([resumed.take(Turn(level(100, 10, 1), calls=[mute(60)]))]) == []


def test_a_series_that_is_forgotten_is_no_longer_muted() -> None:
    p = make(grid=GridSpec(None, forget_after=60_000))
    p.process(level(0, 0, 10))
    p.take(Turn(calls=[mute(3600)]))
    assert p.accounts()["s"]["muted"] == 1
    p.take(Turn(now=T0 + 600_000))
    assert p.accounts()["s"]["muted"] == 0


ask = st.one_of(
    st.builds(lambda s: mute(s), st.integers(0, 60)), st.just(mute(0, "unmute")),
    st.just("acknowledge"), st.just("mute the alert"),
)  # fmt: skip


@hypothesis_settings(max_examples=60)
@given(
    st.lists(st.sampled_from([0, 0, 0, 1, 50, 100, 400]), min_size=10, max_size=50),
    st.dictionaries(st.integers(0, 49), ask, max_size=4), st.sets(st.integers(0, 49), max_size=10),
    st.integers(0, 49),
)  # fmt: skip
def test_any_split_around_calls_gives_the_same_events(
    values: list[int], asked: dict[int, Any], cuts: set[int], save_at: int
) -> None:
    messages = [reading(v, 1000 * i) for i, v in enumerate(values)]

    def calls(p: Pipeline, at: int) -> list[Call]:
        wanted = asked.get(at)
        if not isinstance(wanted, str):
            return [wanted] if wanted is not None else []
        up = p.streams["s"].judge.standing.up(0) if p.streams["s"].intake.series_count else []
        if not up:
            return []
        (alert, kind), *_ = up
        if wanted == "acknowledge":
            return [Call("acknowledge", "s", "a/x", 1000 * T0, alert=alert, kind=kind, by="anna")]
        return [mute(40, alert=alert, kind=kind)]

    def run(edges: set[int], save: int | None) -> dict[str, list[bytes]]:
        p, events = make(), []
        bounds = sorted({0, len(values), *(c for c in edges | set(asked) if c < len(values))})
        for a, b in zip(bounds, bounds[1:], strict=False):
            if save is not None and a <= save < b:
                resumed = make()
                assert resumed.restore(copy.deepcopy(p.snapshot())) == []
                p = resumed
            events.append(p.take(Turn(messages[a:b], calls=calls(p, a))))
        return published(events)

    expected = run(set(), None)
    assert run(cuts, None) == expected
    assert run(set(range(len(values))), save_at) == expected


def test_a_mute_ends_by_the_time_of_the_readings() -> None:
    p = make()
    p.process(level(0, 0, 10))
    events = p.take(Turn([*level(100, 10, 1), *level(0, 11, 20), *level(100, 31, 1)], calls=[mute(20)]))
    assert told([events]) == [("raise", 31)]
