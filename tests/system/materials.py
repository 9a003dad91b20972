"""What the pages of docs/ speak of and have not made themselves: small recordings, models and a configuration."""

import gzip
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
BEGIN = 1_772_323_200  # 2026-03-01T00:00:00Z
TOPIC = "plant/{site}/{device}/{channel}"
PLANT = f"""\
[agent]
id = "gateway-7"
health_every = "1s"
remote = ["ping", "mute", "acknowledge", "explain", "reload", "set-budget"]
[broker]
host = "127.0.0.1"
[homeassistant]
enabled = true
[http]
port = 9099
[models]
allow_unsigned = true
[streams.pumps]
topic = "{TOPIC}"
model = "universal"
false_alarms = "1/week"
"""
Value = Callable[[int], float]
ALERT = "5b1f0c6a9d2e4471"  # of the alert that pages show
MATERIALS: dict[str, Callable[[Path], None]] = {}


def material(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    """Registers what writes this file into a folder."""

    def register(make: Callable[[Path], None]) -> Callable[[Path], None]:
        MATERIALS[name] = make
        return make

    return register


# By a command, from other materials.
TRAINED = {
    "pump.pt": ("pump.csv", "--task anomaly --family lstm --length 16 --epochs 1"),
    "etth1.pt": ("etth1.csv", "--task forecast --family cnn --length 24 --horizon 96 --epochs 1"),
}


def wave(period: float, phase: float = 0.0, level: float = 0.0) -> Value:
    """A sine with a little noise that is the same each time."""
    return lambda i: level + math.sin(2 * math.pi * i / period + phase) + 0.001 * ((i * 7919) % 101 - 50)


def table(count: int, step: float, /, **columns: Value) -> str:
    """A CSV, with a row each `step` seconds."""
    lines = [",".join(["time", *columns])]
    lines += [",".join([f"{BEGIN + i * step:g}" if step < 1 else str(BEGIN + i * int(step)),
                        *(f"{column(i):.4f}" for column in columns.values())]) for i in range(count)]  # fmt: skip
    return "\n".join(lines) + "\n"


# Sensors that never end.
SENSORS = "while true; do mosquitto_pub -t plant/hall/pump-1/vibration -m $((20 + RANDOM % 3)); sleep 0.05; done"
# Typed for an alert to be there.
LOOP = "for i in $(seq 100); do mosquitto_pub -t plant/hall/pump-1/vibration -m $((20 + i % 3)); done; "
LOOP += "mosquitto_pub -t plant/hall/pump-1/vibration -m 90; mosquitto_sub -t transom/+/pumps/hall/pump-1/vibration/alert -C 1 -W 30"


@material("plant.toml")
def plant(folder: Path) -> None:
    (folder / "plant.toml").write_text(PLANT)


@material("pump.csv")
def pump(folder: Path) -> None:
    """A spike at noon."""
    (folder / "pump.csv").write_text(table(900, 60, vibration=lambda i: 9.0 if 720 <= i < 725 else wave(40)(i)))


@material("load.csv")
def load(folder: Path) -> None:
    (folder / "load.csv").write_text(table(900, 3600, load=wave(24)))


@material("etth1.csv")
def transformer(folder: Path) -> None:
    (folder / "etth1.csv").write_text(table(2500, 3600, HULL=wave(24), OT=wave(24, 1.0)))


@material("office.csv")
def office(folder: Path) -> None:
    (folder / "office.csv").write_text(table(1500, 10, power=wave(300, level=60)))


@material("walk.csv")
def walk(folder: Path) -> None:
    channels = ("ax", "ay", "az", "gx", "gy", "gz")
    lines = [f"{BEGIN + i / 10:.1f}," + ",".join(f"{wave(12, k)(i):.4f}" for k in range(6)) for i in range(150)]
    (folder / "walk.csv").write_text("\n".join(["time," + ",".join(channels), *lines]) + "\n")


@material("motion.pt")
def motion(folder: Path) -> None:
    shutil.copy(ROOT / "models/transom_models/pretrained/motion.pt", folder)


@material("run.csv")
def runs(folder: Path) -> None:
    """Six runs to failure."""
    for k in range(6):
        life = 300 + 20 * k
        body = table(life, 60, heat=lambda i: i / 50 + wave(9)(i) / 9, rul=lambda i, life=life: float(life - i))  # type: ignore[misc]
        (folder / f"run{k}.csv").write_text(body)


@material("moves.ts.gz")
def moves(folder: Path) -> None:
    cases = [
        ",".join(f"{wave(6 + 10 * label, k)(i):.3f}" for i in range(40)) + f":{'shaken' if label else 'still'}"
        for k in range(8) for label in (0, 1)
    ]  # fmt: skip
    head = "@problemName moves\n@timeStamps false\n@univariate true\n@classLabel true still shaken\n@data\n"
    with gzip.open(folder / "moves.ts.gz", "wt") as out:
        out.write(head + "\n".join(cases) + "\n")


@material("day.jsonl")
def day(folder: Path) -> None:
    """Seven minutes of one pump, with a spike."""
    lines: list[dict[str, object]] = [{
        "time": "2026-01-01T10:00:00.000Z", "event": "begin", "filters": ["plant/+/+/+"],
        "streams": {"pumps": {"topic": TOPIC}},
    }]  # fmt: skip
    for i in range(400):
        value = 90.0 if 300 <= i < 304 else wave(25, level=20)(i)
        time = f"2026-01-01T10:{i // 60:02}:{i % 60:02}.000Z"
        lines.append({"time": time, "topic": "plant/hall/pump-1/vibration", "payload": f"{value:.3f}", "qos": 1})
    lines.append({"time": "2026-01-01T10:07:00.000Z", "event": "end"})
    (folder / "day.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@material("day.jsonl.gz")
def packed(folder: Path) -> None:
    day(folder)
    (folder / "day.jsonl.gz").write_bytes(gzip.compress((folder / "day.jsonl").read_bytes()))
