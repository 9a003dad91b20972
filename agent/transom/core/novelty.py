"""How unlike everything that a series has shown before its present situation is. Situations in, surprise out.

A situation is a point: the value, its departure from the habit, and the recent level, all in the series' own unit.
Novelty is the distance (the largest of the differences) to the NEIGHBOURS-th nearest situation of the past, in units
of that distance's own mean: the nonconformity of conformal k-nearest-neighbour detectors (Laxhammar & Falkman 2011;
Burnaev & Ishimtsev, "Conformalized density- and distance-based anomaly detection in time-series data", 2016), with the
past kept as at most PLACES centres and how many situations each stands for. A situation within the resolution of a
centre joins it; else it becomes a centre, and when there is no room the two nearest join and the resolution grows to
their distance (leader clustering with a growing radius: Charikar et al., "Incremental clustering and dynamic
information retrieval", STOC 1997). So what was seen NEIGHBOURS times, however long ago, is no news.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from transom.core.table import Table

PLACES = 64
SIDES = 3
NEIGHBOURS = 3
LEVEL = 16.0  # readings that the recent level is a mean of
FIRST = 20  # readings before anything is novel
LARGEST = 1e6  # mean distances that a novelty counts for at most
MEMORY = 5000.0  # readings after which old ones fade in the mean distance


class Situations(Table):
    """centres: float32 [S, PLACES, SIDES]; members: float32 [S, PLACES], 0 = free; resolution: float32 [S];
    places: int16 [S], centres in use; level: float64 [S]; usual: float64 [S], mean distance; seen: int64 [S]."""

    fills: ClassVar[dict[str, Any]] = {
        "centres": 0.0, "members": 0.0, "places": 0, "resolution": 0.0, "level": 0.0, "usual": 0.0, "seen": 0,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.centres = np.zeros((0, PLACES, SIDES), np.float32)
        self.members = np.zeros((0, PLACES), np.float32)
        self.places = np.zeros(0, np.int16)
        self.resolution = np.zeros(0, np.float32)
        self.level, self.usual = np.zeros(0), np.zeros(0)
        self.seen = np.zeros(0, np.int64)

    def novelty(
        self, series: NDArray[np.int32], value: NDArray[np.float64], departure: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """value, departure: float64 [n], finite, of distinct series -> novelty float64 [n] >= 0, mean 1; then learned."""
        seen = self.seen[series]
        level = self.level[series]
        level = level + (value - level) / np.minimum(seen + 1, LEVEL)
        self.level[series] = level
        point = np.stack([value, departure, level], 1).astype(np.float32)
        members = self.members[series]
        away = np.abs(self.centres[series] - point[:, None, :]).max(2)
        away[members == 0] = np.inf
        distance = self._neighbour(away, members)
        old = seen >= FIRST
        distance = np.where(old, distance, 0.0)
        usual = self.usual[series]
        # What has never moved has a resolution too: a millionth of its size.
        found = np.minimum(distance / np.maximum(usual, 1e-6 * np.abs(level) + 1e-30), LARGEST)
        n = np.minimum(seen + 1, MEMORY)
        self.usual[series] = usual + (distance - usual) / n
        self.seen[series] = seen + 1
        self._learn(series, point, away)
        return found

    @staticmethod
    def _neighbour(away: NDArray[np.float32], members: NDArray[np.float32]) -> NDArray[np.float64]:
        """The distance within which NEIGHBOURS situations lie, or that of the farthest known one; float64 [n]."""
        # Each centre stands for one situation at least, so the nearest NEIGHBOURS centres are enough.
        at = np.argpartition(away, NEIGHBOURS - 1, 1)[:, :NEIGHBOURS]
        near = np.take_along_axis(away, at, 1)
        order = np.argsort(near, 1, kind="stable")
        near = np.take_along_axis(near, order, 1)
        known = np.cumsum(np.take_along_axis(np.take_along_axis(members, at, 1), order, 1), 1)
        enough = (known >= NEIGHBOURS).argmax(1)
        found = near[np.arange(len(near)), enough]
        return np.where(np.isfinite(found), found, 0.0).astype(np.float64)

    def _learn(self, series: NDArray[np.int32], point: NDArray[np.float32], away: NDArray[np.float32]) -> None:
        nearest = away.argmin(1)
        least = away[np.arange(len(away)), nearest]
        joins = least <= self.resolution[series]
        fresh = np.flatnonzero(~joins)
        if len(fresh):
            ids = series[fresh]
            free = self.places[ids] < PLACES
            new, at = ids[free], self.places[ids[free]]
            self.centres[new, at], self.members[new, at] = point[fresh[free]], 1.0
            self.places[new] += 1
            for part in np.array_split(fresh[~free], (int((~free).sum()) + 127) // 128 or 1):  # so that memory is bounded
                if len(part):
                    joins[part] = ~self._make_room(series[part], point[part], least[part])
        rows = np.flatnonzero(joins)
        ids, at = series[rows], nearest[rows]
        count = np.minimum(self.members[ids, at] + 1.0, np.float32(2**20))
        self.members[ids, at] = count
        self.centres[ids, at] += (point[rows] - self.centres[ids, at]) / count[:, None]

    def _make_room(
        self, series: NDArray[np.int32], point: NDArray[np.float32], least: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """The two nearest centres join and the point takes the free place, unless it is nearer to a centre itself
        (bool [n]: it has a place). Either way that distance is the new resolution."""
        centres = self.centres[series]
        pairs = np.abs(centres[:, :, None, 0] - centres[:, None, :, 0])
        for side in range(1, SIDES):
            np.maximum(pairs, np.abs(centres[:, :, None, side] - centres[:, None, :, side]), out=pairs)
        pairs[:, np.arange(PLACES), np.arange(PLACES)] = np.inf
        flat = pairs.reshape(len(series), -1).argmin(1)
        one, other = flat // PLACES, flat % PLACES
        gap = pairs.reshape(len(series), -1)[np.arange(len(series)), flat]
        placed = gap <= least
        self.resolution[series] = np.maximum(self.resolution[series], np.minimum(gap, least))
        ids, one, other = series[placed], one[placed], other[placed]
        a, b = self.members[ids, one], self.members[ids, other]
        share = (b / (a + b))[:, None]
        self.centres[ids, one] += share * (self.centres[ids, other] - self.centres[ids, one])
        self.members[ids, one] = np.minimum(a + b, np.float32(2**20))
        self.centres[ids, other], self.members[ids, other] = point[placed], 1.0
        return np.asarray(placed)
