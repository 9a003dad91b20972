"""The broker: reachable, keeps a session, lets the agent read and write what it needs, holds leftovers of a former id.

Logs in beside a running agent, under a client id of its own. Publishes to BASE/doctor and BASE/<stream>/doctor, not
retained; subscribes to what the agent would. What it asked the broker to keep it takes back.
"""

import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from transom.edge.checkup import Finding
from transom.edge.checkup.certificates import certificate_findings, ending
from transom.edge.checkup.mosquitto import mosquitto_findings
from transom.edge.checkup.rights import try_rights
from transom.edge.checkup.trial import Trial
from transom.edge.wire import BrokerOptions, broker_options, check_connection
from transom.errors import BrokerError
from transom.settings import Settings

KEEP = 60  # seconds that the broker is asked to keep the trial's session
OWN = frozenset(("status", "info", "health", "request", "response", "models", "update", "doctor"))


def findings(settings: Settings) -> Iterator[Finding]:
    """In the order in which they should be mended; after a log-in that fails there is nothing else to see."""
    broker = settings.broker
    yield from certificate_findings(settings)
    try:
        greeting = check_connection(settings)
    except BrokerError as error:
        yield Finding(str(error), "no reading arrives and no alert leaves", _login_mend(error, settings))
        yield from mosquitto_findings(broker.host)
        return
    options = replace(broker_options(settings), client_id=f"{broker.client_id}-doctor")
    version5 = "MQTT 5" in greeting
    try:
        tried = try_rights(settings, replace(options, session=0), version5=version5)
        yield from tried.findings
        yield from ending({} if tried.broker_until is None else {"broker": tried.broker_until})
        yield from leftover_findings(tried.heard, settings)
        if options.qos and options.session:
            yield from _session(options, f"{settings.base}/doctor" if tried.readable else "", version5=version5)
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
    if "our certificate" in text:
        return f"openssl x509 -in {broker.tls.cert_file} -noout -subject -issuer -dates   (shows ours)"
    if "certificate" in text or "TLS" in text:
        return f"openssl s_client -connect {broker.host}:{broker.port} </dev/null   (shows the broker's certificate)"
    if "refuses the log-in" in text:
        who = broker.username or "NAME"
        return f"sudo mosquitto_passwd /etc/mosquitto/passwd {who}   (at the broker; the same in broker.password_file)"
    return f"ping -c 3 {broker.host}; then broker.host and broker.port in {settings.config or 'the configuration'}"


def _session(options: BrokerOptions, topic: str, *, version5: bool) -> Iterator[Finding]:
    """topic: where a message is left for a client that is away; empty where we may not write or read."""
    kept = replace(options, session=KEEP, client_id=f"{options.client_id}-session")
    first = Trial(kept, version5=version5)
    first.subscribe(topic or "transom/doctor/session")
    first.close()
    other, token = Trial(replace(options, session=0), version5=version5), str(time.time_ns()).encode()
    if topic:
        other.publish(topic, token)
    other.close()
    second = Trial(kept, version5=version5)
    there = second.present and (not topic or second.comes_back(topic, token))
    second.close()
    Trial(replace(kept, session=0), version5=version5).close()  # the broker need not keep it
    if not there:
        yield Finding(
            "the broker keeps no session",
            "readings that come while the agent restarts or the link is down are lost",
            "use a broker with persistent sessions; some give them only to clients that log in: set broker.username",
        )


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
