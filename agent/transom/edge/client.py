"""A paho client that receives and sends many packets at a time: log-in, TLS, keep-alive and other packets stay paho's.

It reaches into paho, so it is for the versions that it was tested with; `new` gives plain paho for any other.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt import __version__ as PAHO  # noqa: N812  # a constant
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode

from transom.edge import packets
from transom.edge.packets import MalformedError, Packet

# The versions of paho-mqtt whose inside is known, and where each keeps when it last heard of the broker.
TESTED = {"2.1.0": "_last_msg_in", "2.2.0": "_last_bytes_received"}
CHUNK = 256 << 10  # bytes of one read

OnBatch = Callable[[Sequence[Packet]], None]
OnHeard = Callable[[], None]
NOBODY = "transom/probe"  # a filter that nobody subscribes to


class Client(paho.Client):
    """Gives PUBLISH packets to `on_batch`, in the network thread; those of QoS 1 are not acknowledged. Calls `on_heard`
    before that, and for whatever else the broker sends.

    One of QoS 2 comes, as paho has it, once the broker has released it; two of those may be the same.
    """

    on_batch: OnBatch
    on_heard: OnHeard
    trouble: OSError | None = None  # with which the latest connection ended, if paho does not tell
    sender_property: str | None = None
    quick = True

    def _create_socket(self) -> Any:
        self._left, self._need, self._pushed = bytearray(), 0, b""  # of a connection before
        self.trouble = None
        return super()._create_socket()

    def _sock_recv(self, bufsize: int) -> bytes:
        if self._pushed:  # a packet that is paho's to read
            taken, self._pushed = self._pushed[:bufsize], self._pushed[bufsize:]
            return taken
        return super()._sock_recv(bufsize)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self.trouble = error
            try:  # with TLS 1.3 a broker refuses a certificate after the handshake: its reason waits to be read
                super()._sock_recv(1)
            except BlockingIOError:
                pass
            except OSError as reason:
                self.trouble = reason
            raise

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        """One read from the socket, and all packets that are complete with it."""
        del max_packets
        if self._sock is None:
            return MQTTErrorCode.MQTT_ERR_NO_CONN
        try:
            data = super()._sock_recv(CHUNK)
        except BlockingIOError:
            return MQTTErrorCode.MQTT_ERR_SUCCESS
        except OSError as error:
            data, self.trouble = b"", error
        if not data:
            self.trouble = self.trouble or ConnectionResetError("closed")
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_CONN_LOST)
        self.on_heard()
        with self._msgtime_mutex:
            setattr(self, TESTED[PAHO], time.monotonic())
        if self._left:
            self._left += data
            if len(self._left) < self._need:
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            data, self._left = bytes(self._left), bytearray()
        try:
            return self._take(data)
        except MalformedError:
            return self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)

    def _take(self, data: bytes) -> MQTTErrorCode:
        at, version5 = 0, self._protocol == paho.MQTTv5
        wanted = None if self.sender_property is None else self.sender_property.encode()
        while True:
            batch, at, length = packets.parse(data, at, version5, wanted)
            if batch:
                self.on_batch(batch)
            if not length or at + length > len(data):
                self._left, self._need = bytearray(data[at:]), length
                return MQTTErrorCode.MQTT_ERR_SUCCESS
            self._pushed = data[at : at + length]
            while self._pushed:
                code = self._packet_read()
                if code > 0:
                    return self._loop_rc_handle(code)
                if self._sock is None:
                    return MQTTErrorCode.MQTT_ERR_NO_CONN
            at += length

    def publish_many(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """QoS 0 and not retained, in few writes."""
        self._send(packets.publish(messages, self._protocol == paho.MQTTv5))

    def acknowledge(self, mids: Sequence[int]) -> None:
        self._send(packets.puback(mids))

    def probe(self) -> None:
        """Makes the broker say something."""
        self._send_pingreq()

    def _send(self, data: bytes) -> None:
        if data and self._sock is not None:
            # As a PUBACK: of what paho writes, the one after which it does nothing more.
            self._packet_queue(packets.PUBACK, data, 0, 0)

    def unwritten(self) -> int:
        """Bytes that wait for the socket."""
        return sum(p["to_process"] for p in self._out_packet.copy())


class PlainClient(paho.Client):
    """The same by paho's own means, a packet at a time, for versions of it that are not known."""

    on_batch: OnBatch
    on_heard: OnHeard
    trouble: OSError | None = None
    sender_property: str | None = None
    quick = False

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        self.on_heard()  # it is called when there is something to read
        return super().loop_read(max_packets)

    def publish_many(self, messages: Iterable[tuple[str, bytes]]) -> None:
        for topic, payload in messages:
            self.publish(topic, payload, 0)

    def acknowledge(self, mids: Sequence[int]) -> None:
        for mid in mids:
            self.ack(mid, 1)

    def probe(self) -> None:
        self.unsubscribe(NOBODY)

    def unwritten(self) -> int:
        return sum(p["to_process"] for p in self._out_packet.copy())


def _one(client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
    first = packets.PUBLISH | (packets.DUP if message.dup else 0) | message.qos << 1 | int(message.retain)
    assert isinstance(client, Client | PlainClient)
    pairs: list[tuple[str, str]] = getattr(message.properties, "UserProperty", []) if client.sender_property else []
    values = dict.fromkeys(value for name, value in pairs if name == client.sender_property)
    sender = ", ".join(values).encode() if values else None
    client.on_batch([(message._topic, bytes(message.payload), first, message.mid, sender)])


def _unheard() -> None:
    pass


def new(
    client_id: str, *, version5: bool, clean: bool | None, transport: Literal["tcp", "websockets"] = "tcp",
    quick: bool = PAHO in TESTED,
) -> Client | PlainClient:  # fmt: skip
    """clean: clean_session of 3.1.1; quick: whether to reach into paho, by itself only in versions that are known."""
    kind = Client if quick else PlainClient
    client = kind(
        CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5 if version5 else paho.MQTTv311,
        clean_session=clean, manual_ack=True, transport=transport,
    )  # fmt: skip
    client.on_message = _one
    client.on_heard = _unheard
    return client
