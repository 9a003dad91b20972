"""Two simulated vans: position, inertial sensors and engine, three times as fast as life. Seconds in, messages out.

Pure, as `plant` is. What the vans do is in `driving`.
"""

import math
from collections import deque

import msgspec
import numpy as np

from transom.scenes.driving import Motion, drive
from transom.scenes.noise import Noise
from transom.scenes.scene import METRES, Fault, Kind, Outlook, Scene, Trace, velocity

BEAT = 100  # ms of the vans' time
GPS_EVERY, ENGINE_EVERY = 10, 2  # beats
EPOCH = 1_704_067_200_000  # ms: 1 January 2024
DOING = ("accelerating", "braking", "cruising", "rough road", "standing", "turning")
MEMORY = 600  # beats of what a van did that are known for judging
GRAVITY = 9.81

KINDS = (
    Kind("coolant leaks: it gets hot", "engines", "van-1"),
    Kind("alternator fails: battery voltage falls", "engines", "van-2"),
    Kind("oil pressure falls by a third", "engines", "van-1"),
    Kind("wheel bearing wears: vibration rises", "engines", "van-2"),
    Kind("coolant leaks: it gets hot", "engines", "van-2"),
)


class Van:
    """One van's sensors."""

    def __init__(self, seed: int) -> None:
        self._noise = Noise(seed)
        chance = self._noise.random
        self.motion: Motion = Motion()
        self._moves = drive(chance)
        # Anywhere between 60° south and north: no model may learn a place.
        self._lat, self._lon = chance.uniform(-60, 60), chance.uniform(-180, 180)
        self._tilt, self._roll = chance.gauss(0, 0.03), chance.gauss(0, 0.03)  # rad, of the inertial sensor's mounting
        self._hum = 0.0
        self.did: deque[tuple[int, str]] = deque(maxlen=MEMORY)  # ms, and what the van was doing

    def move(self, now: int) -> None:
        self.motion = next(self._moves)
        self.did.append((now, self.motion.doing))

    def position(self) -> dict[str, float]:
        """lat, lon: degrees, with a receiver's drift (1.5 m) and jitter (0.3 m); speed: km/h."""
        near, m = self._noise.near, self.motion
        east, north = m.x + near("e", 1.5, 0.99), m.y + near("n", 1.5, 0.99)
        lat = self._lat + (north + self._noise.white(0.3)) / METRES
        lon = self._lon + (east + self._noise.white(0.3)) / (METRES * math.cos(math.radians(self._lat)))
        return {"lat": round(lat, 7), "lon": round(lon, 7), "speed": max(0.0, 3.6 * m.speed + self._noise.white(0.4))}

    def inertia(self) -> dict[str, float]:
        """ax, ay, az: m/s² forward, left, up; gx, gy, gz: °/s about these axes."""
        m, white = self.motion, self._noise.white
        shake = 0.05 + 0.012 * m.speed + 1.6 * m.rough
        self._hum += 2 * math.pi * (0.17 + 0.031 * m.speed)  # seen at 10 Hz, an engine is an alias
        hum = 0.06 * math.sin(self._hum)
        return {
            "ax": m.pull - GRAVITY * math.sin(self._tilt) + white(0.6 * shake) + hum,
            "ay": m.speed * m.yaw + GRAVITY * math.sin(self._roll) + white(0.6 * shake),
            "az": GRAVITY + white(shake) + hum,
            "gx": white(0.25 + 4 * m.rough),
            "gy": white(0.25 + 4 * m.rough) - 0.4 * m.pull,
            "gz": math.degrees(m.yaw) + white(0.25 + m.rough),
        }

    def engine(self, wrong: str, grown: float) -> dict[str, float]:
        """rpm; coolant: °C; oil: bar; battery: V; vibration: mm/s. grown: 0 to 1, how far what is wrong has come."""
        near, m = self._noise.near, self.motion
        gear = (0.0, 190.0, 110.0, 78.0, 60.0)[min(4, 1 + int(m.speed / 4.2))]
        rpm = max(820.0, 60 + gear * m.speed) + near("rpm", 15, 0.5)
        return {
            "rpm": rpm,
            "coolant": 89 + near("c", 0.8, 0.98) + (14 * grown if "coolant" in wrong else 0.0),
            "oil": (1.3 + 1.05 * rpm / 1000 + near("o", 0.06, 0.6)) * (1 - (0.35 * grown if "oil" in wrong else 0.0)),
            "battery": 14.2 + near("b", 0.05, 0.8) - (1.7 * grown if "battery" in wrong else 0.0),
            "vibration": (1.1 + 0.55 * rpm / 1000 + 0.03 * m.speed + near("v", 0.08, 0.4))
            * (1 + (0.9 * grown if "vibration" in wrong else 0.0)),
        }


