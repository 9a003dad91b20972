"""What the broker lets the agent read and write, each right by trying it, and the rule to add for one that lacks.

mosquitto 2.0 grants every subscription and sends nothing of what may not be read, so a right to read shows only where
the agent may also write, or something is sent. MQTT 3.1.1 has no way to refuse a publication.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import paho.mqtt.client as paho

from transom.core.topics import Pattern
from transom.dialects.homeassistant import Place
from transom.edge.checkup import Finding, trial
from transom.edge.checkup.trial import Trial
from transom.edge.wire import BrokerOptions
from transom.settings import Settings


class Tried(NamedTuple):
    """heard: (topic, payload, retained); readable: whether what is published to BASE/doctor can be read there, which
    the agent does not need. broker_until: when the certificate of the broker ends, s since 1970, None without TLS."""

    findings: list[Finding]
    heard: list[tuple[str, bytes, bool]]
    readable: bool
    broker_until: float | None


def try_rights(settings: Settings, options: BrokerOptions, *, version5: bool) -> Tried:
    """Raises OSError and BrokerError for a connection that fails."""
    one, token = Trial(options, version5=version5), str(time.time_ns()).encode()
    until = one.tls.broker_until() if one.tls is not None else None
    try:
        filters = {name: Pattern.parse(s.topic).filter for name, s in settings.streams.items()}
        found = [*_streams(one, settings, filters), *_own(one, settings, list(filters), token, version5=version5)]
        if not any(f.what.startswith("may not publish") for f in found):
            found += _requests(one, settings, token)
        found += _homeassistant(one, settings)
        one.until(lambda: False, trial.LISTEN)
        found += _unheard(one, settings, filters)
    finally:
        one.close()
    return Tried(found, one.heard, (f"{settings.base}/doctor", token, False) in one.heard, until)


def _streams(one: Trial, settings: Settings, filters: dict[str, str]) -> Iterator[Finding]:
    for name, topic in filters.items():
        if refusal := one.subscribe(topic):
            what = f"streams.{name}: may not subscribe to {topic} ({refusal})"
            yield Finding(what, "the stream gets no reading", rule(settings, "read", topic))


def _own(one: Trial, settings: Settings, streams: list[str], token: bytes, *, version5: bool) -> Iterator[Finding]:
    base = settings.base
    blind = one.subscribe(f"{base}/#")
    one.subscribe("transom/+/info")
    one.subscribe("transom/+/status")
    for topic in (f"{base}/doctor", *(f"{base}/{name}/doctor" for name in streams)):
        refusal = one.publish(topic, token)
        silent = not refusal and not version5 and not blind and not one.comes_back(topic, token)
        if refusal or silent:
            what = f"may not publish under {topic.removesuffix('doctor')} ({refusal})"
            if silent:
                what = f"may not publish under {topic.removesuffix('doctor')}, or not read there"
            why = "predictions and alerts are thrown away by the broker"
            yield Finding(what, why, rule(settings, "write", f"{base}/#"), note=silent)
            return


def _requests(one: Trial, settings: Settings, token: bytes) -> Iterator[Finding]:
    """A call that no agent knows is published as the agent may do below its own base; it should come back."""
    if not settings.agent.remote:
        return
    topics, why = f"{settings.base}/request", "remote calls are not answered"
    if refusal := one.subscribe(f"{topics}/+"):
        yield Finding(f"may not subscribe to {topics}/+ ({refusal})", why, rule(settings, "read", f"{topics}/#"))
    elif not one.publish(f"{topics}/doctor", token) and not one.comes_back(f"{topics}/doctor", token):
        yield Finding(f"may not read {topics}/#", why, rule(settings, "read", f"{topics}/#"))


def _homeassistant(one: Trial, settings: Settings) -> Iterator[Finding]:
    if not settings.homeassistant.enabled:
        return
    place = Place(settings.homeassistant.prefix, settings.agent.id, settings.base, settings.agent.health_every / 1000)
    mine, probe = f"{place.topic('').partition('//')[0]}/#", place.topic("doctor")
    one.subscribe(place.status)
    one.subscribe(place.configs)
    if refusal := one.publish(probe, b""):  # an empty one removes a device, and nobody has announced this
        what = f"may not publish under {mine} ({refusal})"
        yield Finding(what, "Home Assistant learns nothing of the agent", rule(settings, "readwrite", mine))
    elif not one.comes_back(probe, b""):
        what = f"may not read {mine}" + ("" if one.version5 else ", or not publish there")
        yield Finding(what, "devices that are gone stay in Home Assistant", rule(settings, "readwrite", mine))
    if not any(topic == place.status for topic, _, _ in one.heard):
        yield Finding(
            f"nothing was heard on {place.status}: Home Assistant stores nothing there, or it may not be read",
            "when Home Assistant is started again, its entities of the agent are unknown until they are told anew",
            f"where it lacks, add {rule(settings, 'read', place.status)}",
            note=True,
        )


def _unheard(one: Trial, settings: Settings, filters: dict[str, str]) -> Iterator[Finding]:
    broker = settings.broker
    trust = f" --cafile {broker.tls.ca_file or '/etc/ssl/certs/ca-certificates.crt'}" if broker.tls.enabled else ""
    unheard = [n for n, f in filters.items() if not any(paho.topic_matches_sub(f, t) for t, _, _ in one.heard)]
    if unheard:
        names = ", ".join(f"streams.{n} ({filters[n]})" for n in unheard)
        topic = filters[unheard[0]]
        yield Finding(
            f"nothing was heard within {trial.LISTEN:.0f} s for {names}",
            "slow sensors, a wrong topic, or an ACL that forbids reading it, which mosquitto does not say",
            f"mosquitto_sub -h {broker.host} -p {broker.port}{trust} -t '{topic}' -v   (as another user; if that shows "
            f"readings, add {rule(settings, 'read', topic)})",
            note=True,
        )


def rule(settings: Settings, right: str, topic: str) -> str:
    """The line of mosquitto's acl_file, and where it goes."""
    broker = settings.broker
    who = f"user {broker.username}, " if broker.username else ""
    if not who and broker.tls.cert_file:  # mosquitto's use_identity_as_username
        who = f"user NAME (the common name in {broker.tls.cert_file.name}), "
    return f"in the broker's acl_file: {who}topic {right} {topic}; then: sudo systemctl reload mosquitto"
