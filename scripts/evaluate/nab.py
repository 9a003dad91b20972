"""NAB's standard rule over the pipeline as it ships: figures, ablation, leave-one-category-out. A data folder in.

Every file is a series of one pipeline, in event time by row; p-values and alerts are those that `transom replay` gives.
"""

import argparse
import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core import habit, news, novelty, own
from transom.core.alerts import State
from transom.core.habit import Habits
from transom.core.model import Model
from transom.core.news import Records
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.runtimes import bundle, torchscript

PUBLISHED = (
    ("ARTime", 78.2), ("CAD OSE", 74.1), ("Numenta HTM", 71.2), ("KNN-CAD", 64.4), ("Relative Entropy", 56.3),
    ("Random Cut Forest", 52.0), ("Windowed Gaussian", 36.7), ("random", 20.9),
)  # fmt: skip
FALSE = 0.11  # what a false detection costs
Floats = NDArray[np.float64]


@dataclass
class File:
    """windows: (first, last) row of each anomaly; weight: float64 [n], what a detection in each row is worth;
    of: int [n], the anomaly that a row is of, or -1; probation: rows that do not count."""

    name: str
    category: str
    time: NDArray[np.int64]  # ms
    value: Floats
    windows: list[tuple[int, int]]

    def __post_init__(self) -> None:
        row, n = np.arange(len(self.value)), len(self.value)
        self.probation = min(int(0.15 * n), 750)
        self.weight, self.of = np.full(n, -FALSE), np.full(n, -1)
        for first, last in self.windows:
            after = row > last
            self.weight[after] = FALSE * sigmoid((row[after] - last) / (last - first))
        for i, (first, last) in enumerate(self.windows):
            inside = (row >= first) & (row <= last)
            self.weight[inside] = sigmoid(-(last - row[inside] + 1) / (last - first + 1)) / sigmoid(np.array(-1.0))
            self.of[inside] = i


def sigmoid(y: Floats) -> Floats:
    """NAB's: 1 long before the end of a window, 0 at it, -1 long after."""
    return np.where(y > 3, -1.0, 2 / (1 + np.exp(5 * np.minimum(y, 3))) - 1)


def load(folder: Path) -> list[File]:
    files = []
    for name, windows in json.loads((folder / "labels.json").read_text()).items():
        with (folder / name).open() as lines:
            rows = list(csv.DictReader(lines))
        time = np.array([_ms(r["timestamp"]) for r in rows])
        at = {t: i for i, t in reversed(list(enumerate(time.tolist())))}
        spans = sorted((at[_ms(a)], at[_ms(b)]) for a, b in windows)
        values = np.array([float(r["value"]) for r in rows])
        files.append(File(Path(name).stem, name.split("/")[0], time, values, spans))
    return files


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text.split(".")[0]).replace(tzinfo=UTC).timestamp()) * 1000


def by_own_past(files: list[File], first: int) -> list[Floats]:
    """-p_value by row as the core gives it without pipeline, network and alerts: for runs that ask what a part does.
    first: the row of the first window."""
    series = own.Own(None)
    series.resize(len(files))
    score = [np.full(len(f.value), -np.inf) for f in files]
    for i in range(first, max(len(f.value) for f in files)):
        ids = np.array([j for j, f in enumerate(files) if i < len(f.value)], np.int32)
        end = np.array([files[j].time[i] * 1000 for j in ids])
        value = np.array([files[j].value[i] for j in ids], np.float32)
        told = series.judge(ids, end, value, np.full(len(ids), 1e-4))
        series.learn(ids, told)
        for j, p_value in zip(ids, np.where(told.news, told.p_value, 1.0), strict=True):
            score[j][i] = -p_value
    return score


