"""What is trained on, before it is cut into windows: a CSV file comes in, columns go out.

Through the tables that replay reads: the same cells, the same times.
"""

import gzip
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transom.core.tables import HEAD, TIME_NAMES, encoding, read_table
from transom.errors import RecordingError

log = logging.getLogger(__name__)

LABELS = ("anomaly", "changepoint", "label", "class")
REMAINING = "rul"  # the target that is made from where a recording ends


@dataclass(frozen=True, slots=True)
class Recording:
    """One file, or one run. times: int64 µs [n]; values: float32 [n, C]; labels: float64 [n], NaN without a label
    column; targets: float32 [n, C_targets], what a forecast is about where that is not the values, else None."""

    name: str
    channels: tuple[str, ...]
    times: NDArray[np.int64]
    values: NDArray[np.float32]
    labels: NDArray[np.float64]
    targets: NDArray[np.float32] | None = None

    def only(self, channels: Sequence[str]) -> "Recording":
        """With these channels, in this order. Raises RecordingError for one that is not there."""
        missing = [c for c in channels if c not in self.channels]
        if missing:
            raise RecordingError(
                self.name, f"has no channel {', '.join(missing)}", f"it has {', '.join(self.channels)}"
            )
        columns = [self.channels.index(c) for c in channels]
        return replace(self, channels=tuple(channels), values=self.values[:, columns])


def read(
    path: Path, channels: Sequence[str] = (), label: str | None = None, targets: Sequence[str] = (), cap: float = np.inf
) -> Recording:
    """A CSV file. Raises RecordingError where it cannot be read, lacks a channel or holds cells that are no number.

    targets: columns to forecast, which are no inputs unless `channels` names them too; cap: of what `aimed` makes.
    """
    try:
        raw = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # noqa: SIM115  # the next lines do
    except OSError as error:
        raise RecordingError(str(path), error.strerror or str(error), "give a CSV file") from None
    try:
        with raw, io.TextIOWrapper(raw, encoding(raw.peek(HEAD)), errors="replace", newline="") as text:
            table = read_table(text, str(path))
            blocks = list(table.blocks)
    except (OSError, EOFError) as error:  # gzip's too
        raise RecordingError(str(path), f"cannot be read to its end ({error})", "is it whole?") from None
    if table.bad.count:
        first = table.bad.cells[0]
        times = first.column.lower() in TIME_NAMES
        raise RecordingError(
            f"{path}:{first.line}",
            f"{table.bad.count} cells are no number or time, first {first.text!r} in column {first.column!r}",
            "write times as 2026-03-28 14:00:00 (ISO 8601) or in seconds since 1970" if times else
            "mend or remove them: a model learns what it is given",
        )  # fmt: skip
    if table.left and not channels:
        log.warning("%s: left out, for they hold no numbers: %s", path, table.left_out)
    times = np.concatenate([t for t, _ in blocks])
    values = np.concatenate([v for _, v in blocks])
    label = label or next((n for n in table.names if n.lower() in LABELS), None)
    names = tuple(channels) or tuple(n for n in table.names if n.lower() not in LABELS and n not in (label, *targets))
    missing = [n for n in [*names, *([label] if label else [])] if n not in table.names]
    if missing or not names:
        raise RecordingError(
            str(path), f"has no column {', '.join(missing) or 'to learn from'}", f"it has {', '.join(table.names)}"
        )
    order = np.argsort(times, kind="stable")
    labels = values[:, table.names.index(label)] if label else np.full(len(times), np.nan)
    columns = [table.names.index(n) for n in names]
    inputs = values[order][:, columns].astype(np.float32)
    found = Recording(path.stem, names, times[order], inputs, labels[order])
    if not targets:
        return found
    return aimed(found, targets, cap, {n: values[order][:, table.names.index(n)] for n in targets if n in table.names})


def aimed(
    recording: Recording,
    targets: Sequence[str],
    cap: float = np.inf,
    known: Mapping[str, NDArray[np.float64]] | None = None,
) -> Recording:
    """The recording with its targets: columns by name, and for `rul`, where no column has this name, the remaining
    useful life: steps to the recording's end, which is taken for the failure, at most `cap`. Raises RecordingError."""
    known, columns = known or {}, []
    for name in targets:
        if name in known:
            columns.append(known[name])
        elif name in recording.channels:
            columns.append(recording.values[:, recording.channels.index(name)].astype(np.float64))
        elif name == REMAINING:
            columns.append(np.minimum(np.arange(len(recording.times) - 1, -1, -1, dtype=np.float64), cap))
        else:
            raise RecordingError(
                recording.name, f"has no column {name} to forecast", f"it has {', '.join(recording.channels)}"
            )
    return replace(recording, targets=np.stack(columns, 1).astype(np.float32))
