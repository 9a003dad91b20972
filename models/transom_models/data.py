"""Recordings to training windows: files in, float32 windows in three parts out; a window never crosses a gap."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transom.core.model import Aggregate
from transom.errors import RecordingError
from transom_models.cases import is_cases, read_cases
from transom_models.messages import Listening, is_messages, read_messages
from transom_models.recordings import REMAINING, Recording, aimed, read
from transom_models.runs import is_runs, read_runs
from transom_models.stepping import stepped

GAP = 10  # median steps without a row that end a segment
REGULAR = 0.8  # share of steps that must equal the median for the data to have a step
PARTS = (0.60, 0.15, 0.25)  # train, validation, calibration
GOLDEN = 0.6180339887  # multiples of it, modulo 1, are spread evenly however many there are

Part = tuple[NDArray[np.float32], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Windows by part: train, validation and calibration are blocks of time in this order, or whole runs, or cases.

    values: [N, T, C]; target: float32 [N, H, C] for a forecast (C the targets where there are any), int64 [N] for
    classes, empty otherwise. step: ms, None when irregular. lead: steps from a window's last to its target's first.
    """

    channels: tuple[str, ...]
    step: int | None
    train: Part
    validation: Part
    calibration: Part
    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    lead: int = 1


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


def padded(recording: Recording, steps: int) -> Recording:
    """With missing steps before the first, so that there are windows from early on, as a gateway has them."""
    n, gap = len(recording.times), int(np.median(np.diff(recording.times))) if len(recording.times) > 1 else 1
    times = np.concatenate([recording.times[:1] - gap * np.arange(steps, 0, -1), recording.times])

    def before(columns: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([np.full((steps, columns.shape[1]), np.nan, np.float32), columns])

    targets = None if recording.targets is None else before(recording.targets)
    labels = np.concatenate([np.full(steps, np.nan), recording.labels])
    return Recording(recording.name, recording.channels, times[: n + steps], before(recording.values), labels, targets)


def examples(recording: Recording, length: int, horizon: int, lead: int) -> Part:
    """Windows [N, T, C] and what comes `lead` steps after each one's last: [N, H, C_targets]."""
    if recording.targets is None:
        found, _ = windows(recording, length, horizon + lead - 1)
        return found[:, :length], found[:, length + lead - 1 :]
    joined = np.concatenate([recording.values, recording.targets], 1)
    both = Recording(recording.name, recording.channels, recording.times, joined, recording.labels)
    found, _ = windows(both, length, horizon + lead - 1)
    c = recording.values.shape[1]
    return np.ascontiguousarray(found[:, :length, :c]), np.ascontiguousarray(found[:, length + lead - 1 :, c:])


def load(
    paths: Sequence[Path], task: str, length: int, horizon: int, channels: Sequence[str] = (), label: str | None = None,
    targets: Sequence[str] = (), cap: float = np.inf, min_steps: int | None = None, apart: int | None = None,
    stream: str | None = None, topic: str | None = None, step: int | None = None, aggregate: Aggregate = "mean",
) -> Dataset:  # fmt: skip
    """60 % of each file's windows train, 15 % stop the training, 25 % calibrate; by time, with `apart` windows left out
    between the parts (None: a window's length, so that no row is in two). Runs that end in a failure go into one part
    whole, and cases are dealt out class by class. Classes of rows: windows whose rows all carry one label.

    stream, topic: what of a recording of messages; targets, cap: see `recordings`; min_steps: windows begin with so
    many steps of a run, those before it missing.
    """
    if any(is_cases(p) for p in paths):
        return load_cases(paths, task, channels)
    recordings = recorded(paths, task, channels, label, targets, cap, stream, topic)
    return dataset(recordings, task, length, horizon, targets, min_steps, apart, step=step, aggregate=aggregate)


def recorded(
    paths: Sequence[Path], task: str, channels: Sequence[str], label: str | None, targets: Sequence[str], cap: float,
    stream: str | None, topic: str | None,
) -> list[Recording]:  # fmt: skip
    """What the files hold, but for cases; arguments as `load` has them."""
    recordings: list[Recording] = []
    for path in paths:
        if is_messages(path):
            own = label if task == "classify" else None
            recordings += read_messages(path, Listening(stream, topic, tuple(channels), own, tuple(targets), cap))
        elif is_runs(path):
            recordings += [aimed(r, targets, cap) if targets else r for r in read_runs(path)]
        else:
            recordings.append(read(path, channels, label if task == "classify" else None, targets, cap))
    return recordings


def prepared(
    recordings: Sequence[Recording], targets: Sequence[str], step: int | None, aggregate: Aggregate, length: int
) -> list[Recording]:
    """With their targets, and on a grid of `step` ms. Raises RecordingError where one has other channels, or where none
    has a value of one."""
    if targets:
        recordings = [r if r.targets is not None else aimed(r, targets) for r in recordings]
    if step is not None:
        recordings = [stepped(r, step, aggregate, length) for r in recordings]
    names = recordings[0].channels
    for recording in recordings:
        if recording.channels != names:
            raise RecordingError(
                recording.name,
                f"has the channels {', '.join(recording.channels)}",
                f"the first file has {', '.join(names)}",
            )
    empty = np.all([np.isnan(r.values).all(axis=0) for r in recordings], axis=0)
    if empty.any():
        held = [name for name, none in zip(names, empty, strict=True) if not none]
        raise RecordingError(
            recordings[0].name, f"holds no value of {', '.join(np.array(names)[empty].tolist())}",
            f"leave that out: --channels {' '.join(held)}" if held else "give a file with values",
        )  # fmt: skip
    return list(recordings)


def goal(names: Sequence[str], targets: Sequence[str]) -> tuple[int, bool]:
    """Steps from the last one known to a target's first, and whether recordings are runs to a failure, which must not
    be cut."""
    lead = 0 if targets and not set(targets) & set(names) else 1
    return lead, REMAINING in targets and REMAINING not in names


def dataset(
    recordings: Sequence[Recording], task: str, length: int, horizon: int, targets: Sequence[str] = (),
    min_steps: int | None = None, apart: int | None = None, classes: tuple[str, ...] = (), every: int = 1,
    whole: bool = False, step: int | None = None, aggregate: Aggregate = "mean",
) -> Dataset:  # fmt: skip
    """Recordings to windows, as `load` says. classes: names of the labels 0, 1, …; default: the labels themselves.
    Targets that are given are those of the recordings. every: only each so many-th window is taken; whole: each
    recording goes into one part; step: ms of a grid that their rows fall into first."""
    recordings = prepared(recordings, targets, step, aggregate, length)
    if min_steps is not None and min_steps < length:
        recordings = [padded(r, length - min_steps) for r in recordings]
    names = recordings[0].channels
    lead, to_failure = goal(names, targets)
    whole |= to_failure
    parts: tuple[list[NDArray[np.float32]], ...] = ([], [], [])
    wanted: tuple[list[NDArray[np.generic]], ...] = ([], [], [])
    labels = classes_of(recordings) if task == "classify" else ()
    for i, recording in enumerate(recordings):
        if task == "forecast":
            found, target = examples(recording, length, horizon, lead)
        else:
            found, target = _now(recording, length, labels)
        found, target = found[::every], target[::every]
        if whole:
            part = int(np.searchsorted(np.cumsum(PARTS)[:2], i * GOLDEN % 1, side="right"))
            parts[part].append(found)
            wanted[part].append(target)
            continue
        begin = 0
        for k, edge in enumerate((np.cumsum(PARTS) * len(found)).astype(int)):
            parts[k].append(found[begin:edge])
            wanted[k].append(target[begin:edge])
            gap = 0 if task == "classify" else length + horizon if apart is None else apart
            begin = min(edge + -(-gap // every), len(found))
    if not all(parts) or min(sum(map(len, p)) for p in parts) < 8:
        rows = sum(len(r.times) for r in recordings)
        raise RecordingError(
            recordings[0].name,
            f"gives too few windows of {length} steps in {rows} rows",
            "record longer, or take a smaller --length",
        )
    train, validation, calibration = (
        (np.concatenate(p), np.concatenate(t)) for p, t in zip(parts, wanted, strict=True)
    )
    said = tuple(classes[int(label)] for label in labels) if classes else labels
    return Dataset(names, regular_step(recordings), train, validation, calibration, said, tuple(targets), lead)


def load_cases(paths: Sequence[Path], task: str, channels: Sequence[str] = ()) -> Dataset:
    """Cases of .ts files, whose windows are as long as the longest case. channels: names for theirs, in order."""
    if task != "classify":
        raise RecordingError(str(paths[0]), "holds labelled cases", "they are for --task classify")
    read_all = [read_cases(p) for p in paths]
    values, labels = read_all[0][0], [label for _, found in read_all for label in found]
    if any(v.shape[1:] != values.shape[1:] for v, _ in read_all):
        raise RecordingError(str(paths[0]), "has cases of another shape than the others", "train on one kind of case")
    return deal(np.concatenate([v for v, _ in read_all]), labels, channels, paths)


def deal(values: NDArray[np.float32], labels: Sequence[str], channels: Sequence[str], paths: Sequence[Path]) -> Dataset:
    """Cases [N, T, C] and the class of each, dealt into the three parts class by class. channels: names, in order."""
    names = tuple(channels) or tuple(f"channel{i + 1}" for i in range(values.shape[2]))
    if len(names) != values.shape[2]:
        raise RecordingError(str(paths[0]), f"has {values.shape[2]} channels", f"--channels names {len(names)}")
    classes = tuple(sorted(set(labels)))
    target = np.array([classes.index(label) for label in labels], np.int64)
    # Within each class the golden ratio deals the cases out, so that each part has its share of each class.
    place = np.concatenate([[GOLDEN * i % 1 for i in range(n)] for n in np.bincount(target, minlength=len(classes))])
    part = np.empty(len(target), int)
    part[np.argsort(target, kind="stable")] = np.searchsorted(np.cumsum(PARTS)[:2], place, side="right")
    train, validation, calibration = ((values[part == k], target[part == k]) for k in range(3))
    if min(len(validation[0]), len(calibration[0])) < len(classes) or len(classes) < 2:
        raise RecordingError(str(paths[0]), f"has {len(labels)} cases of {len(classes)} classes", "it takes more")
    return Dataset(names, None, train, validation, calibration, classes)


def classes_of(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """The classes that rows are labelled with. Raises RecordingError for fewer than two."""
    place = recordings[0].name
    labels = np.unique(np.concatenate([r.labels for r in recordings]))
    classes = tuple(f"{c:g}" for c in labels[np.isfinite(labels)])
    if len(classes) < 2:
        raise RecordingError(place, "holds fewer than two classes", "name the column of numbers with --label")
    return classes


def _now(recording: Recording, length: int, classes: tuple[str, ...]) -> Part:
    """Windows, and the class of each where there are classes, without those that hold more than one."""
    found, ends = windows(recording, length)
    if not classes:
        return found, np.zeros((len(found), 0), np.float32)
    known = np.isfinite(recording.labels)
    labels = np.searchsorted(np.array([float(c) for c in classes]), np.where(known, recording.labels, 0))
    labels = np.where(known, labels, -1)
    pure = np.array([len(set(labels[e - length + 1 : e + 1])) == 1 and labels[e] >= 0 for e in ends], bool)
    return found[pure], labels[ends[pure]]
