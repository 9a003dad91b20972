"""What is measured: a model, an agent's configuration with the streams to watch, and the command lines of all programs.

Either made up (LSTM(32) over windows of 64 x 1, one reading a message) or of a user's configuration, whose streams are
taken as they are but for `step` and `stride`: each reading is a step and each step a window, the most work there is.
"""

import importlib.util
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from transom.bench.processes import BenchError, output
from transom.bench.readings import PLAIN_TOPIC, Source, of_stream, plain
from transom.core.model import Manifest
from transom.flags import merged, nested
from transom.settings import Settings

LENGTH, HIDDEN = 64, 32
ROOM = 1_000_000  # series that a stream may have while it is measured
TRAINING = 300.0  # seconds that a small box may take for the model
NEVER = 1_000_000_000  # steps between two windows: none is due
ONNX = "transom.runtimes.onnx"


@dataclass(frozen=True, slots=True)
class Subject:
    """streams: tables as in a configuration, by name; silent: readings of a series before its first prediction; naive:
    arguments of the baseline for the same model and payload, None where it cannot read them."""

    label: str
    streams: dict[str, Any]
    sources: list[Source]
    silent: int
    length: int
    naive: list[str] | None
    model: Path | None = None


# What a made-up model may be: its label, the words of `transom train`, and the baseline's network of the same family.
KINDS: dict[str, tuple[str, list[str], list[str]]] = {
    "windows": ("LSTM({})", ["--family", "lstm", "--method", "residual"], []),
    "incremental": ("TCN({}), incremental,", ["--family", "tcn", "--method", "residual", "--incremental"], ["tcn"]),
    "stateful": ("LSTM({}), stateful,", ["--family", "lstm", "--stateful"], []),
}


def made_up(folder: Path, kind: str = "windows") -> Subject:
    """Trains the model for one epoch: what it says does not matter here, what it costs does."""
    name, words, naive = KINDS[kind]
    model = folder / "model.pt"
    rows = "\n".join(f"{i},{20 + i * 7919 % 1000 / 500}" for i in range(1200))
    (folder / "v.csv").write_text(f"time,v\n{rows}\n")
    output([
        sys.executable, "-m", "transom", "train", "--data", str(folder / "v.csv"), *words,
        "--hidden", str(HIDDEN), "--length", str(LENGTH), "--min-steps", "1", "--epochs", "1",
        "--output", str(model),
    ], TRAINING)  # fmt: skip
    stream = {"topic": PLAIN_TOPIC, "value": "v", "time": "ts", "model": str(model)}
    label = f"{name.format(HIDDEN)} over windows of {LENGTH} x 1, one reading a message in JSON"
    return Subject(label, {"bench": stream}, [plain()], 0, LENGTH, naive, model)


def configured(settings: Settings, config: Path | None, flags: Mapping[str, Any], folder: Path) -> Subject:
    """The streams of a user's configuration. Raises SettingsError and ModelError as `transom run` would."""
    raw = tomllib.loads(config.read_text()) if config is not None else {}
    streams: dict[str, Any] = merged(raw.get("streams", {}), nested(flags).get("streams", {}))
    for name, table in streams.items():
        file = settings.folder / settings.streams[name].model
        if file.is_file():
            table["model"] = str(file.absolute())
    path = write(folder / "user.toml", 1, streams, folder / "none")
    told = json.loads(output([sys.executable, "-m", "transom.bench.stages", "--config", str(path), "--manifests"], 120))
    manifests = {name: msgspec.convert(m["manifest"], Manifest) for name, m in told.items()}
    if not manifests:
        raise BenchError(str(config), "has no stream that can run", f"see transom check -c {config}")
    streams = {name: streams[name] for name in manifests}
    sources = [of_stream(name, settings.streams[name], m) for name, m in manifests.items()]
    models = ", ".join(dict.fromkeys(m.label for m in manifests.values()))
    least = max(min(m.min_steps, m.length) for m in manifests.values())
    naive = None
    if len(streams) == 1:
        name, m = next(iter(manifests.items()))
        naive = _naive(settings, name, m, Path(told[name]["file"]))
    longest = max(m.length for m in manifests.values())
    return Subject(
        f"{models}, {len(streams)} stream{'s' * (len(streams) != 1)} of {config}",
        streams,
        sources,
        least - 1,
        longest,
        naive,
    )


def _naive(settings: Settings, name: str, manifest: Manifest, file: Path) -> list[str] | None:
    stream = settings.streams[name]
    if len(manifest.channels) != 1 or len(stream.channels) > 1 or file.suffix != ".pt":
        return None
    if stream.payload not in ("auto", "json", "number") or "[]." in (stream.value or ""):
        return None
    path = "" if stream.payload == "number" else stream.value or "value"
    levels = ["+" if level.startswith("{") else level for level in stream.topic.split("/")]
    return [str(file), "/".join(levels), path, str(manifest.length)]


def twin(subject: Subject, folder: Path) -> Subject | str:
    """The same model on ONNX Runtime, or why there is none."""
    if importlib.util.find_spec(ONNX) is None:
        return "this version of transom has no ONNX runtime"
    if importlib.util.find_spec("onnxruntime") is None or subject.model is None:
        return "onnxruntime is not installed" if subject.model else "only the benchmark's own model is converted"
    model = folder / "model.onnx"
    try:
        output([sys.executable, "-m", "transom", "convert", str(subject.model), "--output", str(model)], TRAINING)
    except BenchError as error:
        return f"transom convert {error.problem}"
    streams = {name: table | {"model": str(model)} for name, table in subject.streams.items()}
    return Subject(subject.label, streams, subject.sources, subject.silent, subject.length, None, model)


def write(
    path: Path, port: int, streams: Mapping[str, Any], state: Path, *, durability: str = "none", qos: int = 0,
    due: bool = True, protocol: str = "auto",
) -> Path:  # fmt: skip
    """A configuration. due: False for no window at all, to measure what comes before the model."""
    measured = {"step": "reading", "stride": 1 if due else NEVER, "max_series": ROOM}
    body = {
        "agent": {"id": "bench", "state": str(state), "durability": durability, "inbox": ROOM, "health_every": "1s"},
        # No session: what the broker keeps for one agent would be the next one's load.
        "broker": {"host": "127.0.0.1", "port": port, "qos": qos, "protocol": protocol, "session": 0},
        "models": {"allow_unsigned": True},  # the one just trained, or what the user names
        "streams": {name: dict(table) | measured for name, table in streams.items()},
    }
    path.write_text("\n".join(f"{key} = {toml(value)}" for key, value in body.items()) + "\n")
    return path


def agent(config: Path) -> list[str]:
    return [sys.executable, "-m", "transom", "run", "-c", str(config)]


def baseline(port: int, qos: int, words: list[str]) -> list[str]:
    return [sys.executable, "-m", "transom.bench.naive", str(port), str(qos), *words]


def toml(value: Any) -> str:
    """A value as TOML, tables inline. JSON's strings and numbers are TOML's."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
