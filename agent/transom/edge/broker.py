"""A broker inside this process (amqtt), for the demo and for tests where mosquitto is missing.

Speaks MQTT 3.1.1 on 127.0.0.1 without log-in; some 4,000 messages a second. Not for use in earnest.
"""

import asyncio
import logging
import threading
import warnings
from typing import Any, Self

from transom.errors import BrokerError

STARTED = 10.0  # seconds that starting may take


class EmbeddedBroker:
    """`with EmbeddedBroker() as broker: … broker.port`."""

    def __init__(self, port: int = 0) -> None:
        """port: 0 = any that is free."""
        self.port = port
        self._ready = threading.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="amqtt", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(STARTED):
            raise BrokerError(f"127.0.0.1:{self.port}", "the embedded broker does not start", "try another --port")
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    async def _serve(self) -> None:
        try:
            broker = await self._started()
        except Exception as error:  # noqa: BLE001  # handed to the thread that waits in __enter__
            self._failure = error
            self._ready.set()
            return
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        await broker.shutdown()

    async def _started(self) -> Any:
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # clients that go without a word are no news here
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                from amqtt.broker import Broker  # optional: the demo's and the tests' only
        except ImportError:
            raise BrokerError(
                "the embedded broker",
                "amqtt is not installed",
                "in Transom's folder: pip install '.[demo]' -c constraints.txt",
            ) from None
        broker = Broker({
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        })  # fmt: skip
        try:
            await broker.start()
        except Exception as error:  # amqtt wraps what the socket says
            raise BrokerError(
                f"127.0.0.1:{self.port}", f"the embedded broker cannot listen ({error})", "choose another --port"
            ) from error
        server = next(iter(broker._servers.values()))  # the only way to learn the port that was chosen for 0
        self.port = server.instance.sockets[0].getsockname()[1]
        return broker
