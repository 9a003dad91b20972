"""What the SKAB scripts share: files, `transom train` on the first rows, `transom replay` of a file, and figures."""

import contextlib
import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transom.cli import main
from transom.core.alerts import CALM_SCORE, Alerts, AlertSpec, State
from transom.core.tables import read_table

FIT = 400  # rows of each file that a detector may fit
BAR = 2.25  # the stream's `threshold`: a deviation of 5 usual sizes
GROUPS = ("valve1", "valve2", "other")
DATA = Path(os.environ.get("TRANSOM_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Table:
    """times: int64 [n] µs; values: float32 [n, C]; labels: bool [n], an anomaly."""

    path: Path
    names: tuple[str, ...]
    times: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.bool_]

    @property
    def group(self) -> str:
        return self.path.parent.name


def read(path: Path) -> Table:
    with path.open(encoding="utf-8", newline="") as text:
        table = read_table(text, str(path))
        times, values = (np.concatenate(part) for part in zip(*table.blocks, strict=True))
    kept = [i for i, name in enumerate(table.names) if name not in ("anomaly", "changepoint")]
    labels = values[:, table.names.index("anomaly")] > 0 if "anomaly" in table.names else np.zeros(len(times), bool)
    return Table(path, tuple(table.names[i] for i in kept), times, values[:, kept].astype(np.float32), labels)


def experiments(folder: Path) -> list[Table]:
    """All labelled files of the benchmark under `folder`, whatever their number."""
    return [read(p) for group in GROUPS for p in sorted((folder / group).glob("*.csv"), key=lambda p: (len(p.name), p))]


def write(path: Path, table: Table, rows: slice = slice(None)) -> Path:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["time", *table.names])
        for time, row in zip(table.times[rows].tolist(), table.values[rows].tolist(), strict=True):
            out.writerow([repr(time / 1e6), *("" if np.isnan(v) else repr(v) for v in row)])
    return path


def run(*arguments: object) -> None:
    """One verb of transom in this process, its output kept back unless it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([str(a) for a in arguments])
    if code:
        raise SystemExit(f"transom {' '.join(map(str, arguments))}\n{said.getvalue()}")


def train(table: Table, folder: Path, family: str, seed: int = 0, rows: slice = slice(FIT)) -> Path:
    model = folder / "model.pt"
    source = write(folder / "fit.csv", table, rows)
    run("train", "--data", source, "--task", "anomaly", "--family", family, "--seed", seed, "--output", model)
    return model


def replay(
    tables: dict[str, Table], model: Path, folder: Path, setting: str
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """setting: a line of TOML. -> by name: score float64 [n], alert bool [n] of each row, by the newest window then."""
    config, output = folder / "replay.toml", folder / "replay.jsonl"
    config.write_text(f'[streams.replay]\ntopic = "replay/{{series}}"\n{setting}\n')
    paths = [write(folder / f"{name}.csv", table) for name, table in tables.items()]
    run("replay", *paths, "-c", config, "--model", model, "--output", output)
    lines: dict[str, list[tuple[np.datetime64, float, bool]]] = {name: [] for name in tables}
    for text in output.open():
        line = json.loads(text)
        lines[line["series"]].append((np.datetime64(line["time"][:-1]), line["score"], line["state"] == "alert"))
    found = {}
    for name, table in tables.items():
        at, score, alert = (np.array(column) for column in zip(*lines[name], strict=True))
        newest = np.searchsorted(at.astype("datetime64[us]").astype(np.int64), table.times, side="right") - 1
        found[name] = np.where(newest < 0, 0.0, score[newest]), alert[newest] & (newest >= 0)
    return found


def alerts(score: NDArray[np.float64], bar: float) -> NDArray[np.bool_]:
    """The agent's own states over one file's scores at another threshold."""
    machine = Alerts(AlertSpec())
    machine.resize(1)
    one, no = np.zeros(1, np.int32), np.zeros(1, bool)
    states = [
        machine.step(one, np.array([i]), np.array([s]), np.array([s >= bar]), np.array([s < CALM_SCORE * bar]), no, no)[
            0
        ]
        for i, s in enumerate(score.tolist())
    ]
    return np.concatenate(states) == State.ALERT


@dataclass(frozen=True)
class Figures:
    f1: float
    far: float
    mar: float

    def __str__(self) -> str:
        return f"F1 {self.f1:.3f}   FAR {100 * self.far:4.1f} %   MAR {100 * self.mar:4.1f} %"


def pooled(tables: Sequence[Table], flags: Sequence[NDArray[np.bool_]]) -> Figures:
    """The benchmark's rule: every row after the first 400 of all files counts once."""
    truth = np.concatenate([t.labels[FIT:] for t in tables])
    said = np.concatenate([f[FIT:] for f in flags])
    hit, false, missed = (truth & said).sum(), (~truth & said).sum(), (truth & ~said).sum()
    return Figures(
        2 * hit / max(1, 2 * hit + false + missed), false / max(1, (~truth).sum()), missed / max(1, truth.sum())
    )
