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

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from transom.core.table import Table

PLACES = 64
SIDES = 3
NEIGHBOURS = 3
LEVEL = 16.0  # readings that the recent level is a mean of
PART = 64  # series whose centres are compared pairwise at once, so that memory is bounded
MOST = np.float32(2**20)  # situations that a centre counts for at most
FIRST = 20  # readings before anything is novel
LARGEST = 1e6  # mean distances that a novelty counts for at most
MEMORY = 5000.0  # readings after which old ones fade in the mean distance


class Found(NamedTuple):
    """novelty: float64 [n] >= 0, mean 1; side: int8 [n], in which the nearest centre differs most (0 value, 1
    departure, 2 level); point: float32 [n, SIDES], the situation; nearest: int [n], the nearest centre; least: float32
    [n], how far it is; distance: float64 [n], to the NEIGHBOURS-th nearest situation."""

    novelty: NDArray[np.float64]
    side: NDArray[np.int8]
    point: NDArray[np.float32]
    nearest: NDArray[np.intp]
    least: NDArray[np.float32]
    distance: NDArray[np.float64]

    def of(self, rows: NDArray[np.bool_]) -> "Found":
        return Found(
            self.novelty[rows], self.side[rows], self.point[rows], self.nearest[rows], self.least[rows],
            self.distance[rows],
        )  # fmt: skip


