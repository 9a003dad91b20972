"""What the tests of arriving models share: a key, signed offers of any bytes, and a store that notes what it is given."""

import secrets
import threading
from pathlib import Path
from typing import Any

from tests_support import Distance, Heard
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.dialects import updates
from transom.dialects.updates import Offer, Progress
from transom.edge.arrival.arrivals import Arrivals
from transom.edge.assembly import Assembly
from transom.edge.service import Agent
from transom.errors import ModelError
from transom.runtimes import minisign
from transom.runtimes.minisign import SecretKey
from transom.settings import Settings, load_settings

KEY, FOREIGN = minisign.SecretKey(b"trusted!", bytes(range(32))), minisign.SecretKey(b"foreign!", bytes(32))


class Noted:
    """offers: (stream, bytes, signature's text, origin) in the order in which they came."""

    def __init__(self, refuses: str = "") -> None:
        self.refuses = refuses
        self.offers: list[tuple[str, bytes, str, str]] = []
        self._changed = threading.Condition()

    def offer(self, stream: str, model: Path, signature: Path | None, origin: str) -> str:
        with self._changed:
            text = signature.read_text() if signature is not None else ""
            self.offers.append((stream, model.read_bytes(), text, origin))
            self._changed.notify_all()
        if self.refuses:
            raise ModelError(str(model), self.refuses, "make another")
        return ""

    def wait(self, count: int = 1, seconds: float = 20) -> list[tuple[str, bytes, str, str]]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.offers) >= count, seconds)
            return list(self.offers)


def configured(tmp_path: Path, port: int = 1883, agent: str = "gw", **models: Any) -> Settings:
    streams = {"s": {"topic": "plant/{device}/{channel}"}, "t": {"topic": "shed/{device}/{channel}"}}
    streams["s"] |= models.pop("stream", {})
    return load_settings(None, {
        "agent": {"id": agent, "state": str(tmp_path / agent), "health_every": "200ms", "commit_every": "50ms",
                  "groups": models.pop("groups", [])},
        "broker": {"port": port}, "streams": streams,
        "models": {"updates": ["mqtt"], "trusted_keys": [KEY.public.text]} | models,
    })  # fmt: skip


def signed(data: bytes, key: SecretKey = KEY, label: str = "pump@3") -> str:
    return minisign.sign(data, key, f"timestamp:1 file:pump.pt model:{label}")


def offer_of(data: bytes, key: SecretKey = KEY, label: str = "pump@3", chunk: int = 2048) -> Offer:
    name, _, version = label.partition("@")
    return updates.make_offer(data, signed(data, key, label), name, version, ".pt", secrets.token_hex(8), "", chunk)


def piece(data: bytes, offer: Offer, number: int) -> bytes:
    return data[number * offer.chunk :][: offer.length(number)]


def progress_in(publications: list[Any]) -> list[Progress]:
    found = [updates.decode_progress(p.payload) for p in publications if p.topic.endswith("/update/progress")]
    return [p for p in found if p is not None]


def agent_of(settings: Settings, store: Noted) -> Agent:
    """Whatever arrives goes to `store`, and nothing of it runs."""
    spec = StreamSpec("s", "plant/{device}/{channel}", threshold=20.0, budget=None)
    agent = Agent(settings, Assembly(Pipeline([(spec, Distance())], own_prefix=f"{settings.base}/"), {}))
    agent.arrivals = Arrivals(settings, store)
    return agent


def first_on(port: int, topic: str) -> bytes:
    """The first message of a topic that a new subscriber gets."""
    with Heard(port, topic) as other:
        return other.wait_for(topic)
