"""What the agent's live page shows, for any number of viewers: all series, the alerts, the points of one series each.

Events in, what a viewer does not know yet out, as plain values for JSON. Knows no clock and no socket.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import Alert, Predictions
from transom.dialects.live.chart import About, chart
from transom.dialects.live.layout import Floats
from transom.dialects.live.notices import Notices
from transom.dialects.live.rings import Rings
from transom.dialects.live.worst import STATES, in_order, matching, reading

ROOM = 24 << 20  # bytes of points that are kept, of all streams together
LISTED = 60  # series that are listed at a time
LONGEST = 200  # characters of a search


@dataclass(slots=True)
class Seen:
    """What a viewer wants and what it knows. search: words that a series' name must hold, or the name of a state;
    key: (stream, series) whose points it is told, the worst one at first where None."""

    search: str = ""
    key: tuple[str, str] | None = None
    points: int = 0  # of the series' points
    age: int = -1  # of the rings that these points are of; 0: it has been told that there are none
    alerts: int = -1  # changes of alerts; -1: not even that there are none
    list: dict[str, Any] = field(default_factory=dict)


class Board:
    """about: by stream; a stream that it does not name has no units."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.about: Mapping[str, About] = {}
        self.notices = Notices()
        self._rings: dict[str, Rings] = {}
        self._made = 0  # rings so far: no two have the same age

    def configure(self, about: Mapping[str, About]) -> None:
        """The streams that there are from now on; those that are gone are forgotten."""
        self.about = about
        self._rings = {name: rings for name, rings in self._rings.items() if name in about}

    def take(self, predictions: Sequence[Predictions], alerts: Sequence[Alert]) -> None:
        by_stream: dict[str, list[Predictions]] = {}
        for batch in predictions:
            if len(batch):
                by_stream.setdefault(batch.stream, []).append(batch)
        for stream, batches in by_stream.items():
            if stream not in self._rings:
                self._made += 1
                self._rings[stream] = Rings(self.room // max(1, len(self.about)), self._made << 32)
            self._rings[stream].take(batches)
        for alert in alerts:
            self.notices.take(alert)

    def tell(self, seen: Seen) -> dict[str, Any]:
        """What this viewer does not know yet; `seen` is told that it knows it now. {} for nothing."""
        news: dict[str, Any] = {}
        listed = self._list(seen.search)
        if listed != seen.list:
            news["list"] = seen.list = listed
        if self.notices.count > seen.alerts:
            news["alerts"], seen.alerts = self.notices.since(seen.alerts), self.notices.count
        if seen.key is None and listed["rows"]:
            seen.key = listed["rows"][0][0], listed["rows"][0][1]
        if seen.key is not None and (points := self._points(seen)) is not None:
            news["chart"] = points
        return news

    def _points(self, seen: Seen) -> dict[str, Any] | None:
        assert seen.key is not None
        stream, series = seen.key
        rings = self._rings.get(stream)
        place = rings.place(series) if rings is not None else None
        if rings is None or place is None:
            if seen.age == 0:
                return None
            seen.age = 0
            return {"stream": stream, "series": series, "anew": True, "time": []}
        if seen.age != rings.age:
            seen.age, seen.points = rings.age, 0
        points = rings.read(place, seen.points)
        if points.total == seen.points:
            return None
        seen.points = points.total
        body = chart(rings, place, self.about.get(stream, About()), points)
        return {"stream": stream, "series": series, **body}

    # --- the list -----------------------------------------------------------------------------------------------------

    def _list(self, search: str) -> dict[str, Any]:
        words = search.casefold()[:LONGEST].split()
        states = [STATES.index(word) for word in words if word in STATES]
        words = [word for word in words if word not in STATES]
        found: list[tuple[Rings, str, NDArray[np.int64]]] = []
        columns: list[tuple[NDArray[np.uint8], Floats]] = []
        counts, total = np.zeros(len(STATES), np.int64), 0
        for stream, rings in self._rings.items():
            if rings.layout is None:
                continue
            _, state, rows = rings.last()
            state = self._silent(stream, rings, state)
            counts += np.bincount(state, minlength=len(STATES))
            total += len(rings)
            fits = np.ones(len(rings), bool) if _all_in(stream.casefold(), words) else matching(rings.names, words)
            if states:
                fits &= np.isin(state, states)
            places = np.flatnonzero(fits)
            at = rings.layout.score_at
            columns.append((state[places], rows[places, at : at + 2]))
            found.append((rings, stream, places))
        ends = np.cumsum([len(places) for _, _, places in found], dtype=np.int64)
        many = int(ends[-1]) if len(ends) else 0
        body: dict[str, Any] = {
            "total": total, "matching": many, "rows": [], "states": dict(zip(STATES, counts.tolist(), strict=True)),
        }  # fmt: skip
        if many:
            state = np.concatenate([s for s, _ in columns])
            scores = np.concatenate([r for _, r in columns])
            for i in in_order(state, scores[:, 1], scores[:, 0])[:LISTED].tolist():
                which = int(np.searchsorted(ends, i, "right"))
                rings, stream, places = found[which]
                body["rows"].append(self._row(rings, stream, int(places[i - ends[which]]), int(state[i])))
        return body

    def _silent(self, stream: str, rings: Rings, state: NDArray[np.uint8]) -> NDArray[np.uint8]:
        for of, series in self.notices.silent:
            if of == stream and (place := rings.place(series)) is not None:
                state[place] = State.STALE
        return state

    def _row(self, rings: Rings, stream: str, place: int, state: int) -> list[Any]:
        """stream, series, state, the latest reading in words, its time in ms, score."""
        layout, channels = rings.layout, rings.channels[place]
        assert layout is not None
        time, row = rings.latest(place)
        score = float(row[layout.score_at])
        units = self.about.get(stream, About()).of(channels)
        words = reading(row[: layout.channels], channels, units, layout.classes, row[layout.score_at + 2 :])
        told = None if np.isnan(score) else float(f"{score:.3g}")
        return [stream, rings.names[place], STATES[state], words, time / 1000, told]


def _all_in(text: str, words: Sequence[str]) -> bool:
    return all(word in text for word in words)
