"""The caller's side of a remote call: one request to a running agent, and its answer. Keeps no connection."""

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from transom.edge.requests import RequestError, made
from transom.edge.wire import BrokerOptions, broker_options, connect, new_client, plain_reason
from transom.errors import BrokerError
from transom.settings import Settings

TIMEOUT = 5.0  # seconds


def ask(settings: Settings, verb: str, fields: Mapping[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
    """The answer, without its id. Raises RequestError where the agent refuses or nobody answers within `timeout`
    seconds, and BrokerError."""
    request_id = secrets.token_hex(8)
    payload = made(verb, dict(fields), request_id)
    options = replace(broker_options(settings), session=0)
    end = time.monotonic() + timeout
    answer = None
    versions = [True, False] if options.protocol == "auto" else [options.protocol == "5"]
    for version5 in versions:
        try:
            answer = _Call(options, settings.base, verb, request_id, payload, version5=version5).run(end, timeout)
            break
        except _OlderError:
            continue
    if answer is None:
        raise RequestError(f"{settings.base}/response/{verb}", f"no answer within {timeout:g} s", _why(settings, verb))
    answer.pop("id", None)
    error = answer.get("error")
    if error is not None:
        raise RequestError(*(str(error.get(key, "")) for key in ("place", "problem", "remedy")))
    return answer


def _why(settings: Settings, verb: str) -> str:
    verb = "mute" if verb == "unmute" else verb
    if verb not in settings.agent.remote:
        return f'is the agent running, and "{verb}" in its agent.remote? In this configuration it is not'
    return f"is the agent {settings.agent.id!r} running at {settings.broker.host}:{settings.broker.port}?"


class _OlderError(Exception):
    """The broker speaks no MQTT 5."""


class _Call:
    def __init__(
        self, options: BrokerOptions, base: str, verb: str, request_id: str, payload: bytes, *, version5: bool
    ) -> None:
        self._options, self._version5, self._id, self._payload = options, version5, request_id, payload
        self._request, self._response = f"{base}/request/{verb}", f"{base}/response/{verb}"
        self._refused: str | None = None
        self._answer: dict[str, Any] | None = None
        self._over = threading.Event()

    def run(self, end: float, timeout: float) -> dict[str, Any] | None:
        place = f"{self._options.host}:{self._options.port}"
        client = new_client(
            self._options, version5=self._version5, client_id=f"{self._options.client_id}-call-{self._id}"
        )
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_batch = self._on_batch
        self._expiry = max(1, round(timeout))
        try:
            connect(client, self._options, version5=self._version5)
            while not self._over.is_set() and time.monotonic() < end:
                if client.loop(min(0.1, max(0.0, end - time.monotonic()))) != paho.MQTT_ERR_SUCCESS:
                    break
        except (OSError, ValueError) as error:
            raise BrokerError(place, plain_reason(error)) from None
        finally:
            client.disconnect()
        if self._refused == "Unsupported protocol version":
            raise _OlderError
        if self._refused is not None:
            raise BrokerError(place, f"the broker refuses ({self._refused.lower()})", "check username and access rules")
        return self._answer

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: Any, _props: object) -> None:
        if reason.is_failure:
            self._refused = str(reason)
            self._over.set()
        else:
            client.subscribe(self._response, 1)

    def _on_subscribe(self, client: paho.Client, _data: object, _mid: int, reasons: Any, _props: object) -> None:
        if reasons and reasons[0].is_failure:
            self._refused = f"the subscription to {self._response}: {reasons[0]}"
            self._over.set()
            return
        asked = None
        if self._version5:  # an agent that is away must not do tomorrow what is asked today
            asked = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            asked.MessageExpiryInterval = self._expiry
        client.publish(self._request, self._payload, 1, properties=asked)

    def _on_batch(self, batch: Any) -> None:
        for _topic, payload, *_ in batch:
            try:
                answer = msgspec.json.decode(payload, type=dict[str, Any])
            except msgspec.DecodeError:
                continue  # another caller's, or no answer of an agent
            if answer.get("id") == self._id:
                self._answer = answer
                self._over.set()
