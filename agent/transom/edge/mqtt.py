"""The session with a broker: subscribe, receive into an inbox, acknowledge, publish. Nothing is decoded here.

Connects and reconnects in a thread of its own until closed; only that thread writes to the socket. Speaks MQTT 5, and
3.1.1 to a broker that refuses 5.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from ssl import SSLError

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from transom.dialects.plain import Publication
from transom.edge.certificates import Certificates
from transom.edge.client import Client, PlainClient
from transom.edge.hearing import Hearing
from transom.edge.inbox import Inbox, Token
from transom.edge.packets import Packet
from transom.edge.receiver import Receiver
from transom.edge.subscriptions import Subscribed, Subscriptions
from transom.edge.wire import WINDOW, WIRED, BrokerOptions, connect, new_client, plain_reason

log = logging.getLogger(__name__)

BACKOFF = 1.0  # seconds, the first pause
LONGEST = 30.0  # seconds, the longest pause
UNDECIDED = 2.0  # seconds for a broker that has never answered in MQTT 5
OLDER = "the broker speaks no MQTT 5"
RENEWED = "new certificates"
UNWRITTEN = 4 << 20  # bytes that may wait for the socket
SLOW = 0.25  # seconds that the run loop waits for it, at most
LAST_WORD = 0.6  # share of the time to close that the last publication may take
BRIEF, BRIEFS = 10.0, 3  # seconds of a session, and such sessions in a row, that make one think of a namesake
LOOK = 0.5  # seconds after which the network thread looks whether it should end


def _nothing(_batch: Sequence[Packet]) -> None:
    pass


class Connection:
    """The agent's session with the broker. `birth` is asked at each connect for what to publish first."""

    def __init__(
        self, options: BrokerOptions, *, filters: Sequence[str], inbox: Inbox, will: Publication | None = None,
        birth: Callable[[], Iterable[Publication]] = tuple, backoff: float = BACKOFF,
        subscribed: Subscribed | None = None, stored: Collection[str] = (),
    ) -> None:  # fmt: skip
        """subscribed: what the broker's session is known to hold, None when nobody knows: then all is asked for;
        stored: filters that are asked for once in any case, so that the broker sends what it has stored."""
        self.options, self._inbox, self._will, self._birth = options, inbox, will, birth
        self._receiver = Receiver(inbox)
        self._subscriptions = Subscriptions(filters, options.qos, subscribed, stored)
        self.hearing = Hearing()
        self._backoff = backoff
        self._version5 = options.protocol != "3.1.1"
        self.certificates = Certificates(options.tls)
        self._client = self._make()
        self._ready, self._closing = threading.Event(), threading.Event()
        self._receiving = True
        self._refusal: str | None = None
        self.problem = (
            ""  # why there is no connection, in plain words; empty while there is one, and before the first try
        )
        self._confirmed: deque[int] = deque()  # packet ids of publications that the broker has, or the socket took
        self._fleeting: set[int] = set()  # packet ids at QoS 0, which the socket has not taken
        self._counts = dict.fromkeys(("published", "dropped", "connects", "resumed", "errors"), 0)
        self._thread = threading.Thread(target=self._loop, name="transom-mqtt", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def connected(self) -> bool:
        return self._client.is_connected()

    @property
    def ready(self) -> bool:
        """Connected, and every filter is subscribed to or refused."""
        return self._ready.is_set() and self._subscriptions.settled and self._client.is_connected()

    def wait_ready(self, timeout: float) -> bool:
        """True once every filter is subscribed to."""
        return self._ready.wait(timeout)

    def counters(self) -> dict[str, int]:
        return {"received": self._receiver.received, "bad_topics": self._receiver.bad_topics, **self._counts}

    @property
    def subscribed(self) -> Subscribed | None:
        """What the broker's session is known to hold; None when nobody knows."""
        return self._subscriptions.held

    @property
    def refused(self) -> dict[str, str]:
        """Filters that the broker does not let us have, and why."""
        return self._subscriptions.refused

    @property
    def held_back(self) -> float:
        """How much of what the broker may send ahead of our acknowledgements it has sent: 0 to 1."""
        return self._receiver.held_back(WINDOW if self._version5 else None)

    # --- for the run loop ---------------------------------------------------------------------------------------------

    def publish(self, publication: Publication) -> int | None:
        """Hands a publication over; its packet id, or None (and counted as dropped) when it cannot go now."""
        topic, payload, qos, retain = publication
        try:
            if not self._client.is_connected():
                self._counts["dropped"] += 1
                return None
            info = self._client.publish(topic, payload, qos, retain)
        except ValueError as error:  # a topic that MQTT does not allow, or a payload over its limit
            self._counts["dropped"] += 1
            log.warning("cannot publish to %r: %s", topic[:80], error)
            return None
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self._counts["dropped"] += 1
            return None
        self._counts["published"] += 1
        if not qos:
            self._fleeting.add(info.mid)
        return info.mid

    def publish_many(self, publications: Sequence[Publication]) -> None:
        """Many at QoS 0 that are not retained; only while `can_publish`."""
        if not self._client.quick:
            for publication in publications:
                self.publish(publication)
            return
        self._client.publish_many([(topic, payload) for topic, payload, _, _ in publications])
        self._counts["published"] += len(publications)

    @property
    def can_publish(self) -> bool:
        """True while publications go out and do not pile up before the socket."""
        return self._client.is_connected() and self._client.unwritten() < UNWRITTEN

    def wait_writable(self) -> None:
        """Returns once few publications wait for the socket, or after a moment: who produces faster should wait."""
        end = time.monotonic() + SLOW
        while self._client.unwritten() > UNWRITTEN // 4 and time.monotonic() < end:
            time.sleep(0.002)

    def confirmed(self) -> list[int]:
        """Packet ids since the last call of publications that the broker has. The ids of those at QoS 0 are no answer
        of the broker, and there are only 65,535: one may be that of an alert which is still on its way."""
        mids = []
        for _ in range(len(self._confirmed)):
            mid = self._confirmed.popleft()
            if mid in self._fleeting:
                self._fleeting.discard(mid)
            else:
                mids.append(mid)
        return mids

    def acknowledge(self, tokens: Iterable[Token]) -> None:
        """Says to the broker that it may forget these messages; those of an earlier connection come again anyway."""
        mids = self._receiver.mine(tokens)
        if mids:
            self._client.acknowledge(mids)

    def watch(self, filters: Sequence[str]) -> None:
        """Other filters from now on: subscribes to the new ones, unsubscribes from those that are gone."""
        self._subscriptions.want(filters)
        if self._client.is_connected():
            self._subscribe(present=True)

    def stop_receiving(self) -> None:
        """What arrives from now on is left to the broker."""
        self._receiving = False

    def close(self, last: Publication | None = None, timeout: float = 2.0) -> None:
        """Publishes `last`, disconnects and ends the thread: all of it within `timeout` seconds, done or not."""
        self._receiving = False
        end = time.monotonic() + timeout
        if last is not None and self._client.is_connected():
            try:
                self._client.publish(*last).wait_for_publish(timeout * LAST_WORD)
            except (ValueError, RuntimeError) as error:
                log.warning("the last status could not be published: %s", error)
        self._closing.set()
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(max(0.0, end - time.monotonic()))
        self._birth = tuple
        client = self._client  # it knows us no more, so that it goes, and its sockets with it, when we do
        client.on_connect = client.on_disconnect = client.on_subscribe = client.on_publish = None
        client.on_batch = _nothing

    # --- the network thread -----------------------------------------------------------------------------------------

    def _make(self) -> Client | PlainClient:
        client = new_client(
            self.options, version5=self._version5, client_id=self.options.client_id, context=self.certificates.context
        )
        if self._will is not None:
            client.will_set(*self._will)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_batch = self._on_subscribe, self._on_batch
        client.on_publish, client.on_heard = self._on_publish, self.hearing.hear
        # paho would write from whichever thread publishes, and two that write at once mix their packets.
        client.on_socket_register_write = lambda *_: None
        client.suppress_exceptions = True  # an exception in a callback is logged by paho and must not end the loop
        client.enable_logger(logging.getLogger("transom.paho"))
        return client

    def _loop(self) -> None:
        pause, briefs = self._backoff, 0
        while not self._closing.is_set():
            begun = time.monotonic()
            problem = self._one_session()
            if problem == OLDER:  # ask again at once in the older language
                self._speak(version5=False)
                continue
            if problem == RENEWED:
                self._ready.clear()
                log.info("%s:%s: connecting anew with the new certificates", self.options.host, self.options.port)
                continue
            if self._ready.is_set():
                pause = self._backoff
            briefs = briefs + 1 if self._ready.is_set() and time.monotonic() - begun < BRIEF else 0
            if briefs >= BRIEFS:  # mosquitto ends the older of two with one id, and does not say why
                problem += (
                    f", {BRIEFS} times soon after it began: does another client use the id {self.options.client_id}?"
                )
                problem += " Give each agent an agent.id of its own"
            self._ready.clear()
            self.problem = problem
            wait = random.uniform(pause / 2, pause)  # jitter, so that a fleet does not return at once
            if not self._closing.is_set():
                log.warning("%s:%s: %s; trying again", self.options.host, self.options.port, problem)
                log.debug("next try in %.1f s", wait)
            pause = min(2 * pause, LONGEST)
            self.certificates.look()  # what has changed by now has settled when the pause ends
            self._closing.wait(wait)

    def _speak(self, *, version5: bool) -> None:
        self._version5 = version5
        self._client = self._make()
        log.info("%s:%s: trying MQTT %s", self.options.host, self.options.port, "5" if version5 else "3.1.1")

    def _one_session(self) -> str:
        """One connection from beginning to end; returns why it ended, in plain words, or OLDER."""
        self._refusal = None
        self.certificates.look()
        try:
            connect(self._client, self.options, version5=self._version5)
        except Exception as error:  # noqa: BLE001  # whatever a resolver, socket or TLS raises is told and tried again
            return plain_reason(error)
        undecided = self.options.protocol == "auto" and not self._counts["connects"]
        deadline = time.monotonic() + (UNDECIDED if undecided and self._version5 else WIRED)
        while True:
            try:
                if self._inbox.full and self._receiving and self.options.qos:
                    # Reading stops, and so does the broker when its window is full. Not in the callback: paho holds
                    # a lock there that writing needs.
                    code = self._write_only()
                else:
                    code = self._client.loop(self._look())
                    if self.hearing.should_ask() and self._client.is_connected():
                        self._client.probe()
            except Exception as error:  # noqa: BLE001  # paho raises for packets it cannot parse
                self._counts["errors"] += 1
                return plain_reason(error)
            self._receiver.nap()
            if code != paho.MQTT_ERR_SUCCESS:
                if isinstance(self._client.trouble, SSLError):
                    return plain_reason(self._client.trouble)
                return self._refusal or paho.error_string(code).lower().rstrip(".")
            if self.certificates.look() and self._client.is_connected():
                self._client.disconnect()  # not by an error: the session stays, and the last will is not sent
                while self._client.want_write() and self._client.loop_write() == paho.MQTT_ERR_SUCCESS:
                    pass
                return RENEWED
            if self._closing.is_set() and not self._client.is_connected():
                if self._client.want_write():  # acknowledgements, and the word that we go
                    self._client.loop_write()
                return "closed"
            if not self._client.is_connected() and time.monotonic() > deadline:
                self._client.disconnect()
                if undecided and self._version5:  # some brokers leave a CONNECT that they cannot read unanswered
                    return OLDER
                if undecided:
                    self._speak(version5=True)
                return "no answer to the log-in"

    def _look(self) -> float:
        patience = self.hearing.patience
        return LOOK if patience is None else min(LOOK, patience / 4)

    def _write_only(self) -> int:
        """What `loop` does, but for reading, until there is room in the inbox, for a moment at most."""
        end = time.monotonic() + LOOK
        while not self._inbox.wait_room(0.01) and time.monotonic() < end:
            if self._client.want_write():
                self._client.loop_write()
        return int(self._client.loop_misc())

    def _on_connect(
        self, client: paho.Client, _data: object, flags: paho.ConnectFlags, reason: ReasonCode, _props: object
    ) -> None:
        if reason.is_failure:
            name = str(reason)
            older = self._version5 and self.options.protocol == "auto" and name == "Unsupported protocol version"
            self._refusal = (
                OLDER if older else f"the broker refuses the log-in ({name.lower()}); check username and password"
            )
            return
        self._counts["connects"] += 1
        self.problem = ""
        self._receiver.begin()
        self._fleeting.clear()  # what was not written over the last connection never is
        for publication in self._birth():
            client.publish(*publication)
        present = bool(flags.session_present)
        self._counts["resumed"] += present
        if self._counts["connects"] > 1:
            kept = "with" if present else "without"
            log.info("%s:%s: connected again, %s the session", self.options.host, self.options.port, kept)
        self._subscribe(present=present)

    def _subscribe(self, *, present: bool) -> None:
        self._subscriptions.ask(self._client, present=present, version5=self._version5)
        self._settle()

    def _on_subscribe(
        self, _client: paho.Client, _data: object, mid: int, reasons: Sequence[ReasonCode], _props: object
    ) -> None:
        self._subscriptions.answered(mid, reasons)
        self._settle()

    def _settle(self) -> None:
        if self._subscriptions.settled:
            self._ready.set()
            self._inbox.wake()

    def _on_disconnect(
        self, _client: paho.Client, _data: object, _flags: object, reason: ReasonCode, _props: object
    ) -> None:
        self._receiver.end()
        if not self._closing.is_set() and self._refusal is None and reason.is_failure:
            self._refusal = f"connection lost ({str(reason).lower()})"

    def _on_publish(self, _client: paho.Client, _data: object, mid: int, _reason: object, _props: object) -> None:
        self._confirmed.append(mid)

    def _on_batch(self, batch: Sequence[Packet]) -> None:
        if not self._receiving:
            return
        refused = self._receiver.take(batch)
        if refused:
            self._client.acknowledge(refused)
        self._subscriptions.leave_strange(self._client, (topic for topic, *_ in batch))
