"""Runs to failure as NASA publishes them (C-MAPSS): a table without a header comes in, one recording a unit goes out.

Columns separated by blanks: unit, cycle, three settings, then sensors. The last cycle of each unit is its failure.
"""

import gzip
from pathlib import Path

import numpy as np

from transom.errors import RecordingError
from transom_models.recordings import Recording

SETTINGS = 3


def is_runs(path: Path) -> bool:
    return path.name.endswith((".txt", ".txt.gz"))


def read_runs(path: Path) -> list[Recording]:
    """One recording a unit, in the file's order. Their times are cycles and no clock's. Raises RecordingError."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            table = np.loadtxt(file, ndmin=2)
    except OSError as error:
        raise RecordingError(str(path), error.strerror or str(error), "give a table of runs") from None
    except ValueError as error:
        raise RecordingError(str(path), f"is no table of numbers ({error})", "see `transom train --help`") from None
    if table.shape[1] < 3 or not len(table):
        raise RecordingError(str(path), f"has {table.shape[1]} columns", "it takes unit, cycle and measurements")
    sensors = max(0, table.shape[1] - 2 - SETTINGS)
    names = [f"setting{i + 1}" for i in range(SETTINGS)] + [f"sensor{i + 1}" for i in range(sensors)]
    names = names[: table.shape[1] - 2]
    found = []
    for unit in np.unique(table[:, 0]):
        rows = table[table[:, 0] == unit]
        rows = rows[np.argsort(rows[:, 1], kind="stable")]
        # Cycles as µs: too short for a step in time, so a step is one reading.
        found.append(
            Recording(f"{path.name.split('.')[0]}/{unit:g}", tuple(names), rows[:, 1].astype(np.int64),
                      rows[:, 2:].astype(np.float32), np.full(len(rows), np.nan))
        )  # fmt: skip
    return found