def judged(files: list[File], model: Model, **spec: Any) -> tuple[list[Floats], list[NDArray[np.bool_]]]:
    """-> of each file: -p_value by row (-inf where there is none), and whether an alert rises there."""
    pipeline = Pipeline([(StreamSpec("nab", "nab/{device}/{channel}", **spec), model)])
    score = [np.full(len(f.value), -np.inf) for f in files]
    alert = [np.zeros(len(f.value), bool) for f in files]
    row_of = [{t: i for i, t in enumerate(f.time.tolist())} for f in files]
    for i in range(max(len(f.value) for f in files)):
        messages = [
            Message(f"nab/{j}/value", b'{"value":%r,"time":%d}' % (float(f.value[i]), f.time[i]), int(f.time[i]))
            for j, f in enumerate(files)
            if i < len(f.value)
        ]
        for p in pipeline.process(messages).predictions:
            assert p.p_value is not None
            for name, end, p_value, state in zip(p.series, p.end, p.p_value, p.state, strict=True):
                j = int(name.split("/")[0])
                row = row_of[j][int(end) // 1000]
                score[j][row], alert[j][row] = -p_value, state == State.ALERT
    for a in alert:
        a[1:] &= ~a[:-1]
    return score, alert


def curve(files: list[File], scores: list[Floats]) -> tuple[Floats, Floats]:
    """Thresholds, falling, and the points over the null detector that each gives."""
    levels, gains = [np.zeros(0)], [np.zeros(0)]
    for f, s in zip(files, scores, strict=True):
        score, weight, of = s[f.probation :], f.weight[f.probation :], f.of[f.probation :]
        levels.append(score[of < 0])
        gains.append(weight[of < 0])
        for i in range(len(f.windows)):
            rows = np.flatnonzero(of == i)
            rows = rows[np.lexsort((-weight[rows], -score[rows]))]
            levels.append(score[rows])
            gains.append(np.diff(np.maximum.accumulate(np.append(-1.0, weight[rows]))))
    level, gain = np.concatenate(levels), np.concatenate(gains)
    order = np.argsort(-level, kind="stable")
    level, points = level[order], np.cumsum(gain[order])
    ends = np.append(level[1:] != level[:-1], True)[: len(level)] & np.isfinite(level)
    return level[ends], points[ends]


def optimised(files: list[File], scores: list[Floats]) -> tuple[float, float]:
    """The best figure over all thresholds, 100 = perfect, and that threshold."""
    level, points = curve(files, scores)
    best = int(np.argmax(points))
    return 50 * points[best] / _windows(files), level[best]


def points_at(files: list[File], scores: list[Floats], threshold: float) -> float:
    level, points = curve(files, scores)
    at = int(np.searchsorted(-level, -threshold, side="right")) - 1
    return float(points[at]) if at >= 0 else 0.0


def _windows(files: list[File]) -> int:
    return sum(len(f.windows) for f in files)


def as_shipped(files: list[File], alerts: list[NDArray[np.bool_]]) -> float:
    total = 0.0
    for f, rises in zip(files, alerts, strict=True):
        counted = rises & (np.arange(len(rises)) >= f.probation)
        total += float(f.weight[counted & (f.of < 0)].sum())
        total += sum(1 + float(f.weight[counted & (f.of == i)].max()) for i in set(f.of[counted].tolist()) - {-1})
    return 50 * total / _windows(files)


def left_out(files: list[File], tried: list[list[Floats]]) -> float:
    """Each category scored with what is best on the others: the threshold and, of several runs, the run."""
    total = 0.0
    for category in sorted({f.category for f in files}):
        rest = [i for i, f in enumerate(files) if f.category != category]
        out = [i for i, f in enumerate(files) if f.category == category]
        found = [optimised([files[i] for i in rest], [scores[i] for i in rest]) for scores in tried]
        best = int(np.argmax([figure for figure, _ in found]))
        total += points_at([files[i] for i in out], [tried[best][i] for i in out], found[best][1])
    return 50 * total / _windows(files)


@contextmanager
def changed(*changes: tuple[Any, str, Any]) -> Iterator[None]:
    """(module or class, name, other value): so while the context lasts."""
    before = [(place, name, getattr(place, name)) for place, name, _ in changes]
    for place, name, value in changes:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in before:
            setattr(place, name, value)


def _always(_room: Any, series: NDArray[Any], _surprise: Floats, _shorter: Floats) -> Any:
    return np.ones(len(series), bool), np.ones(len(series), bool)


def _no_habit(_room: Any, _series: NDArray[Any], _end: NDArray[Any], value: Floats) -> Floats:
    return np.zeros(len(value))


ABLATION: tuple[tuple[str, tuple[tuple[Any, str, Any], ...]], ...] = (
    ("no habits", ((Habits, "departure", _no_habit),)),
    ("no recent level", ((novelty, "LEVEL", 1.0),)),
    ("no records: every window is news", ((Records, "news", _always),)),
    ("8 centres in place of 64", ((novelty, "PLACES", 8),)),
    ("no tail of its own: novelty as it is", ((own, "PRIOR", 1e9),)),
)
GRID: tuple[tuple[str, tuple[tuple[Any, str, Any], ...]], ...] = (
    ("records for 5 % of the windows", ((news, "SHARE", 0.05),)),
    ("records for 15 %", ((news, "SHARE", 0.15),)),
    ("2 neighbours", ((novelty, "NEIGHBOURS", 2),)),
    ("5 neighbours", ((novelty, "NEIGHBOURS", 5),)),
    ("32 centres", ((novelty, "PLACES", 32),)),
    ("96 centres", ((novelty, "PLACES", 96),)),
    ("recent level of 8", ((novelty, "LEVEL", 8.0),)),
    ("recent level of 32", ((novelty, "LEVEL", 32.0),)),
    ("habit prior of 2 visits", ((habit, "PRIOR", 2.0),)),
    ("the current hour as 1 visit", ((habit, "CURRENT", 1.0),)),
    ("tail from 20 %", ((own, "TAIL", 0.2),)),
    ("tail prior of 100 windows", ((own, "PRIOR", 100.0),)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with labels.json and NAB's files")
    parser.add_argument("--model", default="universal")
    parser.add_argument("--ablation", action="store_true", help="also without each part, and with other constants")
    args = parser.parse_args()
    files = load(args.folder)
    model = torchscript.load(bundle.find_model(args.model, Path()), threads=1)
    print(f"{'':48}optimised  leave one category out  as shipped", flush=True)
    scores, alerts = judged(files, model)
    _print("as it is", files, scores, f"{as_shipped(files, alerts):>12.1f}")
    if args.ablation:
        tried = [scores]
        for name, changes in ABLATION:
            with changed(*changes):
                _print(name, files, by_own_past(files, model.manifest.min_steps - 1))
        for name, changes in GRID:
            with changed(*changes):
                tried.append(by_own_past(files, model.manifest.min_steps - 1))
            _print(name, files, tried[-1])
        print(f"{'constants chosen on the other categories too':48}{'':9}{left_out(files, tried):>24.1f}")
    for name, figure in PUBLISHED:
        print(f"{name:48}{figure:>9.1f}")


def _print(name: str, files: list[File], scores: list[Floats], more: str = "") -> None:
    print(f"{name:48}{optimised(files, scores)[0]:>9.1f}{left_out(files, [scores]):>24.1f}{more}", flush=True)


if __name__ == "__main__":
    main()
