"""What Home Assistant is told of series and agent: by its published rules, with templates rendered as it does."""

import json
from typing import Any

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from discovery_rules import UNITS, problems
from tests_support import T0, Distance
from transom import __version__
from transom.core.admission import GridSpec
from transom.core.events import Alert, Predictions
from transom.core.model import Channel, Manifest
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.core.values import ChannelSpec
from transom.dialects import homeassistant as ha
from transom.dialects import units
from transom.dialects.plain import alert_body, lines, topic_part

PLACE = ha.Place("homeassistant", "gw", "transom/gw", 30.0)
VIBRATION = ha.entity("expected", "vibration")
NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


def watched(**changes: Any) -> ha.Watched:
    given = {
        "stream": "pumps", "series": "hall/pump-1/vibration", "model": "universal@1", "task": "anomaly",
        "channels": ("vibration",), "units": ("mm/s",),
    }  # fmt: skip
    return ha.Watched(**(given | changes))


def body(publication: Any) -> dict[str, Any]:
    assert problems(publication) == []
    made: dict[str, Any] = json.loads(publication.payload)
    return made


def rendered(template: str, payload: bytes) -> str:
    """As Home Assistant renders it: with what is JSON in the payload."""
    return ImmutableSandboxedEnvironment().from_string(template).render(value_json=json.loads(payload))


def prediction(channels: tuple[str, ...] = ("vibration",), state: int = 1, **changes: Any) -> bytes:
    given = {
        "stream": "pumps", "model": "m@1", "series": ["s"], "channels": [channels], "end": np.array([T0 * 1000]),
        "value": np.zeros((1, len(channels)), np.float32), "state": np.array([state], np.uint8),
        "score": np.array([3.5], np.float32), "p_value": np.array([0.25]),
        "expected": np.arange(len(channels), dtype=np.float32)[None] + 2.5,
        "contribution": np.zeros((1, len(channels)), np.float32),
    }  # fmt: skip
    return next(lines(Predictions(**(given | changes))))


def alert(event: Any) -> bytes:
    one = Alert("1", event, "anomaly", "warning", "pumps", "s", "m@1", T0, T0, "a sentence")
    return json.dumps(alert_body(one)).encode()


def test_a_series_is_a_device_with_anomaly_score_and_predicted_values() -> None:
    sent = ha.series_device(PLACE, watched(expire=180))
    assert (sent.qos, sent.retain) == (1, True)
    made = body(sent)
    assert made["origin"] == {"name": "Transom", "sw_version": __version__}
    assert (made["device"]["name"], made["device"]["via_device"]) == ("hall/pump-1/vibration", PLACE.node)
    parts = made["components"]
    assert list(parts) == ["anomaly", "score", VIBRATION]
    topic = "transom/gw/pumps/hall/pump-1/vibration"
    anomaly, expected = parts["anomaly"], parts[VIBRATION]
    assert (anomaly["device_class"], anomaly["json_attributes_topic"]) == ("problem", f"{topic}/alert")
    assert anomaly["default_entity_id"] == "binary_sensor.gw_hall_pump_1_vibration_anomaly"
    assert (expected["state_topic"], expected["expire_after"]) == (f"{topic}/prediction", 180)
    assert (expected["unit_of_measurement"], expected["device_class"]) == ("mm/s", "speed")
    assert rendered(parts["score"]["value_template"], prediction()) == "3.5"
    assert rendered(expected["value_template"], prediction()) == "2.5"


def test_all_of_a_series_is_unavailable_unless_the_agent_is_online() -> None:
    made = body(ha.series_device(PLACE, watched()))
    assert made["availability_mode"] == "all"
    (one,) = made["availability"]
    assert one["topic"] == "transom/gw/status"
    said = [rendered(one["value_template"], b'{"state":"%b"}' % s) for s in (b"online", b"stopped", b"offline")]
    assert said == ["online", "offline", "offline"]


def test_the_anomaly_is_on_from_raise_to_clear_and_off_where_all_is_well() -> None:
    template = body(ha.series_device(PLACE, watched()))["components"]["anomaly"]["value_template"]
    assert [rendered(template, alert(e)) for e in ("raise", "update", "clear")] == ["ON", "ON", "OFF"]
    states = [rendered(template, prediction(state=s)) for s in range(5)]  # learning, normal, pending, alert, stale
    assert states == ["OFF", "OFF", "", "", ""]  # "": Home Assistant keeps what it had


