"""Recordings on a grid of time, as a gateway has it: by the core's own cells and filling. Rows in, steps out."""

from dataclasses import replace

import numpy as np

from transom.core.admission import MS, GridSpec
from transom.core.cells import Cells
from transom.core.fill import Fill
from transom.core.model import Aggregate
from transom_models.recordings import Recording


def stepped(recording: Recording, step: int, aggregate: Aggregate, length: int) -> Recording:
    """The recording with one row a step of so many ms, missing values held as long as a gateway holds them.

    length: steps of a window; a longer gap stays a gap. Its targets are what the steps really had, NaN where nothing
    came, so that no held value is taken for the truth; targets of its own, and labels, are those of a step's last row.
    """
    began = recording.times - recording.times % (step * MS)
    steps, group = np.unique(began, return_inverse=True)
    channels = len(recording.channels)
    cells = Cells.empty(len(steps), channels, aggregate)
    row, column = np.nonzero(np.isfinite(recording.values))
    cells.add(
        group[row] * channels + column, recording.times[row], recording.values[row, column].astype(float), aggregate
    )
    own = cells.result(aggregate).astype(np.float32)
    filled = Fill(GridSpec(step, aggregate), channels, length)
    filled.resize(1)
    made = filled.fill(np.zeros(len(steps), np.int32), steps, cells)
    place = np.searchsorted(steps, made.time)
    last = np.append(np.flatnonzero(np.diff(began)), len(began) - 1)  # of each step, the last row

    def spread(columns: np.ndarray) -> np.ndarray:
        found = np.full((len(made.time), *columns.shape[1:]), np.nan, columns.dtype)
        found[made.fresh] = columns[place[made.fresh]]
        return found

    return replace(
        recording,
        times=made.time,
        values=made.values,
        labels=spread(recording.labels[last]),
        targets=spread(own if recording.targets is None else recording.targets[last]),
    )
