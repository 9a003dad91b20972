"""Windows that wait for a model, and asking it: one call for all streams that share it.

`infer` touches nothing but its arguments, so that it may run beside the rest of the pipeline.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from transom.core.events import DeadLetter
from transom.core.grid import Silence
from transom.core.model import Model, Outputs, Windows


@dataclass(slots=True)
class Due:
    """What a batch of readings, or a tick, has completed in one stream.

    silence: series that fell silent or came back; letters: what was refused; moved: a tick closed a step or found a
    silence.
    """

    stream: str
    model: Model
    windows: Windows
    silence: Silence | None = None
    letters: list[DeadLetter] = field(default_factory=list)
    moved: bool = False


def infer(waiting: Sequence[Due]) -> list[Outputs]:
    """What the models make of the windows of each, empty where it has none; incremental ones have said so already."""
    groups: dict[int, list[int]] = {}
    for i, due in enumerate(waiting):
        if len(due.windows) and due.windows.outputs is None:
            groups.setdefault(id(due.model), []).append(i)
    found: list[Outputs] = [due.windows.outputs or {} for due in waiting]
    for rows in groups.values():
        model, values = waiting[rows[0]].model, [waiting[i].windows.values for i in rows]
        outputs = model.infer(values[0] if len(values) == 1 else np.concatenate(values))
        end = 0
        for i, part in zip(rows, values, strict=True):
            begin, end = end, end + len(part)
            found[i] = {key: array[begin:end] for key, array in outputs.items()}
    return found
