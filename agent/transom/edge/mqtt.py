"""paho: session, TLS, subscribe, publish. Messages go to an inbox; publications go out; nothing is decoded here.

Connects and reconnects in a thread of its own until closed; speaks MQTT 5, and 3.1.1 to a broker that refuses 5.
"""

import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from transom.core.pipeline import Message
from transom.dialects.plain import Publication
from transom.edge.inbox import Inbox
from transom.errors import BrokerError
from transom.settings import Settings

log = logging.getLogger(__name__)

BACKOFF = 1.0  # seconds, the first pause
LONGEST = 30.0  # seconds, the longest pause
QUEUED = 10_000  # QoS 1 publications that may wait for a broker
REPEAT = 60.0  # seconds in which the same trouble is logged once
UNDECIDED = 2.0  # seconds for a broker that has never answered in MQTT 5
OLDER = "the broker speaks no MQTT 5"
WIRED = 10.0  # seconds that connecting and the broker's answer may take


@dataclass(frozen=True, slots=True)
class TlsOptions:
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How to reach and log in to a broker. keepalive: seconds."""

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    qos: int = 1
    username: str | None = None
    password: str | None = None
    client_id: str = "transom"
    keepalive: int = 60
    tls: TlsOptions | None = None

    def __repr__(self) -> str:
        return f"BrokerOptions({self.host}:{self.port})"  # no password in any log


def broker_options(settings: Settings) -> BrokerOptions:
    """What the connection needs of the settings; a password file has been read when they were."""
    b = settings.broker
    password = b.password.get_secret_value() if b.password else None
    tls = TlsOptions(b.tls.ca_file, b.tls.cert_file, b.tls.key_file, b.tls.insecure) if b.tls.enabled else None
    return BrokerOptions(
        b.host, b.port, b.protocol, b.qos, b.username, password, b.client_id or f"transom-{settings.agent.id}",
        max(1, b.keepalive // 1000), tls,
    )  # fmt: skip


def new_client(options: BrokerOptions, *, version5: bool, client_id: str) -> paho.Client:
    """A paho client with login and TLS set. Raises BrokerError for files that cannot be used."""
    protocol = paho.MQTTv5 if version5 else paho.MQTTv311
    # paho takes clean_session for 3.1.1 only; MQTT 5 says it when connecting.
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id, protocol=protocol, clean_session=None if version5 else True
    )
    if options.username is not None:
        client.username_pw_set(options.username, options.password)
    if options.tls is not None:
        client.tls_set_context(_tls_context(options.tls))
        if options.tls.insecure:
            client.tls_insecure_set(True)
    client.max_queued_messages_set(QUEUED)
    client.connect_timeout = WIRED
    client.on_socket_open = _no_delay
    return client


def _tls_context(tls: TlsOptions) -> ssl.SSLContext:
    for key, path in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file)):
        if path is not None and not path.is_file():
            raise BrokerError(f"broker.tls.{key}", f"{path} is no file", "check the path")
    try:
        context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.insecure:
            context.check_hostname = False
        if tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except (ssl.SSLError, OSError) as error:
        raise BrokerError("broker.tls", f"certificates cannot be used ({error})", "they must be PEM files") from None
    return context


def _no_delay(_client: paho.Client, _data: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # 10.7 ms -> 1.1 ms at 100 messages a second


class Connection:
    """The agent's session with the broker. `birth` is asked at each connect for what to publish first."""

    def __init__(
        self, options: BrokerOptions, *, filters: Sequence[str], inbox: Inbox, will: Publication | None = None,
        birth: Callable[[], Iterable[Publication]] = tuple, backoff: float = BACKOFF,
    ) -> None:  # fmt: skip
        self.options, self._filters, self._inbox, self._will, self._birth = options, list(filters), inbox, will, birth
        self._backoff = backoff
        self._version5 = options.protocol != "3.1.1"
        self._client = self._make()
        self._ready, self._closing, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._receiving = True
        self._refusal: str | None = None
        self._pending: dict[int, list[str]] = {}
        self._told: dict[str, tuple[float, int]] = {}
        self._counts = dict.fromkeys(("received", "published", "dropped", "connects", "bad_topics", "errors"), 0)
        self._thread = threading.Thread(target=self._loop, name="transom-mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    def wait_ready(self, timeout: float) -> bool:
        """True once every filter is subscribed to."""
        return self._ready.wait(timeout)

    def counters(self) -> dict[str, int]:
        return dict(self._counts)

    def publish(self, publications: Iterable[Publication]) -> int:
        """Hands publications over; QoS 0 is dropped and counted while there is no connection. Returns how many went."""
        sent = 0
        for topic, payload, qos, retain in publications:
            try:
                if qos == 0 and not self._client.is_connected():
                    self._counts["dropped"] += 1
                    continue
                if self._client.publish(topic, payload, qos, retain).rc in (
                    paho.MQTT_ERR_SUCCESS,
                    paho.MQTT_ERR_NO_CONN,
                ):
                    sent += 1
                else:
                    self._counts["dropped"] += 1
            except ValueError as error:  # a topic that MQTT does not allow, or a payload over its limit
                self._counts["dropped"] += 1
                self._trouble("publish", f"cannot publish to {topic[:80]!r}: {error}")
        self._counts["published"] += sent
        return sent

    def stop_receiving(self) -> None:
        """What arrives from now on is left to the broker."""
        self._receiving = False

    def close(self, last: Publication | None = None, timeout: float = 2.0) -> None:
        """Publishes `last`, waits for it at most `timeout` seconds, disconnects and ends the thread."""
        if last is not None and self._client.is_connected():
            info = self._client.publish(*last)
            try:
                info.wait_for_publish(timeout)
            except (ValueError, RuntimeError) as error:
                log.warning("the last status could not be published: %s", error)
        self._closing.set()
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(2.0)

    # --- the network thread -----------------------------------------------------------------------------------------

    def _make(self) -> paho.Client:
        client = new_client(self.options, version5=self._version5, client_id=self.options.client_id)
        if self._will is not None:
            client.will_set(*self._will)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        client.suppress_exceptions = True  # an exception in a callback is logged by paho and must not end the loop
        client.enable_logger(logging.getLogger("transom.paho"))
        return client

    def _loop(self) -> None:
        pause = self._backoff
        while not self._closing.is_set():
            problem = self._session()
            if problem == OLDER:  # ask again at once in the older language
                self._speak(version5=False)
                continue
            if self._ready.is_set():
                pause = self._backoff
            self._ready.clear()
            wait = random.uniform(pause / 2, pause)  # jitter, so that a fleet does not return at once
            if not self._closing.is_set():
                self._trouble(
                    "connect", f"{self.options.host}:{self.options.port}: {problem}; next try in {wait:.1f} s"
                )
            pause = min(2 * pause, LONGEST)
            self._closing.wait(wait)
        self._ended.set()

    def _speak(self, *, version5: bool) -> None:
        self._version5 = version5
        self._client = self._make()
        log.info("%s:%s: trying MQTT %s", self.options.host, self.options.port, "5" if version5 else "3.1.1")

    def _session(self) -> str:
        """One connection from beginning to end; returns why it ended, in plain words, or OLDER."""
        self._refusal = None
        try:
            if self._version5:
                self._client.connect(self.options.host, self.options.port, self.options.keepalive, clean_start=True)
            else:
                self._client.connect(self.options.host, self.options.port, self.options.keepalive)
        except Exception as error:  # noqa: BLE001  # whatever a resolver, socket or TLS raises is told and tried again
            return plain_reason(error)
        undecided = self.options.protocol == "auto" and not self._counts["connects"]
        deadline = time.monotonic() + (UNDECIDED if undecided and self._version5 else WIRED)
        while True:
            try:
                code = self._client.loop(0.5)
            except Exception as error:  # noqa: BLE001  # paho raises for packets it cannot parse
                self._counts["errors"] += 1
                return plain_reason(error)
            if code != paho.MQTT_ERR_SUCCESS:
                return self._refusal or paho.error_string(code).lower().rstrip(".")
            if self._closing.is_set() and not self._client.is_connected():
                return "closed"
            if not self._client.is_connected() and time.monotonic() > deadline:
                self._client.disconnect()
                if undecided and self._version5:  # some brokers leave a CONNECT that they cannot read unanswered
                    return OLDER
                if undecided:
                    self._speak(version5=True)
                return "no answer to the log-in"

    def _on_connect(
        self, client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _props: object
    ) -> None:
        if reason.is_failure:
            name = str(reason)
            older = self._version5 and self.options.protocol == "auto" and name == "Unsupported protocol version"
            self._refusal = (
                OLDER if older else f"the broker refuses the log-in ({name.lower()}); check username and password"
            )
            return
        self._counts["connects"] += 1
        self._pending.clear()
        self.publish(self._birth())
        for name in self._filters:
            _, mid = client.subscribe(name, self.options.qos)
            if mid is not None:
                self._pending[mid] = [name]
        if not self._filters:
            self._ready.set()

    def _on_subscribe(
        self, _client: paho.Client, _data: object, mid: int, reasons: Sequence[ReasonCode], _props: object
    ) -> None:
        names = self._pending.pop(mid, [])
        for reason in reasons:
            if reason.is_failure:
                log.error("the broker refuses the subscription to %s: %s", ", ".join(names), reason)
        if not self._pending:
            self._ready.set()

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _props: object
    ) -> None:
        if not self._closing.is_set() and self._refusal is None and reason.is_failure:
            self._refusal = f"connection lost ({str(reason).lower()})"

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        if not self._receiving:
            return
        try:
            topic = message.topic
        except UnicodeDecodeError:
            self._counts["bad_topics"] += 1
            return
        self._counts["received"] += 1
        self._inbox.put(Message(topic, bytes(message.payload), time.time_ns() // 1_000_000, message.dup))

    def _trouble(self, kind: str, text: str) -> None:
        """The same trouble is logged once a minute, with how often it came."""
        reason = text.partition("; next")[0]
        since, times = self._told.get(reason, (float("-inf"), 0))
        now = time.monotonic()
        if now - since < REPEAT:
            self._told[reason] = (since, times + 1)
            return
        self._told = {reason: (now, 0)} if kind == "connect" else self._told | {reason: (now, 0)}
        log.warning("%s%s", text, f" ({times} more times since)" if times else "")


def plain_reason(error: BaseException) -> str:
    """What went wrong, for a person who runs a broker."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the broker's certificate is not accepted ({error.verify_message}); check broker.tls.ca_file and the name"
        )
    if isinstance(error, ssl.SSLError):
        return f"TLS fails ({error.reason or error}); is this the TLS port?"
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
    refusal = "no answer"
    for version5 in versions:
        client = new_client(options, version5=version5, client_id=f"{options.client_id}-check")
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
        refusal = (
            f"the broker refuses the log-in ({str(answer[0]).lower()})" if answer else "the broker does not answer"
        )
        if answer and str(answer[0]) != "Unsupported protocol version":
            break
    raise BrokerError(place, refusal, "check broker.username and broker.password_file")
