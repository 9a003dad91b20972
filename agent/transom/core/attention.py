"""What people have said of alerts: which series are muted and until when, and who has seen an alert.

Changes in the life of alerts come in, those that are told go out. What a mute keeps back is not lost: an alert that is
still up when it ends is told then. Times are those of the readings, so that any split of messages mutes the same.
"""

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.admission import NEVER
from transom.core.alerts import Change
from transom.core.table import Table

UPDATE, RAISE = 1, 2  # what a mute has kept back of an alert that is up
KINDS = ("", "anomaly", "no-data")
ANOMALY, SILENCE = 1, 2


class Call(NamedTuple):
    """What a person asks of a pipeline. verb: mute, unmute, acknowledge, set-budget, or configured, which ends what
    set-budget has set; at: µs since 1970, when it came; until: µs, the end of a mute; alert: an id, the mute ends with
    it; kind: of the alert that is acknowledged; budget: alarms a millisecond and series."""

    verb: str
    stream: str = ""
    series: str = ""
    at: int = 0
    until: int = 0
    alert: str = ""
    kind: str = ""
    by: str = ""
    budget: float = 0.0


class Attention(Table):
    """muted_until: int64 [S] µs; with_alert: int8 [S], ANOMALY or SILENCE: the mute ends with that alert; kept_back:
    int8 [S], UPDATE or RAISE of an anomaly; silence_kept_back: bool [S], the raise of a no-data alert. seen: by series
    and kind, who has acknowledged the alert and when (µs); withheld: changes that were not told."""

    fills: ClassVar[dict[str, Any]] = {
        "muted_until": NEVER, "with_alert": 0, "kept_back": 0, "silence_kept_back": False,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.muted_until = np.zeros(0, np.int64)
        self.with_alert = np.zeros(0, np.int8)
        self.kept_back = np.zeros(0, np.int8)
        self.silence_kept_back = np.zeros(0, bool)
        self.seen: dict[tuple[int, str], tuple[str, int]] = {}
        self.withheld = 0

    def mute(self, series: int, until: int, kind: str = "") -> None:
        """until: µs, the time of the last reading that is muted; kind: of the alert with which it ends, if it does."""
        self.muted_until[series], self.with_alert[series] = until, KINDS.index(kind)

    def unmute(self, series: int) -> None:
        self.muted_until[series], self.with_alert[series] = NEVER, 0

    def busy(self, series: NDArray[np.int32]) -> NDArray[np.bool_]:
        """bool [n]: muted, or something was kept back."""
        return np.asarray((self.kept_back[series] != 0) | (self.muted_until[series] != NEVER))

    def tell(
        self, series: NDArray[np.int32], end: NDArray[np.int64], change: NDArray[np.uint8], active: NDArray[np.bool_]
    ) -> NDArray[np.uint8]:
        """change: uint8 [n] of the anomaly alerts of these (distinct) series by windows that end at `end` (µs); active:
        bool [n], after it -> what is told, uint8 [n]. An end is told while muted too, if the alert was: its topic is
        retained, and would show for ever what is over."""
        if not self.busy(series).any():
            return change
        before = self.kept_back[series]
        muted = end <= self.muted_until[series]
        over = change == Change.CLEAR
        hidden = (muted & ~over & (change != Change.NONE)) | (over & (before == RAISE))
        late = ~muted & active & ~over & (before != 0)
        told = np.where(late, np.where(before == RAISE, Change.RAISE, Change.UPDATE), np.where(hidden, 0, change))
        kept = np.where(change == Change.RAISE, RAISE, np.where(change == Change.UPDATE, UPDATE, 0)).astype(np.int8)
        self.kept_back[series] = np.where(muted & ~over, np.maximum(before, kept), 0)
        self.withheld += int(hidden.sum())
        for i in series[over & hidden].tolist():  # nobody hears of its end
            self.seen.pop((i, KINDS[ANOMALY]), None)
        for i in series[~muted | (over & (self.with_alert[series] == ANOMALY))].tolist():
            self.unmute(i)
        return told.astype(np.uint8)

    def tell_silence(
        self, series: NDArray[np.int32], time: NDArray[np.int64], change: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """The same for no-data alerts. time: µs, of arrival."""
        muted, before = time <= self.muted_until[series], self.silence_kept_back[series]
        over = change == Change.CLEAR
        hidden = (muted & (change == Change.RAISE)) | (over & before)
        self.silence_kept_back[series] = np.where(over, False, before | (muted & (change == Change.RAISE)))
        self.withheld += int(hidden.sum())
        for i in series[over & hidden].tolist():
            self.seen.pop((i, KINDS[SILENCE]), None)
        for i in series[over & (self.with_alert[series] == SILENCE)].tolist():
            self.unmute(i)
        return np.where(hidden, 0, change).astype(np.uint8)

    def waking(self, now: int) -> NDArray[np.int32]:
        """Series whose mute is over at `now` (µs) and whose silence was kept back: it is told now."""
        ids = np.flatnonzero(self.silence_kept_back & (self.muted_until < now)).astype(np.int32)
        self.silence_kept_back[ids] = False
        return ids

    def muted(self) -> int:
        """How many series are muted; one whose mute is over counts until its next window."""
        return int((self.muted_until != NEVER).sum())

    def acknowledge(self, series: int, kind: str, by: str, at: int) -> None:
        self.seen[series, kind] = by, at

    def reset(self, series: NDArray[np.int32]) -> None:
        super().reset(series)
        gone = set(series.tolist())
        self.seen = {key: value for key, value in self.seen.items() if key[0] not in gone}

    def snapshot(self) -> dict[str, Any]:
        seen = [[series, kind, by, at] for (series, kind), (by, at) in self.seen.items()]
        return super().snapshot() | {"seen": seen, "withheld": self.withheld}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self.seen = {(series, kind): (by, at) for series, kind, by, at in state["seen"]}
        self.withheld = int(state["withheld"])
