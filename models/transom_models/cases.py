"""Labelled cases as the UEA archive publishes them (.ts): a text file comes in, windows with their classes go out.

After `@data` one case a line: channels separated by `:`, their values by `,`, the class last; `?` is missing.
"""

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transom.errors import RecordingError


def is_cases(path: Path) -> bool:
    return path.name.endswith((".ts", ".ts.gz"))


def read_cases(path: Path) -> tuple[NDArray[np.float32], list[str]]:
    """float32 [N, T, C], NaN where missing and before a shorter case, and N classes. Raises RecordingError."""
    cases: list[list[list[float]]] = []
    labels: list[str] = []
    begun = False
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, line in enumerate(file, 1):
                text = line.strip()
                if not begun:
                    begun = text.lower() == "@data"
                elif text:
                    *channels, label = text.split(":")
                    cases.append([_numbers(c, f"{path}:{number}") for c in channels])
                    labels.append(label.strip())
    except OSError as error:
        raise RecordingError(str(path), error.strerror or str(error), "give a .ts file") from None
    widths = {len(c) for c in cases}
    if len(widths) != 1 or not min(widths):
        problem = "has no cases" if not cases else f"has cases of {' and '.join(map(str, sorted(widths)))} channels"
        raise RecordingError(str(path), problem, "after @data, one case a line: channel:channel:class")
    longest = max(len(values) for case in cases for values in case)
    found = np.full((len(cases), longest, widths.pop()), np.nan, np.float32)
    for i, case in enumerate(cases):
        for j, values in enumerate(case):
            found[i, longest - len(values) :, j] = values
    return found, labels


def _numbers(text: str, place: str) -> list[float]:
    try:
        return [float("nan") if v.strip() in ("?", "NaN") else float(v) for v in text.split(",")]
    except ValueError as error:
        raise RecordingError(place, f"holds no number ({error})", "write ? for a missing value") from None
