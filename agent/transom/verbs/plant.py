"""A simulated plant: what its sensors send at each moment, and the faults that befall them. Seconds in, messages out.

Pure: the same seed and the same moments give the same plant. Nothing is sent from here.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

RATE = 8  # readings a second and sensor
FIRST = 18.0  # seconds before the first fault: the models watch a new series for 60 readings
EVERY = 8.0  # seconds from one fault to the next
LASTS = 4.0  # seconds of a fault
AFTER = 4.0  # seconds after a fault in which its alert still counts as caught


@dataclass(frozen=True, slots=True)
class Kind:
    """A fault that can happen. alert: the kind of alert that it should raise on `series` of `stream`."""

    name: str
    stream: str
    series: str
    alert: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault from `begin` to `end`, seconds since the start."""

    kind: Kind
    begin: float
    end: float


KINDS = (
    Kind("bearing wears: vibration of pump-1 x 3", "pumps", "hall/pump-1/vibration", "anomaly"),
    Kind("line blocked: pressure of pump-2 falls by 40 %", "pumps", "hall/pump-2/pressure", "anomaly"),
    Kind("window open in winter: humidity drops", "climate", "lab/humidity", "anomaly"),
    Kind("door forced open", "doors", "store/contact", "anomaly"),
    Kind("sensor dies: temperature of pump-2 falls silent", "pumps", "hall/pump-2/temperature", "no-data"),
)


def schedule(seconds: float | None) -> Iterator[Fault]:
    """The faults in their order; only those that end, with time to be caught, before `seconds`."""
    begin, i = FIRST, 0
    while seconds is None or begin + LASTS + AFTER <= seconds:
        yield Fault(KINDS[i % len(KINDS)], begin, begin + LASTS)
        begin, i = begin + EVERY, i + 1


def stamp(begun: int, beat: int) -> int:
    """The time of a beat, ms since 1970 as `begun` is: on the beat, so that a sender that was held up and sends several
    at once repeats no time and leaves no hole."""
    return begun + 1000 * beat // RATE


class Plant:
    """Two pumps, a climate sensor and a door. Call `send` with rising seconds, RATE times a second."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)  # a simulation
        self._noise: dict[str, float] = {}

    def _near(self, name: str, size: float, memory: float = 0.7) -> float:
        """Autoregressive noise of standard deviation `size`."""
        fresh = self._random.gauss(0, size * math.sqrt(1 - memory**2))
        self._noise[name] = memory * self._noise.get(name, 0.0) + fresh
        return self._noise[name]

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        """Topics and payloads of this moment. now: ms since 1970, the time that the payloads carry."""
        series = fault.kind.series if fault is not None else ""
        sent = []
        for pump, base in (("pump-1", 0.0), ("pump-2", 2.0)):
            load = 0.5 + 0.4 * math.sin(2 * math.pi * (seconds + 3 * base) / 15)
            values = {
                "temperature": 61 + base + 3 * load + self._near(f"{pump}t", 0.15, 0.9),
                "vibration": (1.8 + 0.4 * load + self._near(f"{pump}v", 0.05, 0.3)),
                "pressure": 4.2 + 0.3 * load + self._near(f"{pump}p", 0.03, 0.5),
                "flow": 118 + 8 * load + self._near(f"{pump}f", 0.8, 0.5),
            }
            if series == f"hall/{pump}/vibration":
                values["vibration"] *= 3
            if series == f"hall/{pump}/pressure":
                values["pressure"] *= 0.6
            for channel, value in values.items():
                if series == f"hall/{pump}/{channel}" and channel == "temperature":
                    continue
                body = {"value": round(value, 3), "time": now / 1000}
                sent.append((f"plant/hall/{pump}/{channel}", msgspec.json.encode(body)))
        climate = {
            "time": now / 1000,
            "temperature": round(21 + 0.4 * math.sin(seconds / 9) + self._near("ct", 0.04), 2),
            "humidity": round(
                46 + 1.2 * math.sin(seconds / 7) + self._near("ch", 0.2) - (12 if series == "lab/humidity" else 0), 2
            ),
        }
        sent.append(("home/lab/climate", msgspec.json.encode(climate)))
        door = {"time": now / 1000, "contact": "OPEN" if series == "store/contact" else "CLOSED"}
        sent.append(("home/store/door", msgspec.json.encode(door)))
        return sent
