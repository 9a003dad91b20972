"""Incremental models: each step of each series goes through the model once, and its state is kept beside the windows.

Steps in, `Windows` with their outputs out. A window's numbers are those of the window recomputed, for the work of one
step; what a gap or a new series means is in the steps themselves: missing values, and the state that knows nothing.
"""

from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.model import IncrementalModel, Model, Windows
from transom.core.readings import Steps
from transom.core.windows import Buffers


def buffers_for(model: Model, stride: int) -> Buffers:
    """The windows of a stream, and for an incremental model (`manifest.state`) its state."""
    m = model.manifest
    if m.state:
        return SteppedBuffers(cast(IncrementalModel, model), stride)
    return Buffers(m.length, len(m.channels), stride, m.min_steps)


class SteppedBuffers(Buffers):
    """state: float32 [S, n], of each series after its last step."""

    fills: ClassVar[dict[str, Any]] = {**Buffers.fills, "state": 0.0}

    def __init__(self, model: IncrementalModel, stride: int = 1) -> None:
        m = model.manifest
        super().__init__(m.length, len(m.channels), stride, m.min_steps)
        self.model = model
        self.state = np.zeros((0, m.state), np.float32)

    def resize(self, size: int) -> None:
        before = len(self.state)
        super().resize(size)
        self.state[before:] = self.model.start

    def reset(self, series: NDArray[np.int32]) -> None:
        super().reset(series)
        self.state[series] = self.model.start

    def push(self, steps: Steps) -> Windows:
        """As `Buffers.push`; every step advances its series, also those whose window is not due."""
        if not len(steps):
            return super().push(steps)
        rank = segments.ranks(segments.starts(steps.series))
        due = self._due(self.seen[steps.series] + rank + 1, steps.fresh)
        outputs = self._advance(steps, rank, due)
        windows = super().push(steps)
        return Windows(windows.series, windows.end, windows.values, outputs)

    def _advance(self, steps: Steps, rank: NDArray[np.int64], due: NDArray[np.bool_]) -> dict[str, NDArray[np.float32]]:
        """The first step of each series as one batch, then the second, …; the outputs of the due ones, in order."""
        order = np.argsort(rank, kind="stable")
        place = np.cumsum(due) - 1
        outputs: dict[str, NDArray[np.float32]] = {}
        for rows in np.split(order, np.cumsum(np.bincount(rank))[:-1]):
            ids = steps.series[rows]
            given, self.state[ids] = self.model.step(steps.values[rows], self.state[ids])
            wanted = due[rows]
            for key, array in given.items():
                if key not in outputs:
                    outputs[key] = np.zeros((int(due.sum()), *array.shape[1:]), np.float32)
                outputs[key][place[rows[wanted]]] = array[wanted]
        return outputs