class Situations(Table):
    """centres: float32 [S, SIDES, PLACES], inf = free; members: float32 [S, PLACES]; resolution: float32 [S];
    places: int16 [S], centres in use; level: float64 [S]; usual: float64 [S], mean distance; seen: int64 [S],
    situations learned; steps: float64 [S], of which the level is the mean."""

    fills: ClassVar[dict[str, Any]] = {
        "centres": np.inf, "members": 0.0, "places": 0, "resolution": 0.0, "level": 0.0, "usual": 0.0, "seen": 0,
        "steps": 0.0,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.centres = np.zeros((0, SIDES, PLACES), np.float32)
        self.members = np.zeros((0, PLACES), np.float32)
        self.places = np.zeros(0, np.int16)
        self.resolution = np.zeros(0, np.float32)
        self.level, self.usual, self.steps = np.zeros(0), np.zeros(0), np.zeros(0)
        self.seen = np.zeros(0, np.int64)

    def novelty(self, series: NDArray[np.int32], value: NDArray[np.float64], departure: NDArray[np.float64]) -> Found:
        """value, departure: float64 [n], finite, of distinct series; the recent level moves, nothing is learned yet."""
        seen = self.seen[series]
        level = self.level[series]
        level = level + (value - level) / np.minimum(self.steps[series] + 1, LEVEL)
        self.level[series] = level
        self.steps[series] = np.minimum(self.steps[series] + 1, LEVEL)
        point = np.stack([value, departure, level], 1).astype(np.float32)
        away = _apart(self.centres[series], point)
        nearest = away.argmin(1)
        least = away[np.arange(len(away)), nearest]
        side = np.abs(self.centres[series, :, nearest] - point).argmax(1).astype(np.int8)
        distance = self._neighbour(series, away, nearest, least)
        distance[seen < FIRST] = 0.0
        # What has never moved has a resolution too: a millionth of its size.
        novelty = np.minimum(distance / np.maximum(self.usual[series], 1e-6 * np.abs(level) + 1e-30), LARGEST)
        return Found(novelty, side, point, nearest, least, distance)

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        if "steps" not in state:  # an older version learned from every step
            self.steps = np.minimum(self.seen, LEVEL)

    def learn(self, series: NDArray[np.int32], found: Found) -> None:
        """These (distinct) series have had the situations that `novelty` found: all of them, or rows of it."""
        seen, usual = self.seen[series], self.usual[series]
        self.usual[series] = usual + (found.distance - usual) / np.minimum(seen + 1, MEMORY)
        self.seen[series] = seen + 1
        self._learn(series, found.point, found.nearest, found.least)

    def _neighbour(
        self,
        series: NDArray[np.int32],
        away: NDArray[np.float32],
        nearest: NDArray[np.intp],
        least: NDArray[np.float32],
    ) -> NDArray[np.float64]:
        """The distance within which NEIGHBOURS situations lie, or that of the farthest known one; float64 [n]."""
        found = least.astype(np.float64)
        rows = np.flatnonzero(self.members[series, nearest] < NEIGHBOURS)
        if len(rows):
            # Each centre stands for one situation at least, so the nearest NEIGHBOURS centres are enough.
            far = away[rows]
            at = np.argpartition(far, NEIGHBOURS - 1, 1)[:, :NEIGHBOURS]
            near = np.take_along_axis(far, at, 1)
            order = np.argsort(near, 1, kind="stable")
            known = np.cumsum(self.members[series[rows, None], np.take_along_axis(at, order, 1)], 1)
            enough = (known >= NEIGHBOURS).argmax(1)
            n = np.arange(len(rows))
            found[rows] = near[n, order[n, enough]]
            found[~np.isfinite(found)] = 0.0
        return found

    def _learn(
        self, series: NDArray[np.int32], point: NDArray[np.float32], nearest: NDArray[np.intp],
        least: NDArray[np.float32],
    ) -> None:  # fmt: skip
        joins = least <= self.resolution[series]
        fresh = np.flatnonzero(~joins)
        if len(fresh):
            ids = series[fresh]
            free = self.places[ids] < PLACES
            new = ids[free]
            at = self.places[new].astype(np.intp)
            self.centres[new, :, at], self.members[new, at] = point[fresh[free]], 1.0
            self.places[new] += 1
            full = fresh[~free]
            for begin in range(0, len(full), PART):
                part = full[begin : begin + PART]
                joins[part] = ~self._make_room(series[part], point[part], least[part])
        rows = np.flatnonzero(joins)
        ids, at = series[rows], nearest[rows]
        count = np.minimum(self.members[ids, at] + np.float32(1), MOST)
        self.members[ids, at] = count
        centre = self.centres[ids, :, at]
        self.centres[ids, :, at] = centre + (point[rows] - centre) / count[:, None]

    def _make_room(
        self, series: NDArray[np.int32], point: NDArray[np.float32], least: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """The two nearest centres join and the point takes the free place, unless it is nearer to a centre itself
        (bool [n]: it has a place). Either way that distance is the new resolution."""
        n = np.arange(len(series))
        pairs = _apart(self.centres[series][:, :, :, None], self.centres[series])
        pairs[:, np.arange(PLACES), np.arange(PLACES)] = np.inf
        pairs = pairs.reshape(len(series), -1)
        flat = pairs.argmin(1)
        gap = pairs[n, flat]
        placed = gap <= least
        self.resolution[series] = np.maximum(self.resolution[series], np.minimum(gap, least))
        ids, one, other = series[placed], flat[placed] // PLACES, flat[placed] % PLACES
        a, b = self.members[ids, one], self.members[ids, other]
        share = (b / (a + b))[:, None]
        first = self.centres[ids, :, one]
        self.centres[ids, :, one] = first + share * (self.centres[ids, :, other] - first)
        self.members[ids, one] = np.minimum(a + b, MOST)
        self.centres[ids, :, other], self.members[ids, other] = point[placed], 1.0
        return np.asarray(placed)


def _apart(centres: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest difference over the sides: centres [n, SIDES, ...], points [n, SIDES] or [n, SIDES, P]."""
    points = points[:, :, None] if points.ndim == 2 else points[:, :, None, :]
    most: NDArray[np.float32] = np.abs(centres[:, 0] - points[:, 0])
    for side in range(1, SIDES):
        np.maximum(most, np.abs(centres[:, side] - points[:, side]), out=most)
    return most
