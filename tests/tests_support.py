"""What tests share: a detector without a network, events by topic, a plain MQTT client, a link that can fall silent."""

import json
import select
import socket
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import numpy as np
import paho.mqtt.client as paho

from transom.core.events import Events
from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message
from transom.dialects.plain import publications

T0 = 1_700_000_000_000


class Distance:
    """A detector whose score is how far the last step is from the mean of the window; every row by itself."""

    sha256 = ""

    def __init__(self, channels: tuple[str, ...] = (ANY,), length: int = 4, learning: int = 3) -> None:
        self.manifest = Manifest(
            name="distance", version="1", task="anomaly", family="none", channels=tuple(map(Channel, channels)),
            length=length, learning=learning,
        )  # fmt: skip

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(1) / np.maximum(known.sum(1), 1)
        apart = np.where(known[:, -1], np.abs(values[:, -1] - mean), 0).astype(np.float32)
        return {"score": apart.sum(1), "contribution": apart, "expected": mean.astype(np.float32)}


def published(events: list[Events]) -> dict[str, list[bytes]]:
    """By topic, in the order of publishing. Dead letters come at their own pace and are compared as they are."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for batch in events:
        for publication in publications(batch, "transom/test"):
            found[publication.topic].append(publication.payload)
    return dict(found)


def reading(value: object, ms: int, topic: str = "plant/a/x") -> Message:
    return Message(topic, json.dumps({"value": value, "time": (T0 + ms) / 1000}).encode(), T0 + ms)


class Heard:
    """`with Heard(port, "topic/#") as other: … other.wait_for(topic, payload)`."""

    def __init__(self, port: int, pattern: str) -> None:
        self.messages: dict[str, list[bytes]] = {}
        self._changed = threading.Condition()
        self._subscribed = threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda c, *_: c.subscribe(pattern, qos=1)
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = self._take
        self._port = port

    def _take(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        with self._changed:
            self.messages.setdefault(message.topic, []).append(message.payload)
            self._changed.notify_all()

    def __enter__(self) -> "Heard":
        self.client.connect("127.0.0.1", self._port)
        self.client.loop_start()
        assert self._subscribed.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # It knows us no more, so that it goes when we do: in a cycle its sockets may be found open, in some later test.
        self.client.on_connect = self.client.on_subscribe = self.client.on_message = None

    def wait_for(self, topic: str, payload: bytes | None = None, seconds: float = 15) -> bytes:
        """The last payload of a topic, as soon as there is one (that equals `payload`)."""

        def there() -> bool:
            heard = self.messages.get(topic, [])
            return bool(heard) if payload is None else payload in heard

        with self._changed:
            assert self._changed.wait_for(there, seconds), f"heard {self.messages}"
            return self.messages[topic][-1]

    def wait_until(self, there: Callable[[dict[str, list[bytes]]], bool], seconds: float = 15) -> None:
        """Returns as soon as `there` holds of what was heard, by topic."""
        with self._changed:
            assert self._changed.wait_for(lambda: there(self.messages), seconds), f"heard {list(self.messages)}"


class Line:
    """`with Line(port) as line: … line.port`: a TCP proxy. While `silent` it passes nothing on and closes nothing."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.silent = False
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "Line":
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in list(self._threads):
            thread.join(10)
        self._listening.close()

    def _accept(self) -> None:
        self._listening.settimeout(0.05)
        while not self._ended.is_set():
            with suppress(TimeoutError):
                near, _ = self._listening.accept()
                self._threads.append(threading.Thread(target=self._pass_on, args=(near,)))
                self._threads[-1].start()

    def _pass_on(self, near: socket.socket) -> None:
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self._target)) as far:
            other = {near: far, far: near}
            while not self._ended.is_set():
                ready, _, _ = select.select([] if self.silent else [near, far], [], [], 0.02)
                for one in ready:
                    data = one.recv(65_536)
                    if not data:
                        return
                    other[one].sendall(data)
