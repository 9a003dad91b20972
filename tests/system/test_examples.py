"""The configurations of config/examples do what they are there for."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

from transom.core.pipeline import Message
from transom.edge.assembly import build_pipeline
from transom.settings import load_settings

EXAMPLES = Path(__file__).parents[2] / "config" / "examples"
T0 = 1_767_261_600  # s, 2026-01-01T10:00:00Z


def test_the_zigbee_example_tells_of_a_step() -> None:
    """A freezer that is left open: the value moves once and stays, so that only the first windows are odd."""
    pipeline, noise = build_pipeline(load_settings(EXAMPLES / "zigbee2mqtt.toml", {})).pipeline, random.Random(0)
    raised = []
    for i in range(1100):
        seen = T0 + 60 * i
        body = {
            "temperature": round(-18 + noise.gauss(0, 0.1) + (12 if i >= 1000 else 0), 2),
            "last_seen": datetime.fromtimestamp(seen, UTC).isoformat(),
        }
        message = Message("zigbee2mqtt/freezer", json.dumps(body).encode(), 1000 * seen)
        raised += [(i, a) for a in pipeline.process([message], 1000 * seen).alerts if a.event == "raise"]
    assert [(i, a.series) for i, a in raised] == [(1000, "freezer/temperature")]
