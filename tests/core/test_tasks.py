"""Forecasts and classes through the pipeline: each task's answer reaches the broker under its own names."""

import json
from typing import Any

import numpy as np

from transom.core.model import Channel, Manifest
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.plain import publications

T0 = 1_700_000_000_000


class Answers:
    """A model that answers with numbers that say where they belong: 100 step + 10 channel + quantile."""

    def __init__(self, **said: Any) -> None:
        self.manifest = Manifest(
            name="answers", version="1", family="none", channels=(Channel("flow"), Channel("heat")), length=2, **said
        )

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        m, b = self.manifest, len(values)
        if m.task == "classify":
            return {"probability": np.tile(np.float32([0.25, 0.75]), (b, 1))}
        shape = m.horizon, len(m.targets) or len(m.channels), len(m.quantiles)
        h, c, q = np.indices(shape).astype(np.float32)
        return {"forecast": np.tile(100 * h + 10 * c + q, (b, 1, 1, 1))}


def predictions(**said: Any) -> list[dict[str, Any]]:
    pipeline = Pipeline([(StreamSpec("s", "plant/{device}"), Answers(**said))])
    bodies = [json.dumps({"flow": float(i), "heat": 1.0, "time": T0 / 1000 + i}).encode() for i in range(4)]
    messages = [Message("plant/a", body, 1000 * (T0 + 1000 * i)) for i, body in enumerate(bodies)]
    events = [pipeline.process(messages), pipeline.flush()]
    return [json.loads(p.payload) for e in events for p in publications(e, "base") if p.topic.endswith("/prediction")]


def test_a_forecast_is_told_by_channel_step_after_step_with_its_quantiles() -> None:
    lines = predictions(task="forecast", horizon=2, quantiles=(0.1, 0.5, 0.9))
    assert lines
    assert lines[0]["forecast"] == {"flow": [[0, 1, 2], [100, 101, 102]], "heat": [[10, 11, 12], [110, 111, 112]]}
    assert lines[0]["quantiles"] == [0.1, 0.5, 0.9]
    assert lines[0]["lead"] == 1


def test_a_forecast_of_another_column_is_told_under_the_name_of_its_target() -> None:
    lines = predictions(task="forecast", horizon=1, quantiles=(0.5,), targets=(Channel("remaining", "cycles"),), lead=0)
    assert lines[0]["forecast"] == {"remaining": [[0]]}
    assert lines[0]["lead"] == 0
    assert set(lines[0]["value"]) == {"flow", "heat"}


def test_a_class_is_told_with_its_probability() -> None:
    assert predictions(task="classify", classes=("idle", "busy"))[0]["probability"] == {"idle": 0.25, "busy": 0.75}
