"""Models over MQTT, the sender's side: a file in; an offer, the chunks that agents ask for, and how far each is, out.

`Sending` decides and knows no broker; `push` joins it with a connection.
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from transom.dialects import updates
from transom.dialects.plain import Publication
from transom.dialects.updates import Offer, Progress, UpdateError
from transom.edge.inbox import Inbox
from transom.edge.mqtt import Connection
from transom.edge.wire import broker_options
from transom.errors import ModelError
from transom.runtimes import choice, files, minisign, trust
from transom.settings import Settings

AGAIN = 1.0  # seconds in which a chunk is not sent twice: all of a group hear it
REPEAT = 5.0  # seconds after which the offer is said again, until somebody answers
BURST = 0.25  # seconds of the rate that may go at once
MOST_AGENTS = 1000
UNWRITTEN = 256 << 10  # bytes that may wait for the socket
LOOK = 0.25  # seconds


@dataclass(slots=True)
class Heard:
    """Of one agent. now: its last word; at: when it came (seconds); events: what became of the model, in order."""

    now: Progress
    at: float
    events: list[dict[str, object]] = field(default_factory=list)


class Sending:
    """base: `transom/<agent>` or that of a group; single: only this agent counts. agents: those that were heard."""

    def __init__(self, offer: Offer, data: bytes, stream: str, base: str, *, single: bool, rate: float) -> None:
        """rate: bytes a second."""
        self.offer, self._data, self._stream, self._base, self._single = offer, data, stream, base, single
        self._rate, self._left, self._then = rate, float(offer.chunk), time.monotonic()
        self._wanted: dict[int, None] = {}
        self._sent: dict[int, float] = {}
        self.agents: dict[str, Heard] = {}
        self.chunks = 0  # sent, repetitions too

    @property
    def busy(self) -> bool:
        """Chunks are wanted that the rate does not allow yet."""
        return bool(self._wanted)

    @property
    def announcement(self) -> Publication:
        return Publication(updates.offer_topic(self._base, self._stream), updates.encode(self.offer), 1, True)

    @property
    def filters(self) -> list[str]:
        base = self._base if self._single else "transom/+"
        return [updates.want_topic(base), updates.progress_topic(base), f"{base}/models"]

    def take(self, topic: str, payload: bytes, now: float) -> None:
        """A message of an agent: any that is not about this file is passed over."""
        agent, _, kind = topic.removeprefix("transom/").partition("/")
        if kind == "update/want":
            self._want(agent, payload, now)
        elif kind == "update/progress":
            told = updates.decode_progress(payload)
            if told is not None and (told.push, told.sha256) == (self.offer.push, self.offer.sha256):
                self._note(agent, told, now)
        elif kind == "models" and agent in self.agents:
            self._event(agent, payload, now)

    def _want(self, agent: str, payload: bytes, now: float) -> None:
        want = updates.decode_want(payload)
        if want is None or want.sha256 != self.offer.sha256:
            return
        if agent not in self.agents:
            waiting = Progress(stream=self._stream, sha256=want.sha256, state="downloading", chunks=self.offer.chunks)
            self._note(agent, waiting, now)
        for number in want.chunks:
            if number < self.offer.chunks and now - self._sent.get(number, float("-inf")) >= AGAIN:
                self._wanted[number] = None

    def _note(self, agent: str, told: Progress, now: float) -> None:
        known = self.agents.get(agent)
        if known is not None:
            if not known.now.final:
                known.now, known.at = told, now
        elif len(self.agents) < MOST_AGENTS:
            self.agents[agent] = Heard(told, now)

    def _event(self, agent: str, payload: bytes, now: float) -> None:
        try:
            event = msgspec.json.decode(payload, type=dict[str, object])
        except (msgspec.DecodeError, RecursionError):
            return
        heard = self.agents[agent]
        if event.get("sha256") == self.offer.sha256 and event.get("stream") == self._stream and len(heard.events) < 100:
            heard.events.append(event)
            heard.at = now

    def due(self, now: float) -> Iterator[Publication]:
        """Chunks that are wanted, as many as the rate allows by now."""
        self._left = min(self._left + self._rate * (now - self._then), max(BURST * self._rate, float(self.offer.chunk)))
        self._then = now
        while self._wanted and self._left >= 0:
            number = next(iter(self._wanted))
            del self._wanted[number]
            self._sent[number] = now
            at = number * self.offer.chunk
            data = self._data[at : at + self.offer.length(number)]
            self._left -= len(data)
            self.chunks += 1
            yield Publication(updates.chunk_topic(self._base, self.offer.sha256, number), data, 0, False)


def read(path: Path) -> tuple[Offer, bytes]:
    """The offer of a signed model file, and its bytes. Raises ModelError for one that agents would refuse."""
    opened = choice.open_file(path)
    data, _ = files.read_verified(path, opened.sha256)
    signature = trust.signature_of(path)
    if signature is None:
        raise ModelError(str(path), "is not signed, and agents take only signed models", f"transom sign {path}")
    text = trust.signature_path(path).read_text("utf-8")
    sent = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    chunk = updates.chunk_size(len(data))
    manifest = opened.manifest
    try:
        offer = updates.make_offer(
            data, text, manifest.name, manifest.version, path.suffix, secrets.token_hex(8), sent, chunk
        )
    except (UpdateError, msgspec.ValidationError) as error:
        raise ModelError(str(path), f"cannot be offered ({error})", "send a smaller model") from None
    return offer, data


def check_signature(path: Path, data: bytes, keys: tuple[str, ...]) -> None:
    """Where the configuration trusts the key that signed, the signature must fit. Raises ModelError."""
    signature = trust.signature_of(path)
    for key in trust.Policy.of(keys).keys:
        if signature is not None and key.id == signature.key_id:
            try:
                minisign.verify(data, signature, key, str(path))
            except minisign.SignatureError as error:
                raise ModelError(error.place, error.problem, error.remedy) from error


def push(
    settings: Settings, sending: Sending, over: Callable[[Mapping[str, Heard], float], bool], stop: threading.Event
) -> None:
    """Offers and serves until `over(agents, seconds since the start)` says so, or `stop` is set. The offer stays."""
    inbox, begun = Inbox(10_000), time.monotonic()
    options = broker_options(settings)
    options = replace(options, session=0, client_id=f"{options.client_id}-push-{sending.offer.push[:8]}")
    connection = Connection(options, filters=sending.filters, inbox=inbox, birth=lambda: [sending.announcement])
    connection.start()
    said = begun
    try:
        while not stop.is_set():
            inbox.wait(0.02 if sending.busy else LOOK)
            messages, tokens, _, _ = inbox.drain()
            connection.acknowledge(t for t in tokens if t is not None)
            connection.confirmed()
            now = time.monotonic()
            for message in messages:
                sending.take(message.topic, message.payload, now)
            if connection.can_publish:
                for publication in sending.due(now):
                    connection.publish(publication)
            connection.wait_writable()
            if not sending.agents and now - said >= REPEAT and connection.ready:
                said = now
                connection.publish(sending.announcement)
            if over(sending.agents, now - begun):
                return
    finally:
        connection.close(timeout=1.0)
