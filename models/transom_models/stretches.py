"""Recordings to stretches for models that carry their state: rows of one series in order, with no gap in them.

Recordings in; stretches in three parts, and lanes of chunks to train on, out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from transom.errors import RecordingError
from transom_models.data import GAP, GOLDEN, PARTS, classes_of, goal, regular_step
from transom_models.recordings import Recording

LANES = 16  # stretches that are learned from side by side, at most
PIECE = 6  # chunks that a lane has, at least


@dataclass(frozen=True, slots=True)
class Stretch:
    """values: float32 [n, C], NaN where missing; target: what is to be said of each row: of a forecast float32
    [n, H, C], NaN beyond the stretch; of classes int64 [n], -1 where none is known; else float32 [n, 0]."""

    values: NDArray[np.float32]
    target: NDArray[np.generic]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Stretches:
    """As `data.Dataset`, in stretches instead of windows."""

    channels: tuple[str, ...]
    step: int | None
    train: list[Stretch]
    validation: list[Stretch]
    calibration: list[Stretch]
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    lead: int = 1


def stretches(
    recordings: Sequence[Recording], task: str, warm: int, horizon: int, targets: Sequence[str] = (),
    classes: tuple[str, ...] = (), whole: bool = False, silent: int = GAP,
) -> Stretches:  # fmt: skip
    """As `data.dataset`: 60 % of each recording train, 15 % stop the training, 25 % calibrate, by time; or each goes
    into one part whole. warm: rows of a stretch that do not count, for the state knows little yet; silent: rows of
    nothing but missing values that end a stretch when there are more. Raises RecordingError."""
    names = recordings[0].channels
    lead, to_failure = goal(names, targets)
    labels = classes_of(recordings) if task == "classify" else ()
    parts: tuple[list[Stretch], ...] = ([], [], [])
    for i, recording in enumerate(recordings):
        count = len(recording.times)
        edges = [0, *(np.cumsum(PARTS) * count).astype(int)]
        if whole or to_failure:
            part = int(np.searchsorted(np.cumsum(PARTS)[:2], i * GOLDEN % 1, side="right"))
            edges = [0] * (part + 1) + [count] * (3 - part)
        for k in range(3):
            rows = range(edges[k], edges[k + 1])
            parts[k].extend(_cut(recording, rows, task, horizon, lead, labels, silent))
    fewest = min(sum(max(0, len(s) - warm) for s in part) for part in parts)
    if fewest < 8:
        raise RecordingError(
            recordings[0].name, f"gives too few rows behind the first {warm} of each stretch without a gap",
            "record longer, or take a smaller --min-steps",
        )  # fmt: skip
    said = tuple(classes[int(label)] for label in labels) if classes else labels
    return Stretches(names, regular_step(recordings), *parts, said, tuple(targets), lead)


def _cut(
    recording: Recording, rows: range, task: str, horizon: int, lead: int, labels: Sequence[str], silent: int
) -> list[Stretch]:
    """The stretches of these rows. A target never reaches out of its stretch, so that no row is in two parts."""
    steps, row = np.diff(recording.times), np.arange(len(recording.times))
    known = np.isfinite(recording.values).any(1)
    latest = np.maximum.accumulate(np.where(known, row, -1))
    breaks = np.zeros(len(row), bool)
    breaks[1:] = steps > GAP * max(np.median(steps), 1) if len(steps) else False
    breaks[1:] |= known[1:] & (row[1:] - latest[:-1] - 1 > silent) & (latest[:-1] >= 0)
    inner = np.flatnonzero(breaks)
    bounds = [rows.start, *inner[(inner > rows.start) & (inner < rows.stop)].tolist(), rows.stop]
    found = []
    for a, b in pairwise(bounds):
        if b == a:
            continue
        values = recording.values[a:b]
        target: NDArray[np.generic] = np.zeros((b - a, 0), np.float32)
        if task == "forecast":
            aims = values if recording.targets is None else recording.targets[a:b]
            padded = np.concatenate([aims[lead:], np.full((horizon + lead - 1, aims.shape[1]), np.nan, np.float32)])
            ahead = np.lib.stride_tricks.sliding_window_view(padded, horizon, axis=0)[: b - a]
            target = np.ascontiguousarray(ahead.transpose(0, 2, 1))
        elif task == "classify":
            numbers, own = np.array([float(label) for label in labels]), recording.labels[a:b]
            place = np.searchsorted(numbers, np.where(np.isfinite(own), own, numbers[0]))
            target = np.where(np.isfinite(own), place, -1).astype(np.int64)
        found.append(Stretch(values, target))
    return found


@dataclass(frozen=True, slots=True)
class Lanes:
    """values: [B, K, T, C]: B lanes of K chunks, one after the other; target: [B, K, T, …]; counts: float32
    [B, K, T], 1 where a row is to be learned from; begins: bool [B, K], True where a chunk begins a stretch."""

    values: NDArray[np.float32]
    target: NDArray[np.generic]
    counts: NDArray[np.float32]
    begins: NDArray[np.bool_]


def lanes(part: Sequence[Stretch], chunk: int, warm: int, offset: int = 0) -> Lanes:
    """offset: rows left out at the beginning of each stretch, so that another pass has other chunks."""
    values, targets, rows, begins = [], [], [], []
    for stretch in part:
        cut = slice(offset if len(stretch) - offset >= max(chunk, warm + 1) else 0, None)
        value, target = stretch.values[cut], stretch.target[cut]
        missing = -len(value) % chunk
        values.append(np.pad(value, ((0, missing), (0, 0)), constant_values=np.nan))
        fill = np.nan if target.dtype.kind == "f" else -1
        targets.append(np.pad(target, ((0, missing), *((0, 0),) * (target.ndim - 1)), constant_values=fill))
        rows.append(np.arange(len(value) + missing) < len(value))
        begins.append(np.arange((len(value) + missing) // chunk) == 0)
    first, there = np.concatenate(begins), np.concatenate(rows).reshape(-1, chunk)
    count = max(1, min(LANES, len(first) // PIECE))
    long = -(-len(first) // count)
    spare = count * long - len(first)

    def laid(array: NDArray[np.generic], fill: float) -> NDArray[np.generic]:
        array = array.reshape(len(first), chunk, *array.shape[1:])
        array = np.pad(array, ((0, spare), *((0, 0),) * (array.ndim - 1)), constant_values=fill)
        return array.reshape(count, long, *array.shape[1:])

    target = np.concatenate(targets)
    none = np.nan if target.dtype.kind == "f" else -1
    starts = np.pad(first, (0, spare), constant_values=True).reshape(count, long)
    starts[:, 0] = True
    there = np.pad(there, ((0, spare), (0, 0))).reshape(count, long, chunk)
    index = np.arange(long)
    since = index - np.maximum.accumulate(np.where(starts, index, 0), axis=1)  # chunks since the stretch began
    nth = since[..., None] * chunk + np.arange(chunk)
    counts = (there & (nth >= warm)).astype(np.float32)
    return Lanes(laid(np.concatenate(values), np.nan).astype(np.float32), laid(target, none), counts, starts)