class Fleet:
    """Call `send` with rising times, one a beat."""

    def __init__(self, seed: int = 0) -> None:
        self.vans = {"van-1": Van(2 * seed), "van-2": Van(2 * seed + 1)}
        self._beat = 0

    def send(self, seconds: float, now: int, fault: Fault | None) -> list[tuple[str, bytes]]:
        """Topics and payloads of this beat. now: ms since 1970, the time that the payloads carry."""
        sent, stamp = [], now / 1000
        for name, van in self.vans.items():
            van.move(now)
            said = {"imu": van.inertia()}
            if self._beat % GPS_EVERY == 0:
                said["gps"] = van.position()
            if self._beat % ENGINE_EVERY == 0:
                ours = fault is not None and fault.kind.series == name
                # A failure announces itself: it grows over the first third of its time, from where it is seen.
                grown = 0.0
                if fault is not None and ours:
                    grown = min(1.0, 0.4 + 2.0 * (seconds - fault.begin + 0.3) / (fault.end - fault.begin))
                said["engine"] = van.engine(fault.kind.name if fault is not None and ours else "", grown)
            for topic, values in said.items():
                places = 7 if topic == "gps" else 3
                body = {"time": stamp, **{n: round(v, places) for n, v in values.items()}}
                sent.append((f"fleet/{name}/{topic}", msgspec.json.encode(body)))
        self._beat += 1
        return sent

    def truth(self, stream: str, series: str, begin: int, end: int) -> str | None:
        """What the van did, where it did one thing from `begin` to `end` (ms)."""
        if stream != "motion" or series not in self.vans:
            return None
        did = list(self.vans[series].did)  # at once: the demo asks while it sends
        kinds = {doing for time, doing in did if begin <= time <= end}
        return kinds.pop() if len(kinds) == 1 else None


def _vans(hours: float, seed: int, each: float) -> list[Van]:
    """So many vans that each drives `each` hours."""
    return [Van(1000 * seed + i) for i in range(max(1, round(hours / each)))]


def paths(hours: float, seed: int) -> list[Trace]:
    """Half an hour of each of many vans, a position a second."""
    found = []
    for i, van in enumerate(_vans(hours, seed, 0.5)):
        rows = []
        for beat in range(18_000):
            van.move(beat * BEAT)
            if beat % GPS_EVERY == 0:
                rows.append(list(van.position().values()))
        times = EPOCH + GPS_EVERY * BEAT * np.arange(len(rows))
        found.append(Trace(f"van-{i}", ("lat", "lon", "speed"), times * 1000, np.array(rows)))
    return found


def motions(hours: float, seed: int) -> list[Trace]:
    """A quarter of an hour of each of some vans, ten readings a second, with what each was doing."""
    found = []
    for i, van in enumerate(_vans(hours, seed, 0.25)):
        rows, labels = [], []
        for beat in range(9_000):
            van.move(beat * BEAT)
            rows.append(list(van.inertia().values()))
            labels.append(float(DOING.index(van.motion.doing)))
        times = EPOCH + BEAT * np.arange(len(rows))
        found.append(
            Trace(
                f"van-{i}", ("ax", "ay", "az", "gx", "gy", "gz"), times * 1000, np.array(rows), np.array(labels), DOING
            )
        )
    return found


def engines(hours: float, seed: int) -> list[Trace]:
    """A quarter of an hour of each of some vans, five readings a second, while all is well."""
    found = []
    for i, van in enumerate(_vans(hours, seed, 0.25)):
        rows = []
        for beat in range(9_000):
            van.move(beat * BEAT)
            if beat % ENGINE_EVERY == 0:
                rows.append(van.engine("", 0.0))
        times = EPOCH + ENGINE_EVERY * BEAT * np.arange(len(rows))
        found.append(Trace(f"van-{i}", tuple(rows[0]), times * 1000, np.array([list(r.values()) for r in rows])))
    return found


def _channels(**units: str) -> dict[str, dict[str, str]]:
    return {name: {"unit": unit} for name, unit in units.items()}


SCENE = Scene(
    name="vehicle",
    description="two vans: where they will be, what they are doing, how their engines are; three times as fast as life",
    real="simulated, models and all; `motion` and `vehicle-engine` learned from recordings and are not in the demo",
    streams={
        "paths": {"topic": "fleet/{van}/gps", "model": "vehicle-path",
                  "channels": _channels(lat="°", lon="°", speed="km/h")},
        "motion": {"topic": "fleet/{van}/imu", "model": "vehicle-motion",
                   "channels": _channels(ax="m/s²", ay="m/s²", az="m/s²", gx="°/s", gy="°/s", gz="°/s")},
        "engines": {"topic": "fleet/{van}/engine", "model": "vehicle-health", "threshold": 4.0,
                    "channels": _channels(rpm="1/min", coolant="°C", oil="bar", battery="V", vibration="mm/s")},
    },
    start=Fleet,
    kinds=KINDS,
    rate=30,
    pace=BEAT,
    first=18.0,
    outlooks={"paths": Outlook(velocity, "constant velocity", plane=True, degrees=True)},
    material={"paths": paths, "motion": motions, "engines": engines},
)  # fmt: skip
