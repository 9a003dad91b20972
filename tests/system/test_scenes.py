"""The scenes through a broker, with the examples' own configurations: what their models say arrives as it should."""

import json
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest

from tests_support import Heard
from transom.edge.assembly import build_pipeline
from transom.edge.service import Agent
from transom.scenes import scene
from transom.settings import Settings, load_settings

pytestmark = pytest.mark.mosquitto

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
BEGUN = 1_767_571_200_000  # ms since 1970, a Monday in the past, so that no reading is ahead of its arrival


def spoken(name: str, topic: str, seconds: float, begin: float = 0.0, seed: int = 0) -> list[tuple[str, bytes]]:
    """What the scene sends under a topic until so many seconds of its demo, with its faults; from `begin` on."""
    place = scene(name)
    simulation, faults, sent = place.start(seed), list(place.schedule(seconds + 60)), []
    first = place.begun(BEGUN)
    for beat in range(round(seconds * place.rate)):
        now = beat / place.rate
        active = next((f for f in faults if f.begin <= now <= f.end), None)
        messages = simulation.send(now, place.stamp(first, beat), active)
        sent += [m for m in messages if paho.topic_matches_sub(topic, m[0]) and (now >= begin or not beat)]
    return sent


def example(name: str, port: int, state: Path, only: str) -> Settings:
    """The example's configuration with this broker, and one of its streams."""
    settings = load_settings(
        EXAMPLES / f"{name}.toml", {"broker.port": str(port), "agent.id": "gw", "agent.state": str(state)}
    )
    return settings.model_copy(update={"streams": {only: settings.streams[only]}})


def told(settings: Settings, messages: list[tuple[str, bytes]], topic: str, times: int = 1) -> list[dict[str, object]]:
    """What an agent says under a topic when these messages are sent, as soon as it has said it so many times."""
    agent, stop = Agent(settings, build_pipeline(settings)), threading.Event()
    thread = threading.Thread(target=agent.run, args=(stop,))
    thread.start()
    try:
        assert agent.ready.wait(30)
        with Heard(settings.broker.port, topic) as heard:
            for where, payload in messages:
                heard.client.publish(where, payload, qos=1)

            def there(seen: dict[str, list[bytes]]) -> bool:
                return sum(map(len, seen.values())) >= times

            heard.wait_until(there, 40)
            return [json.loads(line) for lines in heard.messages.values() for line in lines]
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def test_a_window_left_open_is_an_alert(mosquitto_broker, tmp_path: Path) -> None:
    sent = spoken("home", "zigbee2mqtt/bathroom", 22)
    settings = example("home", mosquitto_broker.port, tmp_path, "contacts")
    alert = told(settings, sent, "transom/gw/contacts/bathroom/contact/alert")[0]
    assert (alert["event"], alert["kind"], alert["value"]) == ("raise", "anomaly", {"contact": 0.0})
    assert str(alert["since"]) >= "2026-01-05T21:00"


def test_the_air_is_forecast_for_half_an_hour(mosquitto_broker, tmp_path: Path) -> None:
    settings = example("home", mosquitto_broker.port, tmp_path, "air")
    said = told(settings, spoken("home", "home/living/air", 6), "transom/gw/air/living/prediction", 20)[-1]
    assert [len(rows) for rows in said["forecast"].values()] == [6] * 4  # type: ignore[attr-defined]
    co2 = said["forecast"]["co2"][-1]  # type: ignore[index]
    assert co2 == sorted(co2)
    assert 350 < co2[2] < 3000


def test_a_freezer_whose_door_stands_ajar_is_an_alert(mosquitto_broker, tmp_path: Path) -> None:
    settings = example("home", mosquitto_broker.port, tmp_path, "freezer")
    sent = spoken("home", "home/cellar/freezer", 37, begin=20)
    alert = told(settings, sent, "transom/gw/freezer/cellar/alert")[0]
    assert (alert["event"], alert["kind"]) == ("raise", "anomaly")
    assert next(iter(alert["contribution"])) == "temperature"  # type: ignore[call-overload]


def test_an_appliance_is_recognised_by_what_it_draws(mosquitto_broker, tmp_path: Path) -> None:
    settings = example("home", mosquitto_broker.port, tmp_path, "meters")
    sent = spoken("home", "home/kitchen/meter", 2.2)
    said = told(settings, sent, "transom/gw/meters/kitchen/power/prediction", 40)
    simulation = scene("home").start(0)
    simulation.send(0.0, scene("home").begun(BEGUN), None)
    first = scene("home").begun(BEGUN)
    truth = simulation.truth("meters", "kitchen/power", first + 60_000, first + 3_600_000)
    classes = [max(p["probability"], key=p["probability"].get) for p in said]  # type: ignore[attr-defined]
    assert classes.count(truth) >= 0.9 * len(classes)
