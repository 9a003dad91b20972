"""Readings a second of the core alone: JSON messages in, due windows out, no model."""

import argparse
import json
import time
from collections import defaultdict, deque

import numpy as np

from transom.core.admission import GridSpec
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--series", type=int, default=1000)
parser.add_argument("--batches", type=int, default=200, help="of one message a series")
args = parser.parse_args()
T0, LENGTH = 1_700_000_000_000, 64


class NoModel:
    sha256 = ""
    manifest = Manifest(
        name="none", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=LENGTH
    )


def batch(number: int) -> list[Message]:
    now = T0 + 1000 * number
    return [
        Message(f"plant/d{i}/temperature", b'{"value":%.3f,"time":%.3f}' % (20 + i / 100 + number, now / 1000), now)
        for i in range(args.series)
    ]


batches = [batch(i) for i in range(args.batches)]
for name, step in (("one reading a step", None), ("steps of 1 s", 1000), ("steps of 10 s", 10_000)):
    pipeline = Pipeline([(StreamSpec("bench", "plant/{device}/{channel}", grid=GridSpec(step=step)), NoModel())])
    windows = 0
    pipeline.gather(Turn(batches[0]))
    begun = time.perf_counter()
    for messages in batches[1:]:
        windows += sum(len(due.windows) for due in pipeline.gather(Turn(messages)))
    rate = args.series * (args.batches - 1) / (time.perf_counter() - begun)
    print(f"{name:20}{rate:>10,.0f} readings/s, {windows:,} windows")

rings, begun, made = defaultdict(lambda: deque(maxlen=LENGTH)), time.perf_counter(), 0
for messages in batches[1:21]:
    for message in messages:
        ring = rings[message.topic]
        ring.append(json.loads(message.payload)["value"])
        made += len(np.array(ring, np.float32)) > 0
plain = made / (time.perf_counter() - begun)
print(f"{'json and a deque':20}{plain:>10,.0f} readings/s (no time, no order, no duplicates)")
