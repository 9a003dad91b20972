"""Our own recordings of a broker, as training data: messages go through the core as they would live, columns come out.

Topics and payloads are read as the stream that the recording tells of says, or a topic that the user gives.
"""

import gzip
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from transom.core import recorded
from transom.core.admission import GridSpec
from transom.core.model import ANY, Channel, Manifest, Outputs
from transom.core.payloads import PayloadSpec
from transom.core.pipeline import Pipeline
from transom.core.stream import StreamSpec
from transom.core.values import ChannelSpec
from transom.errors import RecordingError
from transom_models.recordings import LABELS, Recording, aimed

HELD = 10  # steps that a value is held where channels do not come together
TOGETHER = 0.8  # share of times that must have a value of each channel for channels to come together
_TEXTS = ("value", "time", "sequence", "time_unit")


@dataclass(frozen=True, slots=True)
class Listening:
    """Which messages of a recording, and which columns. stream: one that the recording tells of; topic: a pattern
    instead; channels: () = all that every series has; label, targets, cap: as for `recordings.read`."""

    stream: str | None = None
    topic: str | None = None
    channels: tuple[str, ...] = ()
    label: str | None = None
    targets: tuple[str, ...] = ()
    cap: float = np.inf


def is_messages(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))


def read_messages(path: Path, asked: Listening) -> list[Recording]:
    """One recording a series. Raises RecordingError where it cannot be read or holds nothing of what is asked for."""
    with _lines(path) as lines:
        spec = _spec(path, recorded.begin_of(next(iter(lines), "")), asked)
    found = _columns(path, spec, (Channel(ANY),), None)
    if not found:
        raise RecordingError(
            str(path), f"has no reading of {spec.topic!r}", "give --topic, as a stream of yours has it"
        )
    by_base: dict[str, dict[str, _Column]] = {}
    for (name, channel), column in found.items():
        by_base.setdefault(name.removesuffix(f"/{channel}"), {})[channel] = column
    label = asked.label or next((c for has in by_base.values() for c in has if c.lower() in LABELS), None)
    also = [n for n in (label, *asked.targets) if n is not None and any(n in has for has in by_base.values())]
    shared = [c for c in next(iter(by_base.values())) if all(c in has for has in by_base.values())]
    wanted = list(asked.channels) or [c for c in shared if c.lower() not in LABELS and c not in also]
    missing = sorted({c for c in (*wanted, *also) for has in by_base.values() if c not in has})
    if missing or not wanted:
        known = ", ".join(sorted({c for has in by_base.values() for c in has}))
        what = f"some series lack {', '.join(missing)}" if missing else "its series have no channel in common"
        raise RecordingError(str(path), what, f"choose with --channels among {known}")
    names = list(dict.fromkeys([*wanted, *also]))
    tables = [(base, *_joined([has[c] for c in names])) for base, has in by_base.items()]
    if any(not together for *_, together in tables):
        step = int(max(np.median(np.diff(has[c].times())) for has in by_base.values() for c in names if has[c].n > 1))
        tables = [(base, *_gridded(column)) for base, column in _stepped(path, spec, names, step).items()]
    return [_recording(f"{path.name.split('.')[0]}/{b}", t, v, names, wanted, label, asked) for b, t, v, _ in tables]


def _recording(
    name: str, times: NDArray[np.int64], values: NDArray[np.float32], names: Sequence[str], wanted: Sequence[str],
    label: str | None, asked: Listening,
) -> Recording:  # fmt: skip
    inputs = values[:, [names.index(n) for n in wanted]]
    labels = values[:, names.index(label)].astype(np.float64) if label in names else np.full(len(times), np.nan)
    one = Recording(name, tuple(wanted), times, inputs, labels)
    if not asked.targets:
        return one
    known = {n: values[:, names.index(n)].astype(np.float64) for n in asked.targets if n in names}
    return aimed(one, asked.targets, asked.cap, known)


# --- what the messages say --------------------------------------------------------------------------------------------


class _Tap:
    """A model of windows of one step, so that the core hands on what it made of the readings."""

    sha256 = ""

    def __init__(self, channels: tuple[Channel, ...], step: int | None) -> None:
        self.manifest = Manifest(
            name="tap", version="1", task="forecast", family="", channels=channels, length=1, step=step, horizon=1,
            max_gap=HELD * step if step else None,
        )  # fmt: skip

    def infer(self, values: NDArray[np.float32]) -> Outputs:
        return {"forecast": np.zeros((len(values), 1, 1, 1), np.float32)}


@dataclass(slots=True)
class _Column:
    """Readings of one series, in pieces. parts: (µs int64 [n], float32 [n, C])."""

    parts: list[tuple[int, NDArray[np.float32]]] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.parts)

    def times(self) -> NDArray[np.int64]:
        return np.array([t for t, _ in self.parts], np.int64)

    def values(self) -> NDArray[np.float32]:
        return np.array([v for _, v in self.parts], np.float32)


