"""What a recipe is made of: recordings of a simulated scene, or files of a folder that the user has. A recipe's table
`data` comes in, recordings or paths go out.

    data = { scene = "home", stream = "air", hours = 200, seed = 1 }               simulated, the same for everyone
    data = { folder = "acsf1", files = ["*.ts.gz"], source = "timeseriesclassification.com" }    real, never shipped
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom import scenes
from transom.errors import ModelError
from transom_models import cases, meters
from transom_models.recordings import Recording


def simulated(data: dict[str, Any], place: str) -> tuple[list[Recording], tuple[str, ...]]:
    """The recordings of a stream of a scene, and the names of its classes where it has any. Raises ModelError.

    data: scene, stream, hours (of the sensors' time, of each series), seed; every: of windows, only each so many-th.
    """
    name, stream = str(data["scene"]), str(data.get("stream", ""))
    if name not in scenes.NAMES:
        raise ModelError(f"{place}, data.scene", f"there is no scene {name!r}", f"there are {', '.join(scenes.NAMES)}")
    make = scenes.scene(name).material.get(stream)
    if make is None:
        known = ", ".join(scenes.scene(name).material) or "none"
        raise ModelError(f"{place}, data.stream", f"{stream!r} of {name} is none to learn from", f"there are: {known}")
    traces = make(float(data["hours"]), int(data["seed"]))
    found = [
        Recording(
            t.series, t.channels, t.times, t.values.astype(np.float32),
            np.full(len(t.times), np.nan) if t.labels is None else t.labels, t.targets,
        )
        for t in traces
    ]  # fmt: skip
    return found, traces[0].classes


def files(data: dict[str, Any], given: Sequence[Path], place: str) -> list[Path]:
    """A recipe's files: `given` is their folder, or holds it, or is the files themselves. Raises ModelError.

    data: folder, files (patterns, default all), source (where the data comes from).
    """
    folder, source = str(data["folder"]), str(data.get("source", "its publisher"))
    remedy = f"--data FOLDER, where FOLDER or FOLDER/{folder} holds it; get it from {source}"
    if not given:
        raise ModelError("--data", f"{place} learns from {folder}, which is not shipped", remedy)
    if any(p.is_file() for p in given):
        return list(given)
    patterns = [str(p) for p in data.get("files", ["*"])]
    for root in (given[0] / folder, given[0]):
        found = sorted({f for pattern in patterns for f in root.glob(pattern) if f.is_file()})
        if found:
            return found
    raise ModelError(f"--data {given[0]}", f"holds no {' or '.join(patterns)} of {folder}", remedy)


def metered(data: dict[str, Any], paths: Sequence[Path]) -> tuple[NDArray[np.float32], list[str]]:
    """Cases of appliances in watts, float32 [N, T, 1], and their classes. data: mains, in V (see meters.py)."""
    read = [cases.read_cases(p) for p in paths]
    values = [meters.watts(found, float(data["mains"]), str(p)) for (found, _), p in zip(read, paths, strict=True)]
    return np.concatenate(values), [label for _, labels in read for label in labels]


def told(data: dict[str, Any], paths: Sequence[Path]) -> str:
    """One line for the manifest."""
    if "scene" in data:
        return f"simulated: {data['scene']}, {data['stream']}, {data['hours']} hours, seed {data['seed']}"
    return f"{data['folder']}: {', '.join(p.name for p in paths)}"
