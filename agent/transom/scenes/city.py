"""A simulated city: roads, lamps, lifts, pumps and air, every five minutes. Seconds in, messages out.

A beat of the demo is five minutes of the city, so a minute of watching is 40 hours. Pure, as `plant` is.
"""

import math
from collections.abc import Callable

import msgspec
import numpy as np

from transom.scenes.noise import Noise
from transom.scenes.scene import DAY, Fault, Kind, Scene, Trace

FIVE = 300_000  # ms
ROADS = {"ring-east": 1.0, "bridge": 0.7}
STATIONS = {"harbour": 1.25, "park": 0.7, "ring-east": 1.1}
MONDAY = 1_704_067_200_000  # ms: 1 January 2024
TOPICS = {what: f"city/{what}" for what in ("traffic", "lamps", "lifts", "pumps", "air")}
HOLES = 0.1  # share of a road's readings that never come, as in recordings of such detectors

KINDS = (
    Kind("pump bearing wears: vibration and current rise", "pumps", "well-2"),
    Kind("lift doors drag: they take longer and longer", "lifts", "town-hall"),
    Kind("lamp driver ages: power sinks, heat rises", "lamps", "underpass-1"),
    Kind("fire near the park: PM2.5 rises", "air-watch", "park"),
    Kind("pump runs dry: pressure and current fall", "pumps", "well-1"),
)


