"""A million messages of any kind through the whole pipeline: nothing escapes, and every one is accounted for."""

import json
import random

import numpy as np

from transom.core.admission import GridSpec
from transom.core.model import Channel, Manifest
from transom.core.pipeline import Message, Pipeline, StreamSpec
from transom.dialects.plain import publications

T0 = 1_700_000_000_000
TOTAL, BATCH = 1_000_000, 5000


class Quiet:
    sha256 = ""
    manifest = Manifest(
        name="quiet",
        version="1",
        task="anomaly",
        family="none",
        channels=(Channel("x"), Channel("y")),
        length=8,
        step=1000,
    )

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        score = np.nan_to_num(np.abs(values[:, -1]).max(axis=1)).astype(np.float32)
        return {
            "score": score,
            "contribution": np.ones(values.shape[::2], np.float32),
            "expected": np.nan_to_num(values[:, -1]),
        }


def _value(chance: random.Random) -> object:
    kind = chance.randrange(12)
    if kind < 5:
        return round(chance.gauss(20, 5), 3)
    return (
        "21.5", "nan", "ON", None, True, 1e308, -1e-320, 2**70, [], {}, [1, 2], {"x": {"y": 1}},
    )[chance.randrange(12)]  # fmt: skip


def _time(chance: random.Random, now: int) -> object:
    kind = chance.randrange(10)
    if kind < 5:
        return now / 1000
    return (0, -1, now, now * 10**6, "2024-02-30T00:00:00Z", "2500-01-01", "", "12:30", 1e300, now / 1000 + 86_400)[
        chance.randrange(10)
    ]


def _payload(chance: random.Random, now: int) -> bytes:
    kind = chance.randrange(10)
    if kind < 6:
        body = {"x": _value(chance), "y": _value(chance), "time": _time(chance, now)}
        whole = json.dumps(body).encode()
        if kind == 5:  # damaged on the way
            i = chance.randrange(len(whole))
            return whole[:i] + bytes([chance.randrange(256)]) + whole[i + chance.randrange(3) :]
        return whole
    if kind == 6:
        return chance.randbytes(chance.randrange(60))
    if kind == 7:
        return b"[" * chance.randrange(2000)
    return json.dumps(_value(chance)).encode()


def _topic(chance: random.Random) -> str:
    kind = chance.randrange(20)
    if kind < 16:
        return f"plant/d{chance.randrange(50)}"
    return (
        "plant/",
        "plant//",
        "other/a",
        "plant/" + "é" * 40,
        "plant/d1/x",
        "/",
        "$SYS/x",
        "plant/\ud800",
        "plant/" + "a" * 700,
    )[chance.randrange(9)]


def test_a_million_fuzzed_messages_escape_nothing_and_balance() -> None:
    chance = random.Random(7)
    spec = StreamSpec(
        "s", "plant/{device}", grid=GridSpec(step=1000, lateness=3000, forget_after=600_000), threshold=100.0, budget=None,
        max_series=60,
    )  # fmt: skip
    pipeline = Pipeline([(spec, Quiet())])
    now, lines = T0, 0
    for _ in range(0, TOTAL, BATCH):
        now += chance.choice((500, 2000, 5000, 5000, 90_000, -3_600_000 if chance.random() < 0.01 else 100))
        messages = [Message(_topic(chance), _payload(chance, now), now) for _ in range(BATCH)]
        lines += sum(1 for _ in publications(pipeline.process(messages, now), "transom/gw"))
        counts = pipeline.accounts()["s"]
        assert counts["received"] == sum(counts[k] for k in ("accepted", "invalid", "duplicate", "late", "shed"))
    assert counts["accepted"] > 100_000
    assert counts["invalid"] > 100_000
    assert lines > 10_000
