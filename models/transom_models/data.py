"""Recordings to training windows, through the tables that replay reads: the same cells, the same times.

CSV files in, float32 windows out; a window never crosses a gap.
"""

import gzip
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transom.core.tables import read_table
from transom.errors import RecordingError

LABELS = ("anomaly", "changepoint", "label", "class")
GAP = 10  # median steps without a row that end a segment
REGULAR = 0.8  # share of steps that must equal the median for the data to have a step


@dataclass(frozen=True, slots=True)
class Recording:
    """One file. times: int64 µs [n]; values: float32 [n, C]; labels: float64 [n], NaN without a label column."""

    name: str
    channels: tuple[str, ...]
    times: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Windows by part: train, validation and calibration are blocks of time in this order. values: [N, T, C]; target:
    float32 [N, H, C] for a forecast, int64 [N] for classes, empty otherwise. step: ms, None when irregular."""

    channels: tuple[str, ...]
    step: int | None
    train: tuple[NDArray[np.float32], NDArray[np.generic]]
    validation: tuple[NDArray[np.float32], NDArray[np.generic]]
    calibration: tuple[NDArray[np.float32], NDArray[np.generic]]
    classes: tuple[str, ...] = ()


def read(path: Path, channels: Sequence[str] = (), label: str | None = None) -> Recording:
    """Raises RecordingError for files that cannot be read, or that lack a channel or hold cells that are no number."""
    try:
        raw = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115  # the next lines do
    except OSError as error:
        raise RecordingError(str(path), error.strerror or str(error), "give a CSV file") from None
    with io.TextIOWrapper(raw, "utf-8-sig", errors="replace", newline="") as text:
        table = read_table(text, str(path))
        blocks = list(table.blocks)
    if table.bad.count:
        first = table.bad.cells[0]
        raise RecordingError(
            f"{path}:{first.line}",
            f"{table.bad.count} cells are no number or time, first {first.text!r} in column {first.column!r}",
            "mend or remove them: a model learns what it is given",
        )  # fmt: skip
    times = np.concatenate([t for t, _ in blocks])
    values = np.concatenate([v for _, v in blocks])
    label = label or next((n for n in table.names if n.lower() in LABELS), None)
    names = tuple(channels) or tuple(n for n in table.names if n.lower() not in LABELS and n != label)
    missing = [n for n in [*names, *([label] if label else [])] if n not in table.names]
    if missing or not names:
        raise RecordingError(
            str(path), f"has no column {', '.join(missing) or 'to learn from'}", f"it has {', '.join(table.names)}"
        )
    order = np.argsort(times, kind="stable")
    labels = values[:, table.names.index(label)] if label else np.full(len(times), np.nan)
    columns = [table.names.index(n) for n in names]
    return Recording(path.stem, names, times[order], values[order][:, columns].astype(np.float32), labels[order])


def regular_step(recordings: Sequence[Recording]) -> int | None:
    """ms between rows where most agree, else None: one reading a step."""
    steps = np.concatenate([np.diff(r.times) for r in recordings]) // 1000
    if not len(steps) or not (median := int(np.median(steps))):
        return None
    return median if np.mean(np.abs(steps - median) <= 0.01 * median) >= REGULAR else None


def windows(recording: Recording, length: int, horizon: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """[N, length + horizon, C] and the row at which each ends; none crosses a gap of GAP median steps."""
    n, total = len(recording.times), length + horizon
    if n < total:
        return np.zeros((0, total, len(recording.channels)), np.float32), np.zeros(0, np.int64)
    steps = np.diff(recording.times)
    breaks = np.concatenate([[0], np.cumsum(steps > GAP * max(np.median(steps), 1))])
    ends = np.arange(total - 1, n)
    ends = ends[breaks[ends] == breaks[ends - total + 1]]
    view = np.lib.stride_tricks.sliding_window_view(recording.values, total, axis=0)  # [n - total + 1, C, total]
    return np.ascontiguousarray(view[ends - total + 1].transpose(0, 2, 1)), ends


def load(
    paths: Sequence[Path], task: str, length: int, horizon: int, channels: Sequence[str] = (), label: str | None = None,
    apart: int | None = None,
) -> Dataset:  # fmt: skip
    """60 % of each file's windows train, 15 % stop the training, 25 % calibrate; by time, with `apart` windows left out
    between the parts (None: a window's length, so that no row is in two). Classes: windows whose rows all carry one
    label."""
    recordings = [read(p, channels, label if task == "classify" else None) for p in paths]
    names = recordings[0].channels
    for recording in recordings:
        if recording.channels != names:
            raise RecordingError(
                recording.name,
                f"has the channels {', '.join(recording.channels)}",
                f"the first file has {', '.join(names)}",
            )
    parts: tuple[list[NDArray[np.float32]], ...] = ([], [], [])
    targets: tuple[list[NDArray[np.generic]], ...] = ([], [], [])
    classes = (
        tuple(f"{c:g}" for c in np.unique(np.concatenate([r.labels for r in recordings]))) if task == "classify" else ()
    )
    if task == "classify" and len([c for c in classes if c != "nan"]) < 2:
        raise RecordingError(str(paths[0]), "holds fewer than two classes", "name the column of numbers with --label")
    for recording in recordings:
        found, ends = windows(recording, length, horizon)
        target: NDArray[np.generic] = found[:, length:] if horizon else np.zeros((len(found), 0), np.float32)
        found = found[:, :length]
        if task == "classify":
            labels = np.searchsorted(np.array([float(c) for c in classes]), recording.labels)
            pure = np.array([len(set(labels[e - length + 1 : e + 1])) == 1 for e in ends], bool)
            found, target = found[pure], labels[ends[pure]]
        edges = np.cumsum([0.60, 0.15, 0.25]) * len(found)
        begin = 0
        for part, wanted, edge in zip(parts, targets, edges.astype(int), strict=True):
            part.append(found[begin:edge])
            wanted.append(target[begin:edge])
            begin = (
                min(edge + (length + horizon if apart is None else apart), len(found)) if task != "classify" else edge
            )
    joined = [(np.concatenate(p), np.concatenate(t)) for p, t in zip(parts, targets, strict=True)]
    if min(len(p) for p, _ in joined) < 8:
        rows = sum(len(r.times) for r in recordings)
        raise RecordingError(
            str(paths[0]),
            f"gives too few windows of {length} steps in {rows} rows",
            "record longer, or take a smaller --length",
        )
    return Dataset(names, regular_step(recordings), joined[0], joined[1], joined[2], classes)
