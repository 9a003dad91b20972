"""What the broker's session should hold, what it is known to hold, and what the broker refuses.

Asks and gives back through a client; keeps no connection. Filters that overlap are asked for as one, for a broker
sends a message once for each that it matches.
"""

import itertools
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

import paho.mqtt.client as paho
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from transom.core.topics import Pattern, cover
from transom.edge import masks

log = logging.getLogger(__name__)

Subscribed = dict[str, int]  # filter: QoS

GUESS_EVERY = 1.0  # seconds
DEEPEST = 8  # levels of a topic whose filters are guessed: there are 767 of them


class Subscriptions:
    """Of one client id at one broker, over its connections."""

    def __init__(self, filters: Sequence[str], qos: int, held: Subscribed | None, stored: Collection[str] = ()) -> None:
        """held: what the session is known to hold, None when nobody knows; stored: filters of which the stored messages
        are wanted once, also where the session holds them."""
        self._qos = qos
        self._stored = set(stored)
        self.held = held
        self.refused: dict[str, str] = {}  # filter: why the broker does not let us have it
        self._pending: dict[int, str] = {}
        self._early: dict[int, Sequence[ReasonCode]] = {}  # answers that another thread had before we knew the id
        self._inherited = True  # the session is older than this object, and may hold what nobody remembers
        self._guessed = float("-inf")
        self.want(filters)

    def want(self, filters: Sequence[str]) -> None:
        """Other filters from now on; `ask` tells the broker."""
        reduced = cover(filters)
        if len(reduced) < len(filters):
            log.info("filters overlap: subscribing to %s in place of %s", _named(reduced), _named(filters))
        self._wanted: Subscribed = dict.fromkeys(reduced, self._qos)
        self._patterns = [Pattern.parse(f) for f in reduced]
        self.refused.clear()

    @property
    def settled(self) -> bool:
        """Every filter is subscribed to or refused."""
        return not self._pending

    def ask(self, client: paho.Client, *, present: bool, version5: bool) -> None:
        """Asks for what the session lacks and gives back what it has too much; all of it, if it is not there."""
        held = {n: q for n, q in (self.held or {}).items() if n not in self._stored} if present else {}
        self._inherited &= present
        self._pending.clear()
        self._early.clear()
        self.held = {name: qos for name, qos in self._wanted.items() if held.get(name) == qos}
        for name in [n for n in held if n not in self._wanted]:
            client.unsubscribe(name)
            log.info("no longer subscribed to %s", masks.topic(name))
        for name, qos in self._wanted.items():
            if held.get(name) != qos:
                if version5:  # stored messages only when the session did not have the filter already
                    stored = SubscribeOptions.RETAIN_SEND_IF_NEW_SUB
                    if name in self._stored:
                        stored = SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE
                    options = SubscribeOptions(qos=qos, retainHandling=stored)
                    _, mid = client.subscribe(name, options=options)
                else:
                    _, mid = client.subscribe(name, qos)
                if mid is not None:
                    self._pending[mid] = name
                    if mid in self._early:
                        self.answered(mid, self._early.pop(mid))

    def answered(self, mid: int, reasons: Sequence[ReasonCode]) -> None:
        """The broker's answer to one of them."""
        name = self._pending.pop(mid, None)
        if name is None:
            self._early[mid] = reasons
            name = self._pending.pop(mid, None)  # it may have come to be in between
        if name is None or not reasons:
            return
        if reasons[0].is_failure:
            self.refused[name] = str(reasons[0])
            log.error(
                "the broker refuses the subscription to %s (%s): check its access rules", masks.topic(name), reasons[0]
            )
        elif self.held is not None:
            self.held = self.held | {name: self._wanted.get(name, self._qos)}
            self._stored.discard(name)

    def leave_strange(self, client: paho.Client, topics: Iterable[bytes]) -> None:
        """Gives back what an earlier configuration subscribed to and nobody remembers.

        MQTT has no way to ask what a session holds. A topic that no filter of ours asks for tells: one of the few
        filters that match it is held, and to give back one that is not does no harm.
        """
        if not self._inherited or time.monotonic() - self._guessed < GUESS_EVERY:
            return
        self._guessed = time.monotonic()
        for topic in {t.decode(errors="replace") for t in topics}:
            if any(p.match(topic) is not None for p in self._patterns):
                continue
            if names := [f for f in matching(topic) if f not in self._wanted]:
                log.info(
                    "%s comes, which no stream asks for: unsubscribing from what may have asked",
                    masks.topic(topic)[:80],
                )
                client.unsubscribe(names)
            return


def _named(filters: Sequence[str]) -> str:
    return ", ".join(map(masks.topic, filters))


def matching(topic: str) -> Iterator[str]:
    """Every filter that matches a topic, of few levels: each level itself or `+`, or `#` for the rest."""
    levels = topic.split("/")
    if len(levels) > DEEPEST:
        return
    for count in range(len(levels) + 1):
        for head in itertools.product(*((level, "+") for level in levels[:count])):
            yield "/".join([*head, "#"])
            if count == len(levels):
                yield "/".join(head)
