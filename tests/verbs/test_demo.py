"""The demo: its faults are caught offline with many seeds, its screen fits, and its summary judges fairly."""

import contextlib
import importlib.util
import io
import itertools
import json
import re
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from ports import free_port
from rich.cells import cell_len
from rich.console import Console

from transom.cli import main
from transom.core.events import Alert
from transom.core.pipeline import Message
from transom.edge.assembly import build_pipeline
from transom.edge.broker import EmbeddedBroker
from transom.scenes import NAMES, Fault, Scene, scene
from transom.scenes.plant import Plant
from transom.verbs.demo import Demo, scene_settings
from transom.verbs.verdict import Told, judge
from transom.verbs.view import sparkline
from transom.verbs.watch import Watch

T0 = 1_700_000_000_000
PLANT = scene("plant")
RATE = 8


def watched(seed: int, seconds: float, place: Scene = PLANT) -> tuple[list[Fault], list[Told], Watch]:
    """A demo without a broker: the scene through the very pipeline, in event time."""
    pipeline = build_pipeline(scene_settings(place, 1883, "/nonexistent")).pipeline
    simulation, faults, raised = place.start(seed), list(place.schedule(seconds)), []
    watch, begun = Watch(place, pipeline, simulation), place.begun(T0)
    for beat in range(int(seconds * place.rate)):
        now = beat / place.rate
        active = next((f for f in faults if f.begin <= now <= f.end), None)
        ms = T0 + int(1000 * now)
        sent = simulation.send(now, place.stamp(begun, beat), active)
        events = pipeline.process([Message(t, p, ms) for t, p in sent], ms)
        raised += [Told(a, now) for a in events.alerts if a.event == "raise"]
        watch.take(events)
    return faults, raised, watch


@pytest.mark.parametrize("seed", range(6))
def test_every_fault_is_caught_and_nothing_else_is_told(seed: int) -> None:
    faults, raised, _ = watched(seed, 60)
    verdict = judge(faults, raised, PLANT.grace)
    assert len(faults) == 5
    assert [o.fault.kind.name for o in verdict.outcomes if o.caught is None] == []
    assert [t.alert.summary for t in verdict.false] == []


def test_the_home_shows_something_of_every_model_and_is_better_than_guessing() -> None:
    faults, raised, watch = watched(0, 60, scene("home"))
    verdict = judge(faults, raised, scene("home").grace)
    assert [o.fault.kind.name for o in verdict.outcomes if o.caught is None] == []
    assert watch.better
    assert {stream for stream, _ in watch.view.rows} == {"contacts", "air", "freezer", "meters"}
    console = Console(width=120, height=40, force_terminal=True, record=True, file=io.StringIO())
    console.print(watch.view)
    text = console.export_text()
    assert re.search(r"in 30 min \d+\.?\d* \(", text)
    assert re.search(r"\w+ \d+ %", text)
    lines = "\n".join(watch.lines())
    assert re.search(r"meters: recognised \d+ of \d+ \(always the most frequent: \d+\)", lines)
    assert "air: co2 in 30 min off by" in lines


def test_the_scenes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--scenario", "list"]) == 0
    said = capsys.readouterr().out
    assert all(name in said and scene(name).name == name for name in NAMES)


def test_a_run_too_short_for_a_fault_has_none() -> None:
    assert list(PLANT.schedule(20)) == []
    assert all(f.end + 4 <= 45 for f in PLANT.schedule(45))


def test_an_alert_of_another_series_is_a_false_alarm() -> None:
    fault = next(PLANT.schedule(60))
    stranger = Alert("1", "raise", "anomaly", "warning", "pumps", "hall/pump-9/flow", "m", 0, 0, "")
    verdict = judge([fault], [Told(stranger, fault.begin + 1)], PLANT.grace)
    assert verdict.outcomes[0].caught is None
    assert len(verdict.false) == 1


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
def test_the_screen_fits_and_shows_series_and_sentences(width: int, height: int) -> None:
    _, _, watch = watched(0, 30)
    console = Console(width=width, height=height, force_terminal=True, record=True, file=io.StringIO())
    console.print(watch.view)
    lines = console.export_text().splitlines()
    assert max(cell_len(line) for line in lines) <= width
    assert len(lines) <= height
    text = "\n".join(lines)
    assert "hall/pump-1/vibration" in text
    assert "vibration 6" in text
    assert re.search("[▁▂▃▄▅▆▇█]{8}", text)


def test_a_sparkline_spans_its_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([3.0] * 5, 3) == "▁▁▁"
    assert sparkline([], 5) == ""


def test_the_demo_runs_in_a_pipe_without_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seconds", "3"]) == 0
    out = capsys.readouterr().out
    assert "mosquitto_sub -h 127.0.0.1 -p" in out
    assert re.search(r"^look: http://127\.0\.0\.1:\d+/live/$", out, re.MULTILINE)
    assert "faults caught       0 of 0" in out
    assert "\x1b" not in out


def test_the_demo_has_the_live_page_at_the_port_that_is_named() -> None:
    port, told = free_port(), threading.Event()
    thread = threading.Thread(target=main, args=(["demo", "--seconds", "5", "--page", str(port)],))
    thread.start()
    viewer = None
    while thread.is_alive() and viewer is None:
        with contextlib.suppress(OSError):
            viewer = urllib.request.urlopen(f"http://127.0.0.1:{port}/live/events?search=pump-1", timeout=20)
        told.wait(0.05)
    assert viewer is not None
    with viewer:
        for line in viewer:
            if line.startswith(b"data: ") and json.loads(line[6:]).get("list", {}).get("matching") == 4:
                break
        else:
            pytest.fail("the four series of pump-1 were never told")
    thread.join(30)


def test_beats_are_stamped_on_the_beat_and_every_reading_carries_its_stamp() -> None:
    stamps = [PLANT.stamp(T0, beat) for beat in range(100)]
    assert {b - a for a, b in itertools.pairwise(stamps)} == {1000 // RATE}
    sent = Plant().send(0.0, stamps[3], None)
    assert {json.loads(payload)["time"] for _, payload in sent} == {stamps[3] / 1000}


def test_a_demo_that_was_held_up_loses_no_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A busy machine: the plant stands still for a second, then sends what it owes at once."""
    send = Plant.send

    def held_up(self: Plant, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        if seconds == 20 / RATE:
            time.sleep(1.0)
        return send(self, seconds, now, fault)

    monkeypatch.setattr(Plant, "send", held_up)
    with EmbeddedBroker() as broker:
        demo = Demo(PLANT, scene_settings(PLANT, broker.port, str(tmp_path)), 5, 0, threading.Event())
        demo.run()
    for counts in demo.agent.pipeline.accounts().values():
        assert counts["received"] == counts["accepted"] == 5 * RATE * counts["series"]
        assert (counts["duplicate"], counts["missing"]) == (0, 0)


def test_a_gateway_without_the_demos_broker_is_told_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "amqtt" else find(name, *more))
    assert main(["demo"]) == 1
    said = capsys.readouterr().err
    assert "amqtt, the broker inside the demo, is not installed" in said
    assert "pip install '.[demo]' -c constraints.txt" in said
