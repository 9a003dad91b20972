"""A connection to try things with: what the broker grants, refuses, sends and keeps."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from transom.edge.client import Client, PlainClient
from transom.edge.tls import Changeable, make_context
from transom.edge.wire import WIRED, BrokerOptions, connect, new_client
from transom.errors import BrokerError

LISTEN = 2.0  # seconds for which retained messages and readings are waited for
RETAIN = 1  # the bit of a PUBLISH packet's first byte


class Trial:
    """A connection that is driven by whoever waits. heard: (topic, payload, retained)."""

    def __init__(self, options: BrokerOptions, *, version5: bool) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.granted: dict[int, Sequence[ReasonCode]] = {}
        self.published: dict[int, ReasonCode] = {}
        self.present, self.version5 = False, version5
        self._answer: ReasonCode | None = None
        self.tls = None if options.tls is None else Changeable(make_context(options.tls))
        client: Client | PlainClient = new_client(
            options, version5=version5, client_id=options.client_id, context=self.tls
        )
        client.on_connect, client.on_batch = self._on_connect, self._on_batch
        client.on_subscribe = lambda _c, _d, mid, reasons, _p: self.granted.__setitem__(mid, reasons)
        client.on_publish = lambda _c, _d, mid, reason, _p: self.published.__setitem__(mid, reason)
        self.client = client
        connect(client, options, version5=version5)
        self.until(lambda: self._answer is not None, WIRED)
        answer: ReasonCode | None = self._answer
        if answer is None or answer.is_failure:
            raise BrokerError("", f"log-in: {answer or 'no answer'}", "")

    def _on_connect(
        self, _c: paho.Client, _d: object, flags: paho.ConnectFlags, reason: ReasonCode, _p: object
    ) -> None:
        self._answer, self.present = reason, bool(flags.session_present)

    def _on_batch(self, batch: Sequence[Any]) -> None:
        self.client.acknowledge([mid for _, _, first, mid, *_ in batch if first & 6])
        for topic, payload, first, *_ in batch:
            name = topic.decode(errors="replace") if isinstance(topic, bytes) else str(topic)
            self.heard.append((name, bytes(payload), bool(first & RETAIN)))

    def until(self, there: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not there() and time.monotonic() < end:
            if self.client.loop(0.05) != paho.MQTT_ERR_SUCCESS:
                break
        return there()

    def subscribe(self, topic: str) -> str:
        """Empty, or why the broker refuses."""
        _, mid = self.client.subscribe(topic, 1)
        if mid is None or not self.until(lambda: mid in self.granted, WIRED):
            return "no answer"
        return str(self.granted[mid][0]).lower() if self.granted[mid][0].is_failure else ""

    def publish(self, topic: str, payload: bytes) -> str:
        """Empty, or why the broker refuses; 3.1.1 has no way to say so."""
        mid = self.client.publish(topic, payload, 1).mid
        if not self.until(lambda: mid in self.published, WIRED):
            return "no answer"
        return str(self.published[mid]).lower() if self.published[mid].is_failure else ""

    def comes_back(self, topic: str, payload: bytes) -> bool:
        return self.until(lambda: (topic, payload, False) in self.heard, LISTEN)

    def close(self) -> None:
        self.client.disconnect()
        self.until(lambda: False, 0.1)
        client = self.client
        client.on_connect = client.on_subscribe = client.on_publish = None
        client.on_batch = lambda _batch: None