def day(now: int) -> tuple[float, bool]:
    """Hour of the day, UTC, and whether it is a weekend. now: ms since 1970, which began on a Thursday."""
    return now % DAY / 3_600_000, (now // DAY + 3) % 7 >= 5


def rush(hour: float, weekend: bool) -> float:
    """How many are on the way, 0 to about 1: two rush hours on a working day, one afternoon on a weekend."""
    peaks = ((14.5, 3.5, 0.6),) if weekend else ((8.0, 1.4, 0.8), (17.3, 1.9, 0.9), (12.8, 3.0, 0.4))
    return 0.06 + sum(size * math.exp(-(((hour - at) / width) ** 2) / 2) for at, width, size in peaks)


class City:
    """Call `send` with rising times, one a beat."""

    def __init__(self, seed: int = 0) -> None:
        self._noise = Noise(seed)
        random = self._noise.random
        self._late = {road: random.gauss(0, 0.4) for road in ROADS}  # hours by which a road's habits are later
        self._wind = 0.0

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        """Topics and payloads of this beat. now: ms since 1970, the time that the payloads carry."""
        # A failure announces itself: it grows over the first third of its time, from where it is seen.
        grown = (
            0.0 if fault is None else min(1.0, 0.4 + 2.0 * (seconds - fault.begin + 0.5) / (fault.end - fault.begin))
        )
        sent = []
        for stream in TOPICS:
            for series, values in self.read(stream, now, fault.kind if fault is not None else None, grown).items():
                if stream == "traffic" and self._noise.random.random() < HOLES:
                    continue
                body = {"time": now / 1000, **{name: round(value, 3) for name, value in values.items()}}
                sent.append((f"{TOPICS[stream]}/{series}", msgspec.json.encode(body)))
        return sent

    def read(self, stream: str, now: int, wrong: Kind | None = None, grown: float = 0.0) -> dict[str, dict[str, float]]:
        """What the sensors of a stream show, by series. wrong, grown: what fails, and how far that has come, 0 to 1."""
        hour, weekend = day(now)

        def on(series: str) -> float:
            ours = wrong is not None and wrong.series == series and wrong.stream.removesuffix("-watch") == stream
            return grown if ours else 0.0

        if stream == "traffic":
            return {road: self._road(road, size, hour, weekend) for road, size in ROADS.items()}
        if stream == "lamps":
            return {lamp: self._lamp(lamp, hour, on(lamp)) for lamp in ("underpass-1", "underpass-2")}
        if stream == "lifts":
            return {lift: self._lift(lift, hour, weekend, on(lift)) for lift in ("town-hall", "station")}
        if stream == "pumps":
            dry = wrong is not None and "dry" in wrong.name
            return {
                pump: self._pump(pump, hour, 0.0 if dry else on(pump), on(pump) if dry else 0.0)
                for pump in ("well-1", "well-2")
            }
        weather = self._weather(hour)
        return {name: self._air(name, size, hour, weekend, weather, on(name)) for name, size in STATIONS.items()}

    def _road(self, road: str, size: float, hour: float, weekend: bool) -> dict[str, float]:
        """occupancy: % of the time that a vehicle stands on the loop; speed: mph, as the recordings have both."""
        near = self._noise.near
        load = size * rush((hour - self._late[road]) % 24, weekend) * math.exp(near(f"{road}l", 0.2, 0.97))
        # Five minutes differ from the next by half of what they are, as on recorded roads.
        occupancy = max(0.0, 8 * load + self._noise.white(0.6 + 2.8 * load))
        return {"occupancy": occupancy, "speed": max(3.0, 84 - 14 * load**2 + near(f"{road}s", 8.0, 0.1))}

    def _lamp(self, lamp: str, hour: float, ageing: float) -> dict[str, float]:
        """power: W, dimmed at night; voltage: V; temperature: °C of the driver."""
        near = self._noise.near
        voltage = 230 + near(f"{lamp}v", 1.2, 0.8)
        dim = 1.0 - 0.3 * math.cos(2 * math.pi * (hour - 13) / 24) ** 2
        power = 58 * dim * (1 - 0.35 * ageing) + near(f"{lamp}p", 0.5, 0.3)
        heat = 21 + 5 * math.sin(2 * math.pi * (hour - 10) / 24) + 0.35 * power / (1 - 0.3 * ageing)
        return {"power": power, "voltage": voltage, "temperature": heat + 9 * ageing + near(f"{lamp}t", 0.4, 0.9)}

    def _lift(self, lift: str, hour: float, weekend: bool, dragging: float) -> dict[str, float]:
        """Of five minutes: rides; current: A, mean of the motor while it runs; doors: s to open and close; vibration:
        mm/s of the car."""
        near = self._noise.near
        rides = max(0.0, 14 * rush(hour, weekend) + near(f"{lift}r", 1.5, 0.5))
        return {
            "rides": float(round(rides)),
            "current": 11.5 + 0.12 * rides + near(f"{lift}c", 0.25, 0.3),
            "doors": 5.6 + near(f"{lift}d", 0.06, 0.3) + 2.2 * dragging,
            "vibration": 1.1 + 0.02 * rides + near(f"{lift}v", 0.05, 0.3) + 0.15 * dragging,
        }

    def _pump(self, pump: str, hour: float, wearing: float, dry: float) -> dict[str, float]:
        """flow: m³/h as the town drinks; pressure: bar; current: A; vibration: mm/s."""
        near = self._noise.near
        thirst = 0.45 + 0.35 * math.exp(-(((hour - 7.5) / 1.8) ** 2)) + 0.3 * math.exp(-(((hour - 19) / 2.6) ** 2))
        flow = 62 * thirst * (1 - 0.7 * dry) * math.exp(near(f"{pump}f", 0.04, 0.8))
        return {
            "flow": flow,
            "pressure": (6.4 - 0.0004 * flow**2) * (1 - 0.45 * dry) + near(f"{pump}p", 0.05, 0.5),
            "current": (9 + 0.21 * flow) * (1 + 0.12 * wearing) * (1 - 0.3 * dry) + near(f"{pump}c", 0.15, 0.3),
            "vibration": 1.6 + 0.012 * flow + near(f"{pump}v", 0.07, 0.4) + 1.5 * wearing + 0.5 * dry,
        }

    def _weather(self, hour: float) -> tuple[float, float, float]:
        """Of the whole city: what blew in (PM2.5, µg/m³), how far air is mixed (1 is usual), and the sun, 0 to 1."""
        near = self._noise.near
        sun = max(0.0, math.sin(math.pi * (hour - 6) / 13)) if 6 < hour < 19 else 0.0
        mixed = 0.7 + 0.6 * sun
        return 9 * math.exp(near("pm", 0.45, 0.998)), mixed * math.exp(near("mixed", 0.2, 0.995)), sun * (
            0.8 + near("cloud", 0.15, 0.99)
        )  # fmt: skip

    def _air(
        self, station: str, size: float, hour: float, weekend: bool, weather: tuple[float, float, float], fire: float
    ) -> dict[str, float]:
        """pm25, no2, o3: µg/m³. Traffic makes NO2, which eats ozone, which the sun makes."""
        near = self._noise.near
        far, mixed, sun = weather
        traffic = size * rush(hour, weekend)
        nitrogen = max(1.0, (8 + 34 * traffic) / mixed * math.exp(near(f"{station}n", 0.05, 0.7)))
        dust = far + 5 * traffic / mixed
        return {
            "pm25": max(0.5, dust * math.exp(near(f"{station}p", 0.06, 0.6)) * (1 + 2.2 * fire) + 12 * fire),
            "no2": nitrogen,
            "o3": max(1.0, 38 + 62 * sun - 0.45 * nitrogen + near(f"{station}o", 3.0, 0.8)),
        }

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:  # noqa: ARG002  # no class here
        return None


def normal(stream: str) -> Callable[[float, int], list[Trace]]:
    """What a model of a stream learns from: every series of it while all is well, so many hours from a seed."""

    def make(hours: float, seed: int) -> list[Trace]:
        city, times = City(seed), MONDAY + FIVE * np.arange(int(hours * 3_600_000 / FIVE))
        rows = [city.read(stream, int(now)) for now in times]
        return [
            Trace(series, tuple(values), times * 1000, np.array([list(row[series].values()) for row in rows]))
            for series, values in rows[0].items()
        ]

    return make


def _channels(**units: str) -> dict[str, dict[str, str]]:
    return {name: {"unit": unit} for name, unit in units.items()}


BUDGET = {"false_alarms": "1/month"}  # of the city's time

SCENE = Scene(
    name="city",
    description="roads, lamps, lifts, pumps and air of a city; a beat is five minutes",
    real="`city-traffic` learned from recorded roads (NAB); the other models, and all that is sent, are simulated",
    streams={
        "traffic": {"topic": "city/traffic/{road}", "model": "city-traffic", "series": ["road"],
                    "channels": _channels(occupancy="%", speed="mph")},
        "lamps": {"topic": "city/lamps/{lamp}", "model": "city-lamp", **BUDGET,
                  "channels": _channels(power="W", voltage="V", temperature="°C")},
        "lifts": {"topic": "city/lifts/{lift}", "model": "city-lift", **BUDGET,
                  "channels": _channels(rides="", current="A", doors="s", vibration="mm/s")},
        "pumps": {"topic": "city/pumps/{pump}", "model": "city-pump", **BUDGET,
                  "channels": _channels(flow="m³/h", pressure="bar", current="A", vibration="mm/s")},
        "air": {"topic": "city/air/{station}", "model": "city-air",
                "channels": _channels(pm25="µg/m³", no2="µg/m³", o3="µg/m³")},
        "air-watch": {"topic": "city/air/{station}", "model": "city-air-watch", **BUDGET,
                      "channels": _channels(pm25="µg/m³", no2="µg/m³", o3="µg/m³")},
    },
    start=City,
    kinds=KINDS,
    rate=8,
    pace=FIVE,
    hour=0.0,
    first=18.0,
    material={name: normal(name) for name in TOPICS},
)  # fmt: skip