def _columns(
    path: Path, spec: StreamSpec, channels: tuple[Channel, ...], step: int | None
) -> dict[tuple[str, str], _Column]:
    """What the stream's series would have had live, by series and its first channel."""
    grid = GridSpec(step=step, max_gap=HELD * step if step else None, max_ahead=None, forget_after=None)
    given = StreamSpec(spec.name, spec.topic, spec.series, spec.payload, grid)
    pipeline = Pipeline([(given, _Tap(channels, step))])
    found: dict[tuple[str, str], _Column] = {}

    def take(events: Any) -> None:
        for batch in events.predictions:
            for series, names, end, value in zip(
                batch.series, batch.channels, batch.end.tolist(), batch.value, strict=True
            ):
                found.setdefault((series, names[0]), _Column()).parts.append((end, value))

    with _lines(path) as lines:
        for turn in recorded.turns(lines, str(path)):
            take(pipeline.take(turn))
    take(pipeline.flush())
    return found


def _joined(columns: Sequence[_Column]) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    """All channels of a series in one table, by time, NaN where one has no value; and whether they come together."""
    each = [c.times() for c in columns]
    times = np.unique(np.concatenate(each))
    values = np.full((len(times), len(columns)), np.nan, np.float32)
    for j, (column, own) in enumerate(zip(columns, each, strict=True)):
        values[np.searchsorted(times, own), j] = column.values()[:, 0]
    return times, values, bool(np.isfinite(values).all(1).mean() >= TOGETHER)


def _stepped(path: Path, spec: StreamSpec, names: Sequence[str], step: int) -> dict[str, _Column]:
    """Series whose channels come at different times, in steps of the slowest (µs), as a stream with a step has them."""
    found = _columns(path, spec, tuple(Channel(n) for n in names), max(1, step // 1000))
    return {series: column for (series, _), column in found.items()}


def _gridded(column: _Column) -> tuple[NDArray[np.int64], NDArray[np.float32], bool]:
    return column.times(), column.values(), True


# --- how they are read ------------------------------------------------------------------------------------------------


def _spec(path: Path, begin: recorded.Recorded | None, asked: Listening) -> StreamSpec:
    told = (begin.streams if begin is not None else None) or {}
    if asked.topic is not None:
        return StreamSpec("recorded", asked.topic, (), PayloadSpec())
    if asked.stream is not None and asked.stream not in told:
        raise RecordingError(
            str(path),
            f"tells of no stream {asked.stream!r}",
            f"it tells of {', '.join(told) or 'none'}; or give --topic",
        )
    if asked.stream is None and len(told) != 1:
        what = f"tells of several streams: {', '.join(told)}" if told else "does not say what its topics mean"
        raise RecordingError(
            str(path), what, "give --stream NAME" if told else "give --topic 'plant/{device}/{channel}'"
        )
    name = asked.stream or next(iter(told))
    table = told[name]
    try:
        return StreamSpec(name, str(table["topic"]), tuple(table.get("series", ())), payload_of(table))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(
            str(path), f"tells of the stream {name!r} what cannot be used ({error})", "give --topic"
        ) from None


def payload_of(table: Mapping[str, Any]) -> PayloadSpec:
    """How payloads are read, from the settings of a stream as a recording tells them."""
    given: dict[str, Any] = {key: table[key] for key in _TEXTS if key in table}
    if "timezone" in table:
        given["timezone"] = ZoneInfo(table["timezone"])
    channels = tuple(
        ChannelSpec(
            name, c.get("path", ""), c.get("unit", ""), bool(c.get("switch")), tuple(c.get("on", ())),
            tuple(c.get("off", ())),
        )
        for name, c in table.get("channels", {}).items()
    )  # fmt: skip
    return PayloadSpec(format=table.get("payload", "auto"), channels=channels, **given)


class _lines:  # noqa: N801  # reads like a function
    """The lines of a recording, plain or gzip; a compressed one may lack its end."""

    def __init__(self, path: Path) -> None:
        try:
            raw = path.open("rb")
        except OSError as error:
            raise RecordingError(str(path), error.strerror or str(error), "give a recording") from None
        stream: Any = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        self._raw, self._text = raw, io.TextIOWrapper(stream, "utf-8", errors="replace", newline="")
        self._path = path

    def __enter__(self) -> Iterable[str]:
        return self._read()

    def __exit__(self, *_: object) -> None:
        self._text.close()
        self._raw.close()

    def _read(self) -> Iterator[str]:
        try:
            yield from self._text
        except EOFError:
            return
        except (OSError, gzip.BadGzipFile) as error:
            raise RecordingError(str(self._path), f"cannot be read to its end ({error})", "is it whole?") from None
