"""When Home Assistant is told what: devices as series come and go, all of them again when it or the broker has come.

Slowly, one message at a time, so that neither broker nor Home Assistant is flooded. What goes is made in
dialects/homeassistant.py; the run loop's thread does all of it.
"""

import logging
import random

from transom.core.pipeline import Message, Pipeline
from transom.core.stream import Stream
from transom.dialects import homeassistant as ha
from transom.dialects.plain import Publication
from transom.dialects.privacy import Privacy, Rule
from transom.edge.mqtt import Connection
from transom.settings import Settings

log = logging.getLogger(__name__)

PACE = 0.25  # seconds between two messages
LOOK = 1.0  # seconds between looks for series that have come or gone
SETTLE = 2.0  # seconds after a connection for the messages that the broker has stored
JITTER = 10.0  # seconds, at most, between Home Assistant's or the broker's return and ours: all its devices answer it
GRACE = 86_400.0  # seconds that a device of a former run has for its series to be heard again
MOST = 50_000  # devices of former runs that are remembered

Held = frozenset[str] | None  # the entities of a device as the broker has it, None when nobody knows


class Discovery:
    """Keeps what the broker holds for Home Assistant as the pipeline is."""

    def __init__(self, settings: Settings, privacy: Privacy | None = None) -> None:
        """privacy: how series are called, by their names if None."""
        self._privacy = privacy or Privacy(Rule())
        self._place = ha.Place(
            settings.homeassistant.prefix, settings.agent.id, settings.base, settings.agent.health_every / 1000,
            accepts="accept" in settings.agent.remote,
        )  # fmt: skip
        self._updates = bool(settings.models.updates)
        self._enabled = settings.homeassistant.enabled
        self._wanted: dict[str, dict[str, ha.Watched]] = {}  # by stream and device
        self._seen: dict[str, tuple[Stream, list[str]]] = {}
        self._held: dict[str, Held] = {}  # at the broker, by device
        self._strange: dict[str, float | None] = {}  # devices of former runs: since when there was no series for them
        self._due: dict[str, None] = {}  # devices to be told of, in this order
        self._connection: tuple[int, int] | None = None
        self._again: float | None = None  # when to tell of all
        self._looked = self._sent = float("-inf")

    def configure(self, settings: Settings) -> None:
        """Other settings from now on. Switched off, it takes back what it has told."""
        if settings.homeassistant.prefix != self._place.prefix:
            log.warning("takes effect when the agent is started again: homeassistant.prefix")
        every = settings.agent.health_every / 1000
        self._updates, accepts = bool(settings.models.updates), "accept" in settings.agent.remote
        place = self._place._replace(health_every=every, accepts=accepts)
        if settings.homeassistant.enabled != self._enabled or place != self._place:
            self._place = place
            self._enabled, self._connection = settings.homeassistant.enabled, None

    @property
    def filters(self) -> list[str]:
        """What to subscribe to: Home Assistant's coming, and what we have told it."""
        return [self._place.status, self._place.configs] if self._enabled else []

    @property
    def stored(self) -> list[str]:
        """Filters of which the broker's stored messages are wanted, also where its session has them already."""
        return [self._place.configs] if self._enabled else []

    @property
    def waiting(self) -> int:
        """Messages that are still to go."""
        return len(self._due)

    def take(self, messages: list[Message]) -> list[Message]:
        """Notes what is for us; returns the others."""
        if not self._enabled:
            return messages
        status, others = self._place.status, list[Message]()
        for message in messages:
            if message.topic == status:
                if ha.born(message.payload):
                    self._soon()
            elif (device := self._place.device_of(message.topic)) is None:
                others.append(message)
            elif message.payload and device not in self._held and len(self._held) < MOST:
                self._held[device] = ha.components(message.payload)
                self._strange[device] = None
        return others if len(others) < len(messages) else messages

    def speak(self, pipeline: Pipeline, connection: Connection, now: float) -> None:
        """Sends at most one message. now: seconds, of a clock that only goes forward; to be called at each turn."""
        if not self._enabled and not self._held:
            return
        self._meet(connection, now)
        if now >= self._looked + LOOK:
            self._looked = now
            self._look(pipeline, now)
        if not self._due or now < self._sent + PACE or (self._again is not None and now < self._again):
            return
        if not connection.ready or not connection.can_publish:
            return
        device = next(iter(self._due))
        self._sent = now
        if connection.publish(self._next(device)) is None:
            self._due[device] = None

    # --- what is due --------------------------------------------------------------------------------------------------

    def _meet(self, connection: Connection, now: float) -> None:
        """All goes again over a new connection: the broker may have lost what it had."""
        met = id(connection), connection.counters()["connects"]
        if met != self._connection and connection.ready:
            first, self._connection = self._connection is None, met
            self._again = now + SETTLE + (0.0 if first else random.uniform(0.0, JITTER))
        elif self._again == float("inf"):
            self._again = now + random.uniform(0.0, JITTER)
        if self._again is not None and now >= self._again:
            self._again = None
            self._due = dict.fromkeys(self._known())

    def _soon(self) -> None:
        if self._again is None:
            self._again = float("inf")  # the time is set at the next turn

    def _look(self, pipeline: Pipeline, now: float) -> None:
        streams = pipeline.streams if self._enabled else {}
        for name in [n for n in self._wanted if n not in streams]:
            del self._wanted[name]
            self._seen.pop(name, None)
        for name, stream in streams.items():
            seen = self._seen.get(name)
            if seen is not None and seen[0] is stream and seen[1] == stream.intake.names:
                continue
            self._seen[name] = stream, list(stream.intake.names)
            before = self._wanted.get(name, {})
            after = self._wanted[name] = {one.device: one for one in map(self._privacy.watched, ha.watched(stream))}
            self._due.update(dict.fromkeys(d for d, one in after.items() if before.get(d) != one))
        updated = tuple(sorted(streams)) if self._updates else ()
        if updated != self._place.updated:
            self._place = self._place._replace(updated=updated)
            self._due[ha.AGENT] = None
        known = set(self._known())
        marks = {ha.stream_mark(name) for name in streams}
        for device in [d for d in self._due if d not in known and d not in self._held]:
            del self._due[device]
        for device in self._held:
            if device in known:
                self._strange.pop(device, None)
            elif device not in self._strange or ha.mark_of(device) not in marks:
                self._due[device] = None  # its series is forgotten, its stream gone, or we are switched off
            else:
                since = self._strange[device]
                if since is None:
                    self._strange[device] = now
                elif now - since >= GRACE:
                    self._due[device] = None

    def _known(self) -> list[str]:
        """What is wanted: the agent's device first, for the others name it."""
        return [ha.AGENT] * self._enabled + [device for devices in self._wanted.values() for device in devices]

    def _next(self, device: str) -> Publication:
        """The message that brings the broker's device nearer to what is wanted, and notes that it has gone."""
        if device == ha.AGENT and self._enabled:
            publication: Publication | None = ha.agent_device(self._place)
        else:
            one = next((d[device] for d in self._wanted.values() if device in d), None)
            publication = None if one is None else ha.series_device(self._place, one)
        if publication is None:
            del self._due[device]
            self._held.pop(device, None)
            self._strange.pop(device, None)
            return self._place.removal(device)
        entities = ha.components(publication.payload)
        assert entities is not None
        if device in self._held and ((held := self._held[device]) is None or not held <= entities):
            del self._held[device]  # an entity that is left out would stay: first it all goes, then it comes
            return self._place.removal(device)
        self._held[device] = entities
        del self._due[device]
        return publication
