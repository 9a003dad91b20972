"""The demos of city and vehicle without a broker: each through the very pipeline, in event time."""

import json

import numpy as np
import pytest

from transom.core.pipeline import Message
from transom.edge.assembly import build_pipeline
from transom.scenes import Fault, scene
from transom.scenes.city import City, day
from transom.scenes.vehicle import DOING, Fleet
from transom.verbs.demo import scene_settings
from transom.verbs.verdict import Told, judge
from transom.verbs.view import way
from transom.verbs.watch import Watch

T0 = 1_700_000_000_000


def watched(name: str, seed: int, seconds: float) -> tuple[list[Fault], list[Told], Watch]:
    place = scene(name)
    pipeline = build_pipeline(scene_settings(place, 1883, "/nonexistent")).pipeline
    simulation, faults, raised = place.start(seed), list(place.schedule(seconds)), []
    watch, begun = Watch(place, pipeline, simulation), place.begun(T0)
    for beat in range(int(seconds * place.rate)):
        now = beat / place.rate
        active = next((f for f in faults if f.begin <= now <= f.end), None)
        arrived = T0 + int(1000 * now)
        sent = simulation.send(now, place.stamp(begun, beat), active)
        events = pipeline.process([Message(t, p, arrived) for t, p in sent], arrived)
        watch.take(events)
        raised += [Told(a, now) for a in events.alerts if a.event == "raise"]
    return faults, raised, watch


@pytest.mark.parametrize(("name", "seconds"), [("city", 35), ("vehicle", 27)])
def test_every_fault_is_caught_and_the_rest_is_better_than_naive(name: str, seconds: float) -> None:
    faults, raised, watch = watched(name, 1, seconds)
    verdict = judge(faults, raised, scene(name).grace)
    assert faults
    assert [o.fault.kind.name for o in verdict.outcomes if o.caught is None] == []
    assert [t.alert.summary for t in verdict.false] == []
    assert watch.better, list(watch.lines())
    assert all("no forecast" not in line for line in watch.lines())


@pytest.mark.parametrize("start", [City, Fleet])
def test_the_same_seed_gives_the_same_messages(start: type[City] | type[Fleet]) -> None:
    def sent(seed: int) -> list[list[tuple[str, bytes]]]:
        simulation = start(seed)
        return [simulation.send(beat / 8, T0 + 1000 * beat, None) for beat in range(50)]

    assert sent(1) == sent(1) != sent(2)


def test_what_a_van_does_is_one_of_the_kinds_that_its_model_knows() -> None:
    fleet = Fleet(0)
    for beat in range(600):
        fleet.send(beat / 30, T0 + 100 * beat, None)
    did = fleet.vans["van-1"].did
    assert {doing for _, doing in did} <= set(DOING)
    begin, doing = did[100]
    assert fleet.truth("motion", "van-1", begin, begin) == doing
    assert fleet.truth("motion", "van-1", did[0][0], did[-1][0]) is None  # it did several things
    assert fleet.truth("engines", "van-1", begin, begin) is None


def test_a_van_moves_as_far_as_its_speed_says() -> None:
    fleet, seen = Fleet(4), []
    for beat in range(3000):
        for topic, payload in fleet.send(beat / 30, T0 + 100 * beat, None):
            if topic == "fleet/van-2/gps":
                seen.append(json.loads(payload))
    outlook = scene("vehicle").outlooks["paths"]
    places = [np.array([s["lat"], s["lon"]]) for s in seen]
    way_of = sum(outlook.distance(b, a) for a, b in zip(places, places[1:], strict=False))
    driven = sum(s["speed"] / 3.6 for s in seen[1:])
    assert way_of == pytest.approx(driven, rel=0.1)


def test_days_begin_at_midnight_and_weeks_on_monday() -> None:
    monday = 1_704_067_200_000
    assert day(monday) == (0.0, False)
    assert day(monday + 5 * 86_400_000 + 3_600_000) == (1.0, True)


def test_a_way_is_told_in_metres_and_a_direction() -> None:
    here = np.array([50.0, 8.0])
    north = np.array([[50.0008, 50.0009, 50.001], [8.0, 8.0, 8.0]])
    assert way(here, north) == "100 m N ± 11 m"
