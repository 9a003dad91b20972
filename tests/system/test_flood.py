"""One sensor floods a real broker, an agent that cannot keep up, and a hundred others: they lose nothing."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_service import counts_of, running

from tests_support import Distance, Heard, published, reading
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.edge.assembly import Assembly
from transom.edge.service import Agent
from transom.settings import load_settings

pytestmark = pytest.mark.mosquitto

QUIET, EACH, FLOOD = 100, 8, 16_000


class Held(Distance):
    """Computes nothing until it may: an agent that is busy."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        assert self.may.wait(60)
        return super().infer(values)


def quiet() -> list[Message]:
    return [reading(20 + i % 7 + n % 3, 1000 * n, f"plant/q{i}/x") for n in range(EACH) for i in range(QUIET)]


def pipeline(model: Distance) -> Pipeline:
    return Pipeline([(StreamSpec("s", "plant/{device}/{channel}"), model)], "transom/gw/")


@pytest.mark.parametrize("qos", [0, 1])
def test_a_sensor_that_floods_costs_the_others_nothing(mosquitto_broker, tmp_path: Path, qos: int) -> None:
    chosen = load_settings(None, {
        "agent": {"id": "gw", "state": str(tmp_path), "health_every": "100ms", "inbox": 1600},
        "broker": {"port": mosquitto_broker.port},
        "streams": {"s": {"topic": "plant/{device}/{channel}", "max_rate": "50/s"}},
    })  # fmt: skip
    model = Held()
    agent = Agent(chosen, Assembly(pipeline(model), {}))
    sent = quiet()
    with Heard(mosquitto_broker.port, "transom/#") as other, running(agent):
        sender = other.client
        every = FLOOD // len(sent)
        for i in range(FLOOD):
            sender.publish("plant/loud/x", b'{"value":%d}' % (i % 5), qos)
            if i % every == 0 and i // every < len(sent):
                sender.publish(sent[i // every].topic, sent[i // every].payload, qos)
        assert agent.connection is not None
        # At QoS 1 a broker sends no more than it may ahead of acknowledgements; at QoS 0 it sends all of it.
        for _ in range(6000):
            received = agent.connection.counters()["received"]
            if agent.fairness.throttled().messages if qos else received == FLOOD + len(sent):
                break
            threading.Event().wait(0.01)
        model.may.set()
        counts = counts_of(other, lambda c: c["received"] == FLOOD + len(sent))
        expected = published([pipeline(Distance()).process(sent)])
        wanted = {t: p for t, p in expected.items() if t.endswith("/prediction")}
        assert len(wanted) == QUIET

        def all_there(heard: dict[str, list[bytes]]) -> bool:
            return all(len(heard.get(t.replace("/test/", "/gw/"), [])) >= len(p) for t, p in wanted.items())

        other.wait_until(all_there, 60)
        for topic, payloads in wanted.items():
            assert other.messages[topic.replace("/test/", "/gw/")] == payloads
        assert counts["shed"] > 0
        assert counts["invalid"] == counts["late"] == counts["duplicate"] == 0
        told: dict[str, Any] = json.loads(other.messages["transom/gw/health"][-1])["throttled"]
        assert told == {"messages": counts["shed"], "topics": [{"topic": "plant/loud/x", "shed": counts["shed"]}]}
    again = Agent(chosen, Assembly(pipeline(Distance()), {}))
    with running(again):
        assert again.pipeline.accounts()["s"]["shed"] == counts["shed"]
