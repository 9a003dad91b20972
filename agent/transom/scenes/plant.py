"""A simulated plant: what its sensors send at each moment, and the faults that befall them. Seconds in, messages out.

Pure: the same seed and the same moments give the same plant. Nothing is sent from here.
"""

import math
import random

import msgspec

from transom.scenes.scene import Fault, Kind, Scene

KINDS = (
    Kind("bearing wears: vibration of pump-1 x 3", "pumps", "hall/pump-1/vibration"),
    Kind("line blocked: pressure of pump-2 falls by 40 %", "pumps", "hall/pump-2/pressure"),
    Kind("window open in winter: humidity drops", "climate", "lab/humidity"),
    Kind("door forced open", "doors", "store/contact"),
    Kind("sensor dies: temperature of pump-2 falls silent", "pumps", "hall/pump-2/temperature", "no-data"),
)


class Plant:
    """Two pumps, a climate sensor and a door."""

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

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:  # noqa: ARG002  # no class here
        return None


WATCH = {"model": "universal", "false_alarms": "6/day"}
UNITS = {"temperature": "°C", "vibration": "mm/s", "pressure": "bar", "flow": "l/min"}

SCENE = Scene(
    name="plant",
    description="two pumps, a climate sensor and a door, all watched by `universal`",
    real="simulated; `universal` learned from made-up signals",
    streams={  # with payloads of three kinds
        "pumps": {"topic": "plant/{site}/{device}/{channel}", "no_data": True, "max_gap": "2s", **WATCH,
                  "channels": {name: {"unit": unit} for name, unit in UNITS.items()}},
        "climate": {"topic": "home/{room}/climate", **WATCH,
                    "channels": {"temperature": {"unit": "°C"}, "humidity": {"unit": "%"}}},
        "doors": {"topic": "home/{room}/door", **WATCH,
                  "channels": {"contact": {"switch": True, "on": ["OPEN"], "off": ["CLOSED"]}}},
    },
    start=Plant,
    kinds=KINDS,
    first=18.0,  # the models watch a new series for 60 readings
)  # fmt: skip
