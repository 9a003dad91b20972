"""The city and the vehicles of the scenes, through a broker, watched as config/examples has them."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_service import running

from tests_support import Heard
from transom.edge.assembly import build_pipeline
from transom.edge.service import Agent
from transom.scenes import Fault, scene
from transom.settings import load_settings

pytestmark = pytest.mark.mosquitto

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
T0 = 1_767_225_600_000  # ms, Thursday 2026-01-01T00:00:00Z


class Place:
    """A scene whose agent is configured by the example of its name; `last` of a topic is the last that was heard."""

    def __init__(self, name: str, folder: Path, port: int) -> None:
        self.scene = scene(name)
        self.simulation = self.scene.start(0)
        chosen = load_settings(
            EXAMPLES / f"{name}.toml",
            {"agent.id": "gw", "agent.state": str(folder / "state"), "broker.port": port},
        )
        self.agent = Agent(chosen, build_pipeline(chosen))

    def publish(self, heard: Heard, beats: int, fault: Fault | None = None) -> None:
        """So many beats at once; the sensors' time says when they were."""
        for beat in range(beats):
            seconds = beat / self.scene.rate
            on = fault if fault is not None and fault.begin <= seconds <= fault.end else None
            for topic, payload in self.simulation.send(seconds, self.scene.stamp(T0, beat), on):
                heard.client.publish(topic, payload, 1)

    def fault(self, name: str, begin: float) -> Fault:
        kind = next(k for k in self.scene.kinds if k.name.startswith(name))
        return Fault(kind, begin, begin + 4, begin + 8)


def last(heard: Heard, topic: str) -> dict[str, Any]:
    return dict(json.loads(heard.wait_for(topic, seconds=60)))


def test_a_city_is_forecast_and_its_failing_pump_is_told(mosquitto_broker, tmp_path: Path) -> None:
    place = Place("city", tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/#") as heard, running(place.agent):
        place.publish(heard, 170, place.fault("pump bearing", 18))
        last(heard, "transom/gw/pumps/well-2/alert")
        alert = json.loads(heard.messages["transom/gw/pumps/well-2/alert"][0])  # updates may follow at once
        assert alert["event"] == "raise"
        assert "vibration" in alert["summary"]
        road = last(heard, "transom/gw/traffic/ring-east/occupancy/prediction")
        assert len(road["forecast"]["occupancy"]) == 12
        air = last(heard, "transom/gw/air/park/prediction")
        assert set(air["forecast"]) == {"pm25", "no2", "o3"}
        watched = last(heard, "transom/gw/air-watch/harbour/prediction")
        assert watched["state"] in ("learning", "normal")
        assert not [t for t in heard.messages if t.endswith("/alert") and not t.endswith("well-2/alert")]


def test_vans_are_foreseen_and_recognised_and_a_hot_engine_is_told(mosquitto_broker, tmp_path: Path) -> None:
    place = Place("vehicle", tmp_path, mosquitto_broker.port)
    with Heard(mosquitto_broker.port, "transom/#") as heard, running(place.agent):
        place.publish(heard, 400, place.fault("coolant", 10))
        alert = last(heard, "transom/gw/engines/van-1/alert")
        assert "coolant" in alert["summary"]
        path = last(heard, "transom/gw/paths/van-1/prediction")
        assert list(path["forecast"]) == ["lat", "lon"]
        low, *_, high = path["forecast"]["lat"][-1]
        assert low <= path["value"]["lat"] + 0.002
        assert high >= path["value"]["lat"] - 0.002
        doing = last(heard, "transom/gw/motion/van-2/prediction")
        assert sum(doing["probability"].values()) == pytest.approx(1, abs=1e-3)
