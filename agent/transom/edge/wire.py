"""How to reach and log in to a broker: options, TLS, a paho client, and in plain words why it fails.

Keeps no connection; check_connection makes one and ends it.
"""

import os
import socket
import ssl
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from transom.edge.client import Client, PlainClient, new
from transom.edge.tls import Changeable, TlsOptions, make_context, tls_reason
from transom.errors import BrokerError
from transom.settings import Settings
from transom.settings.options import TlsSettings

WIRED = 10.0  # seconds that connecting and the broker's answer may take
WINDOW = 5000  # QoS 1 messages that the broker may send ahead of our acknowledgements (MQTT 5: Receive Maximum)


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How to reach and log in to a broker. keepalive, session: seconds; session: how long the broker
    keeps what it could not deliver, 0 for a new session with each connection."""

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    qos: int = 1
    username: str | None = None
    password: str | None = None
    client_id: str = "transom"
    keepalive: int = 60
    session: int = 0
    tls: TlsOptions | None = None
    transport: Literal["tcp", "websockets"] = "tcp"
    path: str = "/mqtt"
    sender_property: str | None = None

    def __repr__(self) -> str:
        return f"BrokerOptions({self.host}:{self.port})"  # no password in any log


def broker_options(settings: Settings) -> BrokerOptions:
    """What the connection needs of the settings; a password file has been read when they were."""
    b = settings.broker
    password = b.password.get_secret_value() if b.password else None
    tls = tls_options(b.tls) if b.tls.enabled else None
    return BrokerOptions(
        b.host, b.port, b.protocol, min(b.qos, 1), b.username, password, b.client_id or f"transom-{settings.agent.id}",
        max(1, b.keepalive // 1000), b.session // 1000, tls, b.transport, b.path, b.sender_property,
    )  # fmt: skip


def tls_options(t: TlsSettings) -> TlsOptions:
    return TlsOptions(t.ca_file, t.cert_file, t.key_file, t.insecure, t.key_password_file, t.alpn)


def new_client(
    options: BrokerOptions, *, version5: bool, client_id: str, context: Changeable | None = None
) -> Client | PlainClient:
    """A paho client with login and TLS set. context: made of the options if None. Raises BrokerError for files that
    cannot be used."""
    # 3.1.1 takes clean_session here; MQTT 5 says it when connecting.
    client = new(
        client_id, version5=version5, clean=None if version5 else not options.session, transport=options.transport
    )
    client.sender_property = options.sender_property if version5 else None
    if options.transport == "websockets":
        client.ws_set_options(path=options.path)
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    if options.tls is not None:
        tls: Any = context or Changeable(make_context(options.tls))  # no SSLContext: paho only wraps sockets with it
        client.tls_set_context(tls)
    client.max_inflight_messages_set(1000)
    client.connect_timeout = WIRED
    client.on_socket_open = _no_delay
    return client


def connect(client: paho.Client, options: BrokerOptions, *, version5: bool) -> None:
    """Opens the connection; the log-in's answer comes later. Raises what a resolver, socket or TLS raises."""
    # With a session wanted never clean: mosquitto 2.0 does not bring back after a restart of its own what began
    # with clean_start, and a clean start throws away what waits for us.
    if not version5:
        client.connect(options.host, options.port, options.keepalive)
        return
    asked = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    asked.ReceiveMaximum = WINDOW
    asked.SessionExpiryInterval = options.session
    client.connect(options.host, options.port, options.keepalive, clean_start=not options.session, properties=asked)


def _no_delay(_client: paho.Client, _data: object, sock: Any) -> None:
    with socket.socket(fileno=os.dup(sock.fileno())) as raw:  # what paho has for websockets is no socket
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 10.7 ms -> 1.1 ms at 100 messages a second


def plain_reason(error: BaseException) -> str:
    """What went wrong, for a person who runs a broker."""
    if isinstance(error, ssl.SSLError):
        return tls_reason(error)
    if isinstance(error, socket.gaierror):
        return f"the name is not known ({error.strerror}); check broker.host and DNS"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; check broker.port and that the broker runs"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "the broker closes the connection; does this port want TLS, or no TLS?"
    if isinstance(error, TimeoutError):
        return "no answer; check the address and the firewall"
    return f"{error.strerror or error}" if isinstance(error, OSError) else f"{type(error).__name__}: {error}"


def check_connection(settings: Settings) -> str:
    """Logs in once and says how. Raises BrokerError with the reason and a remedy."""
    options = broker_options(settings)
    place = f"{options.host}:{options.port}"
    versions = [True, False] if options.protocol == "auto" else [options.protocol == "5"]
    refusal, remedy = "no answer", ""
    for version5 in versions:
        client = new_client(replace(options, session=0), version5=version5, client_id=f"{options.client_id}-check")
        answer: list[ReasonCode] = []
        client.on_connect = lambda _c, _d, _f, reason, _p, answer=answer: answer.append(reason)
        try:
            client.connect(options.host, options.port, options.keepalive)
            deadline = time.monotonic() + WIRED
            while not answer and time.monotonic() < deadline and client.loop(0.5) == paho.MQTT_ERR_SUCCESS:
                pass
        except (OSError, ValueError) as error:
            raise BrokerError(place, plain_reason(error)) from None
        client.disconnect()
        if answer and not answer[0].is_failure:
            return f"connected to {place} by MQTT {'5' if version5 else '3.1.1'} as {options.client_id}"
        if not answer:
            refusal, remedy = (plain_reason(client.trouble) if client.trouble else "the broker does not answer"), ""
        else:
            refusal = f"the broker refuses the log-in ({str(answer[0]).lower()})"
            remedy = "check broker.username and broker.password_file"
        if answer and str(answer[0]) != "Unsupported protocol version":
            break
    raise BrokerError(place, refusal, remedy)
