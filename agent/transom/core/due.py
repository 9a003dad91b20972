"""Windows that wait for a model, and asking it: one call for all streams that share it.

`infer` touches nothing but its arguments and the states of incremental models, which nobody else touches before its
turn is judged, so that it may run beside the rest of the pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from transom.core.events import DeadLetter
from transom.core.grid import Silence
from transom.core.model import IncrementalModel, Model, Outputs, Windows
from transom.core.stepping import Advance, advance


@dataclass(slots=True)
class Due:
    """What a batch of readings, or a tick, has completed in one stream.

    steps: of an incremental model, what it must be told to say something of the windows; silence: series that fell
    silent or came back; letters: what was refused; moved: a tick closed a step or found a silence.
    """

    stream: str
    model: Model
    windows: Windows
    steps: Advance | None = None
    silence: Silence | None = None
    letters: list[DeadLetter] = field(default_factory=list)
    moved: bool = False

    @property
    def rows(self) -> int:
        """How many a model is asked for."""
        return len(self.windows) if self.steps is None else len(self.steps)


def infer(waiting: Sequence[Due]) -> list[Outputs]:
    """What the models make of the windows of each, empty where it has none. To be called for all that was gathered, in
    its order: incremental models go on from one call to the next."""
    groups: dict[int, list[int]] = {}
    for i, due in enumerate(waiting):
        if due.rows:
            groups.setdefault(id(due.model), []).append(i)
    found: list[Outputs] = [{} for _ in waiting]
    for rows in groups.values():
        for i, outputs in zip(rows, _asked([waiting[i] for i in rows]), strict=True):
            found[i] = outputs
    return found


def _asked(several: Sequence[Due]) -> list[Outputs]:
    """Of one model."""
    model, steps = several[0].model, [due.steps for due in several if due.steps is not None]
    if steps:
        return advance(cast(IncrementalModel, model), steps)
    values = [due.windows.values for due in several]
    outputs = model.infer(values[0] if len(values) == 1 else np.concatenate(values))
    found: list[Outputs] = []
    end = 0
    for part in values:
        begin, end = end, end + len(part)
        found.append({key: array[begin:end] for key, array in outputs.items()})
    return found
