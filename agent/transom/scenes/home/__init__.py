"""A simulated home: contacts at the door and a window, the air of a room, a freezer, sockets and what is plugged in.

A second of the demo is 40 minutes at home. Payloads are as Zigbee2MQTT, Tasmota and a batching meter send them.
"""

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import numpy as np

from transom.scenes.home import air, appliances, material
from transom.scenes.home.freezer import Freezer, Wrong
from transom.scenes.home.people import DAY, habits, life
from transom.scenes.scene import Fault, Kind, Scene

PACE = 300_000  # ms at home from beat to beat
HOUR = 9.0  # of the day at which the demo begins
PAST = 49  # hours of the contacts that the agent hears at once: what a gateway has kept
DAYS = 14  # after which the same days come again
BEATS = 5  # that the door stays open when it is opened at night
PER_BEAT = PACE // appliances.PERIOD
WINDOW, DOOR, AJAR, WEAK = (
    Kind("window of the bathroom left open", "contacts", "bathroom/contact"),
    Kind("front door opened at three in the morning", "contacts", "front-door/contact"),
    Kind("freezer's door stands ajar", "freezer", "cellar", "anomaly", lasts=2.0, after=2.0),
    Kind("freezer's compressor runs and does not cool", "freezer", "cellar", "anomaly"),
)


class Home:
    """The home at one seed. Its days begin a whole number of days before the first beat."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng([seed, 1_000_003])  # none of the homes that are learned from
        family = habits(random)
        self._life = life(replace(family, people=max(2, family.people)), DAYS, random)
        self._air = air.room(self._life, random)
        self._freezer = Freezer(random)
        self._random = random
        self._begun: int | None = None
        self._kinds = tuple(appliances.KINDS)
        steps = DAYS * 86_400_000 // appliances.PERIOD
        self._sockets = {name: material.socket(steps, random) for name in ("kitchen", "desk")}

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        if self._begun is None:
            self._begun = now
            sent = self._history(now)
            for _ in range(600):  # the freezer has run before
                self._freezer.minute(0.0)
        else:
            sent = []
        minute = self._minute(now)
        kind = fault.kind if fault is not None else None
        into = seconds - fault.begin if fault is not None else 0.0
        bathroom, door = bool(self._life.window[minute]), bool(self._life.door[minute])
        bathroom |= kind is WINDOW
        door |= kind is DOOR and into < BEATS / RATE
        sent += self._changes(now, kind)
        sent += [_contact("bathroom", now, bathroom), _contact("front-door", now, door)]
        body = dict(zip(air.CHANNELS, (round(float(v), 1) for v in self._air[minute]), strict=True))
        sent.append(("home/living/air", msgspec.json.encode({"time": now / 1000, **body})))
        wrong: Wrong = "ajar" if kind is AJAR else "weak" if kind is WEAK else ""
        for i in range(PACE // 60_000):
            power, cold = self._freezer.minute(0.004, wrong)
            body = {"time": (now + 60_000 * i) / 1000, "power": round(power, 1), "temperature": round(cold, 2)}
            sent.append(("home/cellar/freezer", msgspec.json.encode(body)))
        first = self._reading(now)
        for name, (watts, _) in self._sockets.items():
            rows = [
                {"time": (now + appliances.PERIOD * i) / 1000, "power": float(watts[(first + i) % len(watts)])}
                for i in range(PER_BEAT)
            ]
            sent.append((f"home/{name}/meter", msgspec.json.encode(rows)))
        return sent

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:
        """The appliance that was plugged in, where it was one only."""
        if stream != "meters" or self._begun is None or begin < self._begun:
            return None
        labels = self._sockets[series.partition("/")[0]][1]
        kinds = {labels[self._reading(t) % len(labels)] for t in (begin, (begin + end) // 2, end)}
        return self._kinds[int(kinds.pop())] if len(kinds) == 1 else None

    def _minute(self, now: int) -> int:
        """Of the home's first midnight; the demo begins on its fourth day, so that there is a past."""
        assert self._begun is not None
        return (3 * DAY + round(HOUR * 60) + (now - self._begun) // 60_000) % (DAYS * DAY)

    def _reading(self, now: int) -> int:
        assert self._begun is not None
        return (now - self._begun) // appliances.PERIOD

    def _changes(self, now: int, kind: Kind | None) -> list[tuple[str, bytes]]:
        """What the contacts said since the last beat, each with its own time."""
        sent = []
        for i in range(PACE // 60_000 - 1, 0, -1):
            at = now - 60_000 * i
            minute = self._minute(at)
            for device, state in (("bathroom", self._life.window), ("front-door", self._life.door)):
                if state[minute] != state[minute - 1] and not (kind is WINDOW and device == "bathroom"):
                    sent.append(_contact(device, at, bool(state[minute])))
        return sent

    def _history(self, now: int) -> list[tuple[str, bytes]]:
        """The contacts' past, a message every ten minutes and one at each opening."""
        sent = []
        for i in range(PAST * 60, 0, -1):
            at, minute = now - 60_000 * i, self._minute(now - 60_000 * i)
            for device, state in (("bathroom", self._life.window), ("front-door", self._life.door)):
                if i % 10 == 0 or (state[minute] and not state[minute - 1]):
                    sent.append(_contact(device, at, bool(state[minute])))
        return sent


def _contact(device: str, now: int, opened: bool) -> tuple[str, bytes]:
    """As Zigbee2MQTT says it: contact is true while the door is shut."""
    seen = datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds")
    return f"zigbee2mqtt/{device}", msgspec.json.encode({"contact": not opened, "battery": 97, "last_seen": seen})


RATE = 8

SCENE = Scene(
    name="home",
    description="contacts, air, a freezer and sockets of a home; a second is 40 minutes",
    real="simulated, as is what its models learned from",
    streams={
        "contacts": {"topic": "zigbee2mqtt/{device}", "model": "home-contact", "false_alarms": "1/month",
                     "aggregate": "min", "time": "last_seen", "channels": {"contact": {"switch": True}}},
        "air": {"topic": "home/{room}/air", "model": "home-air",
                "channels": {name: {"unit": unit} for name, unit in air.UNITS.items()}},
        "freezer": {"topic": "home/{room}/freezer", "model": "home-freezer", "false_alarms": "1/month",
                    "channels": {"power": {"unit": "W"}, "temperature": {"unit": "°C"}}},
        "meters": {"topic": "home/{socket}/meter", "model": "home-plug", "payload": "array",
                   "channels": {"power": {"unit": "W"}}},
    },
    start=Home,
    kinds=(WINDOW, DOOR, AJAR, WEAK),
    rate=RATE,
    pace=PACE,
    hour=HOUR,
    every=9.0,  # six hours at home, so that each fault comes at its hour of the day
    lasts=4.0,
    after=4.0,
    material={
        "contacts": material.contacts, "air": material.rooms, "freezer": material.freezers,
        "meters": material.sockets,
    },
)  # fmt: skip
