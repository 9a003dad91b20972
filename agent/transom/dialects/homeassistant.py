"""Home Assistant's MQTT discovery: what an agent and its series are called there, as one retained message a device.

Streams in, publications out; when they go is decided in edge/homeassistant.py. The rules are those of
https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload (Home Assistant 2024.11 and newer).
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from transom import __version__
from transom.core.model import Task
from transom.core.stream import Stream
from transom.dialects import units
from transom.dialects.ids import digest, quoted, slug
from transom.dialects.plain import Publication, topic_part

MOST_CHANNELS = 64  # entities of predicted values in a device, so that its message stays small
EXPIRE_STEPS = 3  # strides without a prediction after which its values are not shown any more
LEAST_EXPIRE = 60  # seconds
_STREAM, _SERIES = 6, 10  # hexadecimal digits of a digest in an id
_ALLOWED = re.compile(r"[A-Za-z0-9_-]+")  # in a discovery topic
_encode = msgspec.json.Encoder().encode

ONLINE = "{{ 'online' if value_json.state == 'online' else 'offline' }}"
# An alert decides; without one, a prediction says that all is well. Nothing is said of a pending window.
PROBLEM = (
    "{% if value_json.event is defined %}{{ 'OFF' if value_json.event == 'clear' else 'ON' }}"
    "{% elif value_json.state in ['normal', 'learning'] %}OFF{% endif %}"
)
LIKELIEST = (
    "{% set known = value_json.probability.items() | rejectattr('1', 'none') | list %}"
    "{{ (known | sort(attribute='1') | last | first) if known else 'None' }}"
)


# What BASE/info says of a stream's model, as an update entity reads it: these keys and no other.
VERSIONS = (
    "{%% set u = (value_json.streams | selectattr('stream', 'eq', %s) | list | first)['update'] %%}"
    "{{ {'installed_version': u.installed_version, 'latest_version': u.latest_version, 'title': u.title} | tojson }}"
)


class Place(NamedTuple):
    """prefix: discovery prefix; agent: the agent's id; base: `transom/<agent id>`; health_every: seconds; updated:
    streams whose model may be updated; accepts: whether a call may end the wait for a newer one."""

    prefix: str
    agent: str
    base: str
    health_every: float
    updated: tuple[str, ...] = ()
    accepts: bool = False

    @property
    def node(self) -> str:
        """The agent's own part of discovery topics: its id where those allow it, so that access rules can name it."""
        if _ALLOWED.fullmatch(self.agent):
            return f"transom-{self.agent}"
        return f"transom-{slug(self.agent, '-')}-{digest(self.agent, _SERIES)}"

    @property
    def status(self) -> str:
        """Where Home Assistant says that it has come or goes."""
        return f"{self.prefix}/status"

    @property
    def configs(self) -> str:
        """The filter of all that this agent has ever announced."""
        return self.topic("+")

    def topic(self, device: str) -> str:
        return f"{self.prefix}/device/{self.node}/{device}/config"

    def device_of(self, topic: str) -> str | None:
        """The device that a topic of ours announces, None for another topic."""
        head, tail = self.topic("\0").split("\0")
        device = topic[len(head) : -len(tail)]
        return device if topic.startswith(head) and topic.endswith(tail) and device and "/" not in device else None

    def removal(self, device: str) -> Publication:
        """Home Assistant forgets the device, and the broker its message."""
        return Publication(self.topic(device), b"", 1, True)


class Watched(NamedTuple):
    """A series. channels and units: what is predicted, in the model's order; expire: seconds, None when nobody knows
    how often a prediction comes; steps: of a forecast; median: which of its quantiles."""

    stream: str
    series: str
    model: str
    task: Task
    channels: tuple[str, ...]
    units: tuple[str, ...]
    expire: int | None = None
    steps: int = 0
    median: int = 0
    classes: tuple[str, ...] = ()

    @property
    def device(self) -> str:
        """One device a series: letters, digits, - and _ only, whatever the series is called."""
        return f"{slug(self.series, '-')}-{stream_mark(self.stream)}{digest(self.series, _SERIES)}"


