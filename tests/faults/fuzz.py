"""Messages of any kind through the whole pipeline: nothing may escape, and every one must be accounted for.

An exception that escapes ends the scenario.
"""

import json
import random
from pathlib import Path

import numpy as np
from accounts import KINDS, Report, balanced

from transom.core.admission import GridSpec
from transom.core.model import Channel, Manifest
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.dialects.plain import publications

T0 = 1_700_000_000_000
TOTAL, BATCH = 1_000_000, 5000
ENOUGH = 0.1  # share that must be accepted, and share that must be refused, or the fuzz is no test


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


def fuzz(folder: Path | None = None, scale: float = 1, seed: int = 0) -> Report:
    """1,000,000 fuzzed messages through the whole pipeline, with their publications made."""
    del folder
    chance = random.Random(seed + 7)
    spec = StreamSpec(
        "s", "plant/{device}", grid=GridSpec(step=1000, lateness=3000, forget_after=600_000), threshold=35.0, budget=None,
        max_series=60,
    )  # fmt: skip
    pipeline = Pipeline([(spec, Quiet())])
    now, sent, lines, even = T0, 0, 0, True
    raised: set[str] = set()
    told: set[str] = set()
    while sent < round(TOTAL * scale):
        now += chance.choice((500, 2000, 5000, 5000, 90_000, -3_600_000 if chance.random() < 0.01 else 100))
        messages = [Message(_topic(chance), _payload(chance, now), now) for _ in range(BATCH)]
        sent += len(messages)
        events = pipeline.process(messages, now)
        raised |= {alert.id for alert in events.alerts}
        for publication in publications(events, "transom/gw"):
            lines += 1
            if publication.topic.endswith("/alert"):
                told.add(json.loads(publication.payload)["id"])
        even = even and balanced(pipeline.accounts()["s"])
    counts = pipeline.accounts()["s"]
    report = Report(
        f"{sent:,} fuzzed messages", sent=sent, received=counts["received"], accounts={k: counts[k] for k in KINDS},
        missing=counts["missing"], balanced=even, alerts_expected=len(raised), alerts_delivered=len(raised & told),
        complete=False, exit_status=0, facts={"publications": lines, "of no stream": pipeline.strangers, "unused": counts["unused"]},
    )  # fmt: skip
    report.demand(counts["accepted"] > ENOUGH * sent, "many are accepted")
    report.demand(counts["invalid"] > ENOUGH * sent, "many are refused")
    report.demand(lines > sent / 100, "many windows are published")
    return report
