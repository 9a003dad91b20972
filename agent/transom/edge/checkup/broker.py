"""The broker: reachable, keeps a session, lets the agent read and write what it needs, holds leftovers of a former id.

Logs in beside a running agent, under a client id of its own. Publishes to BASE/doctor and BASE/<stream>/doctor, not
retained; subscribes to what the agent would. What it asked the broker to keep it takes back.
"""

import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode

from transom.core.topics import Pattern
from transom.edge.checkup import Finding
from transom.edge.checkup.mosquitto import mosquitto_findings
from transom.edge.client import Client, PlainClient
from transom.edge.wire import WIRED, BrokerOptions, broker_options, check_connection, connect, new_client
from transom.errors import BrokerError
from transom.settings import Settings

LISTEN = 2.0  # seconds for which retained messages and readings are waited for
KEEP = 60  # seconds that the broker is asked to keep the trial's session
RETAIN = 1  # the bit of a PUBLISH packet's first byte
OWN = frozenset(("status", "info", "health", "request", "response", "models", "update", "doctor"))


def findings(settings: Settings) -> Iterator[Finding]:
    """In the order in which they should be mended; after a log-in that fails there is nothing else to see."""
    broker = settings.broker
    try:
        greeting = check_connection(settings)
    except BrokerError as error:
        yield Finding(str(error), "no reading arrives and no alert leaves", _login_mend(error, settings))
        yield from mosquitto_findings(broker.host)
        return
    options = replace(broker_options(settings), client_id=f"{broker.client_id}-doctor")
    version5 = "MQTT 5" in greeting
    try:
        rights, readable = _rights(settings, replace(options, session=0), version5=version5)
        yield from rights
        if options.qos and options.session:
            yield from _session(options, f"{settings.base}/doctor" if readable else "", version5=version5)
    except (OSError, BrokerError) as error:
        yield Finding(
            f"the broker ends the trial: {error}",
            "the agent would be cut off too",
            f"transom check -c {settings.config} --connect",
        )
    yield from mosquitto_findings(broker.host)


def _login_mend(error: BrokerError, settings: Settings) -> str:
    broker, text = settings.broker, str(error)
    if "nothing listens" in text and broker.host in ("127.0.0.1", "::1", "localhost"):
        return "sudo apt install mosquitto && sudo systemctl enable --now mosquitto"
    if "certificate" in text or "TLS" in text:
        return f"openssl s_client -connect {broker.host}:{broker.port} </dev/null   (shows the broker's certificate)"
    if "refuses the log-in" in text:
        who = broker.username or "NAME"
        return f"sudo mosquitto_passwd /etc/mosquitto/passwd {who}   (at the broker; the same in broker.password_file)"
    return f"ping -c 3 {broker.host}; then broker.host and broker.port in {settings.config or 'the configuration'}"


class _Trial:
    """A connection that is driven by whoever waits. heard: (topic, payload, retained)."""

    def __init__(self, options: BrokerOptions, *, version5: bool) -> None:
        self.heard: list[tuple[str, bytes, bool]] = []
        self.granted: dict[int, Sequence[ReasonCode]] = {}
        self.published: dict[int, ReasonCode] = {}
        self.present = False
        self._answer: ReasonCode | None = None
        client: Client | PlainClient = new_client(options, version5=version5, client_id=options.client_id)
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
        self.client.acknowledge([mid for _, _, first, mid in batch if first & 6])
        for topic, payload, first, _ in batch:
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


def _session(options: BrokerOptions, topic: str, *, version5: bool) -> Iterator[Finding]:
    """topic: where a message is left for a client that is away; empty where we may not write or read."""
    kept = replace(options, session=KEEP, client_id=f"{options.client_id}-session")
    first = _Trial(kept, version5=version5)
    first.subscribe(topic or "transom/doctor/session")
    first.close()
    other, token = _Trial(replace(options, session=0), version5=version5), str(time.time_ns()).encode()
    if topic:
        other.publish(topic, token)
    other.close()
    second = _Trial(kept, version5=version5)
    there = second.present and (not topic or second.comes_back(topic, token))
    second.close()
    _Trial(replace(kept, session=0), version5=version5).close()  # the broker need not keep it
    if not there:
        yield Finding(
            "the broker keeps no session",
            "readings that come while the agent restarts or the link is down are lost",
            "use a broker with persistent sessions; some give them only to clients that log in: set broker.username",
        )