AGENT = "agent"  # the agent's own device


def watched(stream: Stream) -> Iterator[Watched]:
    """The series that a stream has now."""
    m, grid = stream.model.manifest, stream.spec.grid
    expire = None
    if grid.step is not None:
        seconds = (EXPIRE_STEPS * stream.spec.stride * grid.step + grid.lateness) / 1000
        expire = max(LEAST_EXPIRE, -int(-seconds // 1))
    targets = tuple(c.name for c in m.targets), tuple(c.unit for c in m.targets)
    median = min(range(len(m.quantiles)), key=lambda i: abs(m.quantiles[i] - 0.5), default=0)
    for i, series in enumerate(stream.intake.names):
        if series:
            channels, named = targets if m.targets else (stream.intake.labels[i], stream.intake.units(i))
            yield Watched(
                stream.spec.name, series, m.label, m.task, channels, named, expire, m.horizon, median, m.classes
            )  # fmt: skip


def stream_mark(stream: str) -> str:
    """What the ids of a stream's devices have in common."""
    return digest(stream, _STREAM)


def entity(kind: str, channel: str) -> str:
    """The key of an entity of a channel: the same whichever channels are beside it."""
    return f"{kind}_{slug(channel, '_')}_{digest(channel, _STREAM)}"


def mark_of(device: str) -> str:
    """The mark of the stream that a device belongs to."""
    return device.rpartition("-")[2][:_STREAM]


def series_device(place: Place, one: Watched) -> Publication:
    """A series with its anomaly, score and predicted values."""
    topic = f"{place.base}/{one.stream}/{topic_part(one.series)}"
    parts: dict[str, dict[str, Any]] = {
        "anomaly": {
            "platform": "binary_sensor", "name": "Anomaly", "device_class": "problem", "state_topic": f"{topic}/+",
            "value_template": PROBLEM, "json_attributes_topic": f"{topic}/alert", "qos": 1,
        }
    }  # fmt: skip
    common: dict[str, Any] = {"platform": "sensor", "state_topic": f"{topic}/prediction"}
    if one.expire is not None:
        common["expire_after"] = one.expire
    number = common | {"state_class": "measurement", "suggested_display_precision": 2}
    if one.task == "anomaly":
        parts["score"] = number | {"name": "Score", "value_template": "{{ value_json.score }}"}
    if one.task == "classify":
        parts["class"] = common | {
            "name": "Class", "device_class": "enum", "options": list(one.classes), "value_template": LIKELIEST,
        }  # fmt: skip
    for i, (key, name, template, channel, unit) in enumerate(_values(one)):
        if i == MOST_CHANNELS:
            break
        parts[key] = number | {"name": name, "value_template": template} | units.described(channel, unit)
    for key, part in parts.items():
        part["unique_id"] = f"{place.node}_{one.device}_{key}"
        named = slug(f"{place.agent} {one.series}", "_")
        part["default_entity_id"] = f"{part['platform']}.{named}_{slug(part['name'], '_')}"
    device = {
        "identifiers": [f"{place.node}_{one.device}"], "name": one.series, "manufacturer": "Transom",
        "model": f"{one.model}, stream {one.stream}", "via_device": place.node,
    }  # fmt: skip
    return _publication(
        place, one.device, device, parts, {"availability": _available(place), "availability_mode": "all"}
    )


def _values(one: Watched) -> Iterator[tuple[str, str, str, str, str]]:
    """Key, name, template, channel and unit of each predicted value."""
    for channel, unit in zip(one.channels, one.units, strict=True):
        if one.task == "anomaly":
            yield entity("expected", channel), f"Expected {channel}", _number("expected", channel), channel, unit
        elif one.task == "forecast":
            for k in sorted({0, one.steps - 1}):
                template = _number("forecast", channel, f"[{k}][{one.median}]")
                name = f"{channel} in {k + 1} steps" if k else f"{channel} next"
                yield entity(f"forecast_{k}", channel), f"Forecast {name}", template, channel, unit


def agent_device(place: Place) -> Publication:
    """The agent: whether it runs, what it says of itself, and how much it has to do."""
    status, health = f"{place.base}/status", f"{place.base}/health"
    measured: dict[str, Any] = {
        "platform": "sensor", "state_topic": health, "state_class": "measurement", "entity_category": "diagnostic",
        "expire_after": max(LEAST_EXPIRE, -int(-EXPIRE_STEPS * place.health_every // 1)),
        "availability": _available(place), "availability_mode": "all",
    }  # fmt: skip
    parts: dict[str, dict[str, Any]] = {
        "connected": {
            "platform": "binary_sensor", "name": "Connected", "device_class": "connectivity", "state_topic": status,
            "value_template": "{{ 'ON' if value_json.state == 'online' else 'OFF' }}",
            "entity_category": "diagnostic", "qos": 1,
        },
        "problem": {
            "platform": "binary_sensor", "name": "Problem", "device_class": "problem", "state_topic": status,
            "value_template": "{{ 'ON' if value_json.problems is defined else 'OFF' }}",
            "json_attributes_topic": status, "entity_category": "diagnostic", "qos": 1,
            "availability": _available(place), "availability_mode": "all",
        },
        "readings": measured | {
            "name": "Readings", "unit_of_measurement": "readings/s", "suggested_display_precision": 1,
            "value_template": "{{ value_json.readings_per_s }}",
        },
        "lag": measured | {
            "name": "Lag", "device_class": "duration", "unit_of_measurement": "ms", "suggested_display_precision": 1,
            "value_template": "{{ value_json.latency_ms.p95 }}",
        },
        "memory": measured | {
            "name": "Memory", "device_class": "data_size", "unit_of_measurement": "MB",
            "suggested_display_precision": 0, "value_template": "{{ value_json.rss_bytes / 1000000 }}",
        },
    }  # fmt: skip
    parts |= {f"model_{digest(stream, _SERIES)}": _update(place, stream) for stream in place.updated[:MOST_CHANNELS]}
    for key, part in parts.items():
        part["unique_id"] = f"{place.node}_{AGENT}_{key}"
        part["default_entity_id"] = f"{part['platform']}.transom_{slug(place.agent, '_')}_{key}"
    device = {
        "identifiers": [place.node], "name": f"Transom {place.agent}", "manufacturer": "Transom", "model": "Agent",
        "sw_version": __version__,
    }  # fmt: skip
    return _publication(place, AGENT, device, parts, {})


def _update(place: Place, stream: str) -> dict[str, Any]:
    """Whether a newer model of a stream is here; to install it is to accept it before its time is over."""
    part: dict[str, Any] = {
        "platform": "update", "name": f"Model of {stream}", "state_topic": f"{place.base}/info", "qos": 1,
        "value_template": VERSIONS % quoted(stream), "entity_category": "diagnostic",
        "availability": _available(place), "availability_mode": "all",
    }  # fmt: skip
    if place.accepts:
        part["command_topic"] = f"{place.base}/request/accept"
        part["payload_install"] = _encode({"id": "home-assistant", "stream": stream}).decode()
    return part


def _available(place: Place) -> list[dict[str, str]]:
    return [{"topic": f"{place.base}/status", "value_template": ONLINE}]


def _publication(
    place: Place, name: str, device: dict[str, Any], parts: dict[str, dict[str, Any]], shared: dict[str, Any]
) -> Publication:
    origin = {"name": "Transom", "sw_version": __version__}
    body = {"device": device, "origin": origin, **shared, "components": parts}
    return Publication(place.topic(name), _encode(body), 1, True)


class _Announced(msgspec.Struct):
    components: dict[str, msgspec.Raw]


def components(payload: bytes) -> frozenset[str] | None:
    """The entities that a message announces; None for what is no such message. One that is left out of a newer message
    stays in Home Assistant, unless the device is removed first."""
    try:
        return frozenset(msgspec.json.decode(payload, type=_Announced).components)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def born(payload: bytes) -> bool:
    """Whether Home Assistant has just come."""
    return payload.strip().lower() == b"online"


def _number(key: str, channel: str, rest: str = "") -> str:
    return f"{{{{ value_json.{key}[{quoted(channel)}]{rest} }}}}"
