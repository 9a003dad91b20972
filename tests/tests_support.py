"""A plain MQTT client for tests: what it hears, by topic, and waiting for it; and a link that can fall silent."""

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import paho.mqtt.client as paho


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
