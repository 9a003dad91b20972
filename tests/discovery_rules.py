"""What Home Assistant's documentation asks of a device discovery message, as checks: a publication in, problems out.

https://www.home-assistant.io/integrations/mqtt/ (discovery, binary_sensor, sensor, update), and for units and state classes
https://developers.home-assistant.io/docs/core/entity/sensor/.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import jinja2

from transom.dialects.plain import Publication

TOPIC = re.compile(r"(?P<prefix>.+)/device/(?:[a-zA-Z0-9_-]+/)?[a-zA-Z0-9_-]+/config")
ENTITY = re.compile(r"(binary_sensor|sensor|update)\.(?!.*__)[a-z0-9][a-z0-9_]*(?<!_)")
ROOT = {"device", "origin", "components", "availability", "availability_mode", "state_topic"}
DEVICE = {
    "identifiers", "connections", "name", "manufacturer", "model", "model_id", "serial_number", "hw_version",
    "sw_version", "suggested_area", "configuration_url", "via_device",
}  # fmt: skip
AVAILABILITY = {"topic", "payload_available", "payload_not_available", "value_template"}
ANY = {
    "platform", "unique_id", "default_entity_id", "name", "icon", "entity_category", "enabled_by_default", "qos",
    "availability", "availability_mode", "json_attributes_topic", "json_attributes_template", "state_topic",
    "value_template", "expire_after", "device_class", "force_update", "encoding",
}  # fmt: skip
OPTIONS = {
    "binary_sensor": ANY | {"payload_on", "payload_off", "off_delay"},
    "update": (ANY - {"expire_after", "force_update"}) | {
        "command_topic", "payload_install", "retain", "title", "release_url", "release_summary", "entity_picture",
        "display_precision", "latest_version_topic", "latest_version_template", "object_id",
    },
    "sensor": ANY | {"options", "state_class", "suggested_display_precision", "unit_of_measurement",
                     "last_reset_value_template"},
}  # fmt: skip
BINARY = {"problem", "connectivity", "running", "safety", "update"}
UNITS = {  # of the device classes that may be a measurement
    "apparent_power": {"mVA", "VA", "kVA"},
    "battery": {"%"},
    "carbon_dioxide": {"ppm"},
    "current": {"A", "mA"},
    "data_size": {"bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB"},
    "distance": {"km", "m", "cm", "mm", "mi", "nmi", "yd", "in"},
    "duration": {"d", "h", "min", "s", "ms", "µs"},
    "frequency": {"Hz", "kHz", "MHz", "GHz"},
    "humidity": {"%"},
    "illuminance": {"lx"},
    "irradiance": {"W/m²", "BTU/(h⋅ft²)"},
    "moisture": {"%"},
    "power": {"mW", "W", "kW", "MW", "GW", "TW"},
    "power_factor": {"%", None},
    "pressure": {"Pa", "kPa", "hPa", "bar", "cbar", "mbar", "mmHg", "inHg", "inH₂O", "psi"},
    "signal_strength": {"dB", "dBm"},
    "sound_pressure": {"dB", "dBA"},
    "speed": {"ft/s", "in/d", "in/h", "in/s", "km/h", "kn", "m/s", "mph", "mm/d", "mm/s"},
    "temperature": {"°C", "°F", "K"},
    "voltage": {"V", "mV", "µV", "kV", "MV"},
    "volume_flow_rate": {"m³/h", "m³/min", "m³/s", "ft³/min", "L/h", "L/min", "L/s", "gal/min", "mL/s"},
    "weight": {"kg", "g", "mg", "µg", "oz", "lb", "st"},
}


def problems(publication: Publication) -> list[str]:
    """All that the rules forbid, one sentence each; a removal has an empty payload."""
    topic, payload, _, retain = publication
    found = [] if TOPIC.fullmatch(topic) else [f"the topic {topic!r} is no discovery topic"]
    found += [] if retain else ["is not retained"]
    return found if not payload else [*found, *_body(json.loads(payload))]


def _body(body: dict[str, Any]) -> Iterator[str]:
    yield from (f"{key!r} is no key of a device discovery message" for key in body.keys() - ROOT)
    yield from (f"{key!r} is missing" for key in {"device", "origin", "components"} - body.keys())
    device = body["device"]
    yield from (f"device: {key!r} is no key" for key in device.keys() - DEVICE)
    if not device.get("identifiers") and not device.get("connections"):
        yield "device: neither identifiers nor connections"
    yield from (f"device.{k} is no text" for k, v in device.items() if k != "identifiers" and not isinstance(v, str))
    if not isinstance(body["origin"].get("name"), str):
        yield "origin: no name"
    yield from _availability("", body)
    for key, part in body["components"].items():
        yield from (f"{key}: {problem}" for problem in _component(part))
    ids = [part["unique_id"] for part in body["components"].values()]
    if len(set(ids)) < len(ids):
        yield "a unique_id is there twice"


def _availability(place: str, body: dict[str, Any]) -> Iterator[str]:
    for one in body.get("availability", []):
        yield from (f"{place}availability: {key!r}" for key in one.keys() - AVAILABILITY)
        yield from _topic(one["topic"])
        yield from _template(one.get("value_template", ""))
    if body.get("availability_mode", "all") not in ("all", "any", "latest"):
        yield f"{place}availability_mode"


def _component(part: dict[str, Any]) -> Iterator[str]:
    platform = part.get("platform")
    if platform not in OPTIONS:
        yield f"platform {platform!r}"
        return
    yield from (f"{key!r} is no option of a {platform}" for key in part.keys() - OPTIONS[platform])
    yield from (f"{key!r} is missing" for key in {"unique_id", "state_topic"} - part.keys())
    if not ENTITY.fullmatch(part["default_entity_id"]) or not part["default_entity_id"].startswith(f"{platform}."):
        yield f"default_entity_id {part['default_entity_id']!r}"
    if len(part["default_entity_id"]) > 255:
        yield "default_entity_id is too long"
    for key in ("state_topic", "json_attributes_topic"):
        yield from _topic(part.get(key, "x"))
    yield from _template(part["value_template"])
    yield from _availability("", part)
    if part.get("entity_category", "diagnostic") != "diagnostic":  # a sensor cannot be `config`
        yield "entity_category"
    if part.get("qos", 0) not in (0, 1, 2):
        yield "qos"
    expire = part.get("expire_after", 1)
    if not isinstance(expire, int) or expire < 1:
        yield f"expire_after {expire!r}"
    yield from {"binary_sensor": _binary, "sensor": _sensor, "update": _update}[platform](part)


def _update(part: dict[str, Any]) -> Iterator[str]:
    if part.get("device_class", "firmware") != "firmware":
        yield f"device_class {part['device_class']!r}"
    if ("command_topic" in part) != ("payload_install" in part):
        yield "command_topic and payload_install belong together"
    if re.search("[+#]", part.get("command_topic", "x")):
        yield f"{part['command_topic']!r} is no topic to publish to"


def _binary(part: dict[str, Any]) -> Iterator[str]:
    if part.get("device_class", "problem") not in BINARY:
        yield f"device_class {part['device_class']!r}"


def _sensor(part: dict[str, Any]) -> Iterator[str]:
    kind, unit = part.get("device_class"), part.get("unit_of_measurement")
    if kind == "enum":
        if not part.get("options"):
            yield "an enum without options"
        if "state_class" in part or unit is not None:
            yield "an enum with a state_class or a unit"
        return
    if "options" in part:
        yield "options without the device class enum"
    if part.get("state_class") != "measurement":
        yield f"state_class {part.get('state_class')!r}"
    if kind is not None and unit not in UNITS.get(kind, set()):
        yield f"{kind} is not measured in {unit!r}"
    if not isinstance(part.get("suggested_display_precision", 0), int):
        yield "suggested_display_precision"


def _topic(topic: str) -> Iterator[str]:
    """A topic to subscribe to."""
    levels = topic.split("/")
    bad = any("#" in level and (level != "#" or i < len(levels) - 1) for i, level in enumerate(levels))
    if not topic or bad or any("+" in level and level != "+" for level in levels):
        yield f"{topic!r} is no topic to subscribe to"
    if re.search(r"[\x00-\x1f\x7f-\x9f]", topic) or len(topic.encode()) > 65_535:
        yield f"{topic!r} has what no topic may have"


def _template(template: str) -> Iterator[str]:
    try:
        jinja2.Environment().parse(template)  # it makes no HTML
    except jinja2.TemplateError as error:
        yield f"the template {template!r}: {error}"
