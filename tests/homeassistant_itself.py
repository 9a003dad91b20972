"""Home Assistant's own validators: run by a Python that has it, messages in, what they refuse out.

`python tests/homeassistant_itself.py < MESSAGES`: a JSON list of [topic, payload]; prints a JSON list of problems.
"""

import asyncio
import json
import logging
import sys
import tempfile
from typing import Any

import voluptuous as vol
from homeassistant.components.mqtt import binary_sensor, schemas, sensor
from homeassistant.components.mqtt.discovery import TOPIC_MATCHER, _merge_common_device_options
from homeassistant.components.sensor import DEVICE_CLASS_STATE_CLASSES, DEVICE_CLASS_UNITS
from homeassistant.const import __version__
from homeassistant.core import HomeAssistant, valid_entity_id

PLATFORMS = {"binary_sensor": binary_sensor.DISCOVERY_SCHEMA, "sensor": sensor.DISCOVERY_SCHEMA}


def problems(topic: str, payload: str) -> list[str]:
    match = TOPIC_MATCHER.match(topic.partition("/")[2])
    if match is None or match["component"] != "device":
        return [f"{topic}: no discovery topic"]
    found = []
    try:
        body = json.loads(payload)
        schemas.DEVICE_DISCOVERY_SCHEMA(json.loads(payload))
        for key, part in body["components"].items():
            platform = part.pop("platform")
            config: Any = {**part, "device": body["device"], "origin": body["origin"]}
            _merge_common_device_options(config, body)
            try:
                given = PLATFORMS[platform](config | {"platform": "mqtt"})
                found += [f"{topic} {key}: {name} is not known" for name in part.keys() - given.keys()]
                found += [f"{topic} {key}: {one}" for one in _units(part)]
                if not valid_entity_id(part["default_entity_id"]):
                    found.append(f"{topic} {key}: {part['default_entity_id']}")
            except vol.Invalid as error:
                found.append(f"{topic} {key}: {error}")
    except vol.Invalid as error:
        found.append(f"{topic}: {error}")
    return found


def _units(part: dict[str, Any]) -> list[str]:
    kind, unit, state_class = part.get("device_class"), part.get("unit_of_measurement"), part.get("state_class")
    if kind not in DEVICE_CLASS_UNITS:
        return []
    found = [] if unit in DEVICE_CLASS_UNITS[kind] else [f"{kind} in {unit!r}"]
    return found if state_class in DEVICE_CLASS_STATE_CLASSES[kind] else [*found, f"{kind} as {state_class}"]


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        hass = HomeAssistant(folder)  # its templates want one
        found = [p for message in json.load(sys.stdin) for p in problems(*message)]
        await hass.async_stop(force=True)
    print(json.dumps({"version": __version__, "problems": found}))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main())