def test_a_missing_number_is_told_as_unknown() -> None:
    parts = body(ha.series_device(PLACE, watched()))["components"]
    nothing = prediction(score=np.array([np.nan], np.float32), expected=np.array([[np.nan]], np.float32))
    assert rendered(parts["score"]["value_template"], nothing) == "None"
    assert rendered(parts[VIBRATION]["value_template"], nothing) == "None"


def test_a_forecast_is_told_for_the_next_step_and_the_last_by_its_median() -> None:
    one = watched(task="forecast", channels=("load",), units=("kW",), steps=24, median=1)
    parts = body(ha.series_device(PLACE, one))["components"]
    first, last = ha.entity("forecast_0", "load"), ha.entity("forecast_23", "load")
    assert list(parts) == ["anomaly", first, last]
    forecast = np.arange(24 * 3, dtype=np.float32).reshape(1, 24, 1, 3)
    said = prediction(("load",), score=None, p_value=None, expected=None, contribution=None, forecast=forecast,
                      quantiles=(0.1, 0.5, 0.9))  # fmt: skip
    assert rendered(parts[first]["value_template"], said) == "1.0"
    assert rendered(parts[last]["value_template"], said) == "70.0"


def test_a_class_is_the_likeliest_one() -> None:
    part = body(ha.series_device(PLACE, watched(task="classify", classes=("idle", "run"))))["components"]["class"]
    assert (part["device_class"], part["options"]) == ("enum", ["idle", "run"])
    nothing = dict.fromkeys(("score", "p_value", "expected", "contribution"))
    said = prediction(**nothing, probability=np.array([[0.9, 0.1]], np.float32), classes=("idle", "run"))
    assert rendered(part["value_template"], said) == "idle"
    unsure = prediction(**nothing, probability=np.full((1, 2), np.nan, np.float32), classes=("idle", "run"))
    assert rendered(part["value_template"], unsure) == "None"


def test_the_agent_is_a_device_that_says_whether_it_is_connected() -> None:
    made = body(ha.agent_device(PLACE))
    assert made["device"]["identifiers"] == [PLACE.node]
    parts = made["components"]
    assert "availability" not in parts["connected"]  # it could never be off
    template = parts["connected"]["value_template"]
    said = [rendered(template, b'{"state":"%b"}' % s) for s in (b"online", b"stopped", b"offline")]
    assert said == ["ON", "OFF", "OFF"]
    problem = parts["problem"]["value_template"]
    assert rendered(problem, b'{"state":"online"}') == "OFF"
    assert rendered(problem, b'{"state":"online","problems":["the journal is off"]}') == "ON"
    health = b'{"readings_per_s":12.5,"latency_ms":{"p95":null},"rss_bytes":250000000}'
    said = [rendered(parts[key]["value_template"], health) for key in ("readings", "lag", "memory")]
    assert said == ["12.5", "None", "250.0"]


def test_a_newer_model_of_a_stream_is_an_update_that_can_be_installed_where_that_call_is_allowed() -> None:
    name = "pumps' {{ 1 }}"
    update = {"installed_version": "3", "latest_version": "4", "title": "pump", "phase": "shadow"}
    info = json.dumps({"streams": [{"stream": "other"}, {"stream": name, "update": update}]}).encode()
    for accepts in (False, True):
        made = body(ha.agent_device(PLACE._replace(updated=(name,), accepts=accepts)))
        (part,) = (p for p in made["components"].values() if p["platform"] == "update")
        assert json.loads(rendered(part["value_template"], info)) == {
            "installed_version": "3", "latest_version": "4", "title": "pump"
        }  # fmt: skip
        assert part["state_topic"] == "transom/gw/info"
        assert ("command_topic" in part) == accepts
    assert part["command_topic"] == "transom/gw/request/accept"
    assert json.loads(part["payload_install"])["stream"] == name
    assert not any(p["platform"] == "update" for p in body(ha.agent_device(PLACE))["components"].values())


@given(NAMES, NAMES, NAMES, NAMES)
@example("s", "a/b", "x'] }}{{ 7 * 7 }}", "gw")
@example("s", "a/b", "{% for x in range(9) %}", "gw")
@example("s", "温度/ü+#", "\\'\"\U0001f600~", "gw")
def test_no_name_breaks_a_rule_or_gets_into_a_template(stream: str, series: str, channel: str, agent: str) -> None:
    place = ha.Place("homeassistant", agent, f"transom/{topic_part(agent.replace('/', '-'))}", 30.0)
    one = watched(stream=topic_part(stream.replace("/", "-")), series=series, channels=(channel, "b"), units=("", "°C"))
    sent = ha.series_device(place, one)
    parts = body(sent)["components"]
    assert place.device_of(sent.topic) == one.device
    said = prediction((channel, "b") if channel != "b" else (channel, "c"))
    assert rendered(parts[ha.entity("expected", channel)]["value_template"], said) == "2.5"
    assert body(ha.agent_device(place))