def _rights(settings: Settings, options: BrokerOptions, *, version5: bool) -> tuple[list[Finding], bool]:
    """What is forbidden, and whether what is published to BASE/doctor can be read there: the agent need not."""
    found: list[Finding] = []
    base, token = settings.base, str(time.time_ns()).encode()
    user = settings.broker.username or "anonymous"
    trial = _Trial(options, version5=version5)
    filters = {name: Pattern.parse(s.topic).filter for name, s in settings.streams.items()}
    for name, topic in filters.items():
        if refusal := trial.subscribe(topic):
            what = f"streams.{name}: may not subscribe to {topic} ({refusal})"
            found.append(Finding(what, "the stream gets no reading", _acl(user, "read", topic)))
    blind = trial.subscribe(f"{base}/#")
    trial.subscribe("transom/+/info")
    trial.subscribe("transom/+/status")
    for topic in (f"{base}/doctor", *(f"{base}/{name}/doctor" for name in filters)):
        refusal = trial.publish(topic, token)
        silent = not refusal and not version5 and not blind and not trial.comes_back(topic, token)
        if refusal or silent:
            what = f"may not publish under {topic.removesuffix('doctor')} ({refusal})"
            if silent:  # 3.1.1 has no way to refuse
                what = f"may not publish under {topic.removesuffix('doctor')}, or not read there"
            why = "predictions and alerts are thrown away by the broker"
            found.append(Finding(what, why, _acl(user, "write", f"{base}/#"), note=silent))
            break
    trial.until(lambda: False, LISTEN)
    trial.close()
    found += leftover_findings(trial.heard, settings)
    unheard = [n for n, f in filters.items() if not any(paho.topic_matches_sub(f, t) for t, _, _ in trial.heard)]
    if unheard:
        what = (
            f"nothing was heard within {LISTEN:.0f} s for {', '.join(f'streams.{n} ({filters[n]})' for n in unheard)}"
        )
        why = "slow sensors, a wrong topic, or an ACL that forbids reading it, which mosquitto does not say"
        mend = f"mosquitto_sub -h {settings.broker.host} -p {settings.broker.port} -t '{filters[unheard[0]]}' -v"
        found.append(Finding(what, why, mend, note=True))
    return found, (f"{base}/doctor", token, False) in trial.heard


def _acl(user: str, right: str, topic: str) -> str:
    who = "" if user == "anonymous" else f"user {user}, "
    return f"in the broker's acl_file: {who}topic {right} {topic}; then: sudo systemctl reload mosquitto"


def leftover_findings(heard: Sequence[tuple[str, bytes, bool]], settings: Settings) -> Iterator[Finding]:
    """Retained messages of an agent that this machine was before, and of streams that are gone. heard: (topic, payload,
    retained)."""
    kept = {topic: payload for topic, payload, retained in heard if retained and payload}
    at = f"-h {settings.broker.host} -p {settings.broker.port}"
    for topic, payload in sorted(kept.items()):
        parts = topic.split("/")
        if len(parts) == 3 and parts[2] == "info" and parts[1] != settings.agent.id:
            state = _value(kept.get(f"transom/{parts[1]}/status", b""), "state")
            if state != "online" and _value(payload, "host", "name") == platform.node():
                yield _leftover(
                    f"retained messages of a former id of this machine, {parts[1]}", f"transom/{parts[1]}", at
                )
    known = OWN | set(settings.streams)
    base = f"{settings.base}/"
    gone = sorted({t.removeprefix(base).split("/")[0] for t in kept if t.startswith(base)} - known)
    for name in gone:
        yield _leftover(f"retained messages of a stream that is gone, {name}", f"{settings.base}/{name}", at)


def _leftover(what: str, topic: str, at: str) -> Finding:
    return Finding(
        what,
        "dashboards go on showing its alerts and states",
        f"mosquitto_sub {at} -t '{topic}/#' --retained-only -F %t -W 2 | xargs -I{{}} mosquitto_pub {at} -t {{}} -r -n",
    )


def _value(payload: bytes, *keys: str) -> object:
    try:
        found = json.loads(payload)
    except ValueError:
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found
