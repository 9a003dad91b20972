"""Which channels carry an alert: those that its sentence names, and when one more has earned a word of its own.

An alert is raised by the channel that shows first, and its sentence of that second can know no other. Another that
carries a substantial part of the score in OFTEN of the last OF windows over the bar, and was not named so far, is
told of by an update. Contributions in, channels out; knows no names and no units.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.table import Table

SHARE = 0.25  # of the score: a channel that carries more is named (three at most can)
ENOUGH = 2 / 3  # of the score: and as many, largest first, as it takes for so much
NAMED = 3  # channels in one sentence at most
OFTEN, OF = 3, 5  # windows over the bar in which it does so before an update tells of it
UPDATES = 3  # such updates an alert at most


def carriers(contribution: NDArray[Any]) -> NDArray[np.bool_]:
    """contribution: [n, C] >= 0 -> bool [n, C]: the channels that a sentence names, one at least, NAMED at most."""
    c = np.nan_to_num(contribution.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    order = np.argsort(-c, axis=1, kind="stable")
    share = np.take_along_axis(c, order, 1) / np.maximum(c.sum(1, keepdims=True), 1e-300)
    before = np.cumsum(share, 1) - share
    named = ((before < ENOUGH) & (share > 0)) | (share > SHARE)
    named[:, NAMED:], named[:, :1] = False, True
    found = np.zeros(c.shape, bool)
    np.put_along_axis(found, order, named, 1)
    return found


def in_order(place: NDArray[np.uint8]) -> list[int]:
    """place: [C], see `Blame` -> the channels that were named, first named first."""
    return sorted(np.flatnonzero(place).tolist(), key=place.__getitem__)


class Blame(Table):
    """place: uint8 [S, C], the how-manieth a channel was to be named in the alert that is up, 0 = not named; often:
    uint8 [S, C], those of the alert's last OF windows in which it carried the score, newest in bit 0; told: uint8 [S],
    updates."""

    fills: ClassVar[dict[str, Any]] = {"place": 0, "often": 0, "told": 0}

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.place, self.often = np.zeros((0, channels), np.uint8), np.zeros((0, channels), np.uint8)
        self.told = np.zeros(0, np.uint8)

    def weigh(
        self, series: NDArray[np.int32], contribution: NDArray[Any], over: NDArray[np.bool_], up: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:  # fmt: skip
        """One window of each of these (distinct) series -> bool [n]: its alert, which is `up`, has one more to name.
        contribution: [n, C]; over: bool [n], the score is over the bar."""
        if not up.any():  # nearly always
            return up
        total = np.maximum(contribution.sum(1, keepdims=True), 1e-30)
        carries = over[:, None] & (contribution > SHARE * total)
        carries &= up[:, None]
        often = ((self.often[series] << np.uint8(1)) | carries) & np.uint8((1 << OF) - 1)
        self.often[series] = often
        earned = carries & (self.place[series] == 0) & (np.bitwise_count(often) >= OFTEN)
        more = up & earned.any(1) & (self.told[series] < UPDATES)
        self.told[series] += more
        return np.asarray(more)

    def name(self, series: NDArray[np.int32], contribution: NDArray[Any]) -> None:
        """A sentence about these windows is told: whom it names is remembered until `forget`."""
        place = self.place[series]
        fresh = carriers(contribution) & (place == 0)
        order = np.argsort(-contribution, axis=1, kind="stable")
        rising = np.take_along_axis(fresh, order, 1)
        nth = np.where(rising, place.max(1, keepdims=True) + np.cumsum(rising, 1), 0).astype(np.uint8)
        np.put_along_axis(nth, order, nth.copy(), 1)
        self.place[series] = np.where(fresh, nth, place)

    def forget(self, series: NDArray[np.int32]) -> None:
        """The alerts of these series are over."""
        self.place[series], self.often[series], self.told[series] = 0, 0, 0