def test_devices_that_look_alike_do_not_meet() -> None:
    alike = [
        ("s", "a/b"),
        ("s", "a-b"),
        ("s", "a b"),
        ("t", "a/b"),
        ("s", "A/b"),
        ("s", "ä/b"),
        ("s", "/"),
        ("s", "温"),
    ]
    assert len({watched(stream=stream, series=series).device for stream, series in alike}) == len(alike)
    nodes = {ha.Place("p", agent, "transom/x", 30).node for agent in ("gw", "GW", "g w", "g-w", "温")}
    assert len(nodes) == 5


def test_a_topic_of_others_is_not_ours() -> None:
    for topic in (
        "homeassistant/device/other/pump/config", f"homeassistant/device/{PLACE.node}/a/b/config",
        f"homeassistant/device/{PLACE.node}//config", f"homeassistant/device/{PLACE.node}/config", "homeassistant/status",
        f"x/homeassistant/device/{PLACE.node}/a/config",
    ):  # fmt: skip
        assert PLACE.device_of(topic) is None
    assert PLACE.configs == f"homeassistant/device/{PLACE.node}/+/config"


def test_what_a_message_announced_is_read_and_what_is_none_is_nothing() -> None:
    assert ha.components(ha.series_device(PLACE, watched()).payload) == {"anomaly", "score", VIBRATION}
    for payload in (b"", b"{}", b"[1]", b'{"components":[]}', b"\xff\xfe", b'{"components":{"a"', b"null"):
        assert ha.components(payload) is None


def test_a_device_of_many_channels_stays_small() -> None:
    many = tuple(f"channel_{i}" for i in range(1000))
    sent = ha.series_device(PLACE, watched(channels=many, units=("",) * 1000))
    assert len(body(sent)["components"]) == 2 + ha.MOST_CHANNELS
    assert len(sent.payload) < 50_000


def test_a_stream_s_series_are_read_from_the_pipeline_with_their_units_and_pace() -> None:
    model = Distance(("t", "p"))
    model.manifest = Manifest(
        name="m", version="2", task="anomaly", family="none", channels=(Channel("t", "°C"), Channel("p")), length=4,
        step=60_000,
    )  # fmt: skip
    payload = PayloadSpec(channels=(ChannelSpec("t"), ChannelSpec("p", "", "bar")))
    spec = StreamSpec("s", "plant/{device}/{channel}", payload=payload, grid=GridSpec(step=60_000, lateness=5_000))
    pipeline = Pipeline([(spec, model)])
    pipeline.process([Message("plant/a/t", b"1", T0), Message("plant/a/p", b"1", T0), Message("plant/b/t", b"1", T0)])
    a, b = ha.watched(pipeline.streams["s"])
    assert (a.series, b.series) == ("a", "b")
    assert (a.channels, a.units, a.model, a.expire) == (("t", "p"), ("°C", "bar"), "m@2", 185)
    parts = body(ha.series_device(PLACE, a))["components"]
    kinds = [parts[ha.entity("expected", channel)]["device_class"] for channel in ("t", "p")]
    assert kinds == ["temperature", "pressure"]


def test_each_known_unit_is_one_of_its_device_class() -> None:
    for kind, known in units._UNITS.items():
        assert set(known) <= UNITS[kind], kind
    for (_, unit), kind in units._BY_NAME.items():
        assert unit in UNITS[kind]
    assert units.described("air humidity", "%") == {"unit_of_measurement": "%", "device_class": "humidity"}
    assert units.described("load", "%") == {"unit_of_measurement": "%"}
    assert units.described("energy", "kWh") == {"unit_of_measurement": "kWh"}  # may not be a measurement there
    assert units.described("x", "degC") == {"unit_of_measurement": "°C", "device_class": "temperature"}
    assert units.described("x", "") == {}


def test_only_online_is_a_birth() -> None:
    assert ha.born(b"online")
    assert not ha.born(b"offline")
    assert not ha.born(b"\xff")
