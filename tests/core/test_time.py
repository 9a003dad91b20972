"""Time as sensors tell it: daylight saving, clocks that were never set, and recordings of ours."""

import json
from zoneinfo import ZoneInfo

import numpy as np

from transom.core.model import ANY, Channel, Manifest
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec


class Quiet:
    sha256 = ""
    manifest = Manifest(name="quiet", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=4)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        zero = np.zeros(len(values), np.float32)
        return {"score": zero, "contribution": zero[:, None], "expected": np.nan_to_num(values[:, -1])}


def local(hour: int, minute: int) -> bytes:
    return json.dumps({"value": 1, "time": f"2024-10-27T{hour:02}:{minute:02}:00"}).encode()


def test_the_hour_that_comes_twice_loses_nothing() -> None:
    berlin = PayloadSpec(timezone=ZoneInfo("Europe/Berlin"))
    pipeline = Pipeline([(StreamSpec("s", "home/{room}", payload=berlin), Quiet())])
    begin = 1_729_987_200_000  # 2024-10-27T00:00:00Z: 02:00 in summer time, and an hour later 02:00 once more
    times = [(2, m) for m in range(0, 60, 10)] * 2 + [(3, m) for m in range(0, 60, 10)]
    events = [
        pipeline.process([Message("home/a", local(hour, minute), begin + 600_000 * i)])
        for i, (hour, minute) in enumerate(times)
    ]
    counts = pipeline.accounts()["s"]
    assert (counts["accepted"], counts["late"], counts["duplicate"]) == (18, 0, 0)
    ends = [int(p.end[0]) // 1000 for e in events for p in e.predictions]
    assert ends == [begin + 600_000 * i for i in range(18)]


def test_a_gateway_without_a_clock_takes_sensors_that_have_one() -> None:
    pipeline = Pipeline([(StreamSpec("s", "home/{room}"), Quiet())])
    body = json.dumps({"value": 1, "time": "2024-01-01T00:00:00Z"}).encode()
    pipeline.process([Message("home/a", body, 5000)])
    assert pipeline.accounts()["s"]["accepted"] == 1


def test_our_own_clock_set_back_loses_no_reading_that_carries_no_time() -> None:
    pipeline = Pipeline([(StreamSpec("s", "home/{room}"), Quiet())])
    hour, now = 3_600_000, 1_700_000_000_000
    pipeline.process([Message("home/a", b"1", now + i) for i in range(5)])
    pipeline.process([Message("home/a", b"1", now - hour + i) for i in range(5)])
    pipeline.process([Message("home/a", b"1", now - hour - 60_000 + i) for i in range(5)])
    assert pipeline.accounts()["s"]["accepted"] == 15
