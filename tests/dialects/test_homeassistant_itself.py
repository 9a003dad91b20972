"""What Home Assistant's own validators say of our messages. Optional: it needs a Python that has Home Assistant.

`TRANSOM_HOMEASSISTANT=/path/to/python scripts/test tests/dialects`; docs/home-assistant.md says what it needs.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from transom.dialects import homeassistant as ha
from transom.dialects import units

PLACE = ha.Place("homeassistant", "gw", "transom/gw", 30.0)
SCRIPT = Path(__file__).parent.parent / "homeassistant_itself.py"


def watched(**changes: object) -> ha.Watched:
    given = {"stream": "s", "series": "a/b", "model": "m@1", "task": "anomaly", "channels": ("x",), "units": ("mm/s",)}
    return ha.Watched(**(given | changes))


def test_home_assistant_takes_every_message_that_is_made() -> None:
    python = os.environ.get("TRANSOM_HOMEASSISTANT")
    if not python:
        pytest.skip("TRANSOM_HOMEASSISTANT names no Python that has Home Assistant")
    known = [(f"c {unit}", unit) for unit in units._CLASSES] + list(units._BY_NAME)
    made = [
        ha.agent_device(PLACE),
        ha.series_device(PLACE, watched(expire=60, channels=[c for c, _ in known], units=[u for _, u in known])),
        ha.series_device(PLACE, watched(task="forecast", steps=24, median=1)),
        ha.series_device(PLACE, watched(task="classify", classes=("idle", "run"))),
        ha.series_device(PLACE, watched(series="温度/ü+#'\"", channels=("x'] }}{{ 7 * 7 }}",))),
    ]
    messages = json.dumps([[one.topic, one.payload.decode()] for one in made])
    ran = subprocess.run([python, SCRIPT], input=messages, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(ran.stdout)["problems"] == []
