"""A stream goes on with another model: what of its state is the plant's stays, what was the model's is made again.

The plant's are series, open steps, windows, rhythm, the levels of the days, alerts that are up and what people have
said of them. The model's are the calibration, and the state of an incremental one. These come from the model's shadow,
where one has seen the very same windows, else from the last windows, which the model looks at once more. A series' own
past (`own`) is learned from values alone, so it stays.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from transom.core import segments
from transom.core.model import IncrementalModel
from transom.core.stream import Stream

LATEST = 16  # windows of a series that are looked at again, at most
MOST = 20_000  # windows of all series together
BATCH = 1024

State = Mapping[str, Any]
_RHYTHM = ("windows", "interval", "last_end")  # of the calibration: the plant's


def fits(stream: Stream, saved: State) -> bool:
    """Whether `saved`, a stream's snapshot with another model, has this one's shape."""
    shape = slice(2, None)  # of the fingerprint: without label and digest of the model
    return list(saved["fingerprint"])[shape] == stream.fingerprint()[shape] and saved.get("kind") == stream.kind()


def adopt(stream: Stream, saved: State, shadow: State | None = None) -> None:
    """Into a stream that is new, and `fits`. shadow: a snapshot of a stream with this model that took the same turns;
    where it did not see the same windows it does not count. Raises as `Stream.restore`."""
    if shadow is not None and not _same_windows(saved, shadow):
        shadow = None
    judge, buffers = dict(saved["judge"]), dict(saved["buffers"])
    buffers.pop("state", None)
    stream.buffers.restore(buffers)
    if stream.model.manifest.state:
        state = shadow["buffers"]["state"] if shadow is not None else _stepped(stream)
        cast(Any, stream.buffers).state = np.array(state)
    if stream.judge.own is None:
        judge["calibration"] = (
            shadow["judge"]["calibration"] if shadow is not None else _calibrated(stream, judge["calibration"], judge)
        )
        judge["drift"] = _without_score(stream, judge["drift"]) if "drift" in judge else stream.judge.drift.snapshot()
    judge["alerts"] = _carried(judge["alerts"])
    stream.restore({**saved, "buffers": stream.buffers.snapshot(), "judge": judge})


def _same_windows(saved: State, shadow: State) -> bool:
    return all(
        np.array_equal(saved["buffers"][key], shadow["buffers"][key]) for key in ("seen", "filled")
    ) and list(saved["intake"]["names"]) == list(shadow["intake"]["names"])  # fmt: skip


def _carried(alerts: State) -> dict[str, Any]:
    """Alerts that are up stay up, under their ids, until this model finds the series calm; what it makes of them is
    told with its first window."""
    active = np.array(alerts["active"])
    return {
        **alerts, "calm": np.zeros_like(alerts["calm"]),
        **{key: np.where(active, 0.0, alerts[key]) for key in ("peak", "told")},
    }  # fmt: skip


def _without_score(stream: Stream, drift: State) -> dict[str, Any]:
    """The score of another model is another channel: it has no past."""
    own = stream.judge.drift
    fresh = {**drift}
    if own.levels.shape[1] > len(stream.model.manifest.channels):
        for name, fill in own.fills.items():
            column = np.array(drift[name])
            if column.ndim > 1:
                column[:, -1] = fill
            fresh[name] = column
    return fresh


def _calibrated(stream: Stream, before: State, judge: State) -> dict[str, Any]:
    """The calibration of the manifest, after the last windows; those of an alert teach nothing."""
    calibration = stream.judge.calibration
    calibration.resize(int(before["size"]))
    active = np.array(judge["alerts"]["active"])
    for series, values in _last_windows(stream):
        u = calibration.table.surprise(np.nan_to_num(stream.model.infer(values)["score"], posinf=0.0, neginf=0.0))
        rank = segments.ranks(segments.starts(series))
        for i in range(int(rank.max()) + 1):
            rows = rank == i
            taken = rows & ~active[series]
            calibration.take(series[taken], u[taken], calibration.look(series[taken]))
    return {**calibration.snapshot(), **{key: np.array(before[key]) for key in _RHYTHM}}


def _last_windows(stream: Stream) -> Any:
    """Parts of (series int32 [n], sorted; float32 [n, T, C]), the newest windows of each series, in their order."""
    buffers = stream.buffers
    if stream.model.manifest.task != "anomaly" or not buffers.size:
        return
    known = np.flatnonzero(buffers.filled > 0)
    each = min(LATEST, max(1, MOST // max(len(known), 1)))
    back = np.arange(each)[::-1]
    series, behind = np.repeat(known, each), np.tile(back, len(known))
    start = buffers.filled[series] - 1 - behind
    nth = buffers.seen[series] - behind
    last = buffers.buffer[series, np.maximum(start, 0) + buffers.length - 1]
    due = (start >= 0) & (nth >= buffers.min_steps) & ((nth - buffers.min_steps) % buffers.stride == 0)
    rows = np.flatnonzero(due & np.isfinite(last).any(1))[:MOST]
    for begin in range(0, len(rows), BATCH):
        some = rows[begin : begin + BATCH]
        yield series[some].astype(np.int32), buffers.windows_at(series[some], start[some])


def _stepped(stream: Stream) -> NDArray[np.float32]:
    """float32 [S, n]: the state of each series after the steps of its last window, from one that knows nothing."""
    buffers, model = stream.buffers, cast(IncrementalModel, stream.model)
    state = np.repeat(model.start[None], buffers.size, 0)
    known = np.flatnonzero(buffers.filled > 0)
    for begin in range(0, len(known), BATCH):
        ids = known[begin : begin + BATCH]
        values = buffers.windows_at(ids, buffers.filled[ids] - 1)
        for i in range(buffers.length):
            _, state[ids] = model.step(np.ascontiguousarray(values[:, i]), state[ids])
    return state
