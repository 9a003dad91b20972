"""The alerts as a person follows them: one entry an alert, from its raise to its end, the latest so many.

Changes of alerts in, plain values for JSON out.
"""

from typing import Any

from transom.core.events import Alert

MOST = 200  # alerts that are kept; those that are over go first


class Notices:
    """silent: (stream, series) of no-data alerts that stand. count: of the changes so far."""

    def __init__(self) -> None:
        self.count, self.silent = 0, set[tuple[str, str]]()
        self._entries: dict[str, tuple[int, Alert, Alert]] = {}  # by id: number of the change, first told, latest

    def take(self, alert: Alert) -> None:
        self.count += 1
        _, first, _ = self._entries.pop(alert.id, (0, alert, alert))
        self._entries[alert.id] = self.count, first, alert
        if alert.kind == "no-data":
            key = alert.stream, alert.series
            self.silent.discard(key) if alert.event == "clear" else self.silent.add(key)
        if len(self._entries) > MOST:
            over = (i for i, (_, _, latest) in self._entries.items() if latest.event == "clear")
            del self._entries[next(over, next(iter(self._entries)))]

    def since(self, count: int) -> list[dict[str, Any]]:
        """The entries that have changed after the first `count` changes, in the order of their changes."""
        return [_entry(first, latest) for number, first, latest in self._entries.values() if number > count]


def _entry(first: Alert, latest: Alert) -> dict[str, Any]:
    """What was said when it was raised, and what was said last: both word for word. Times in ms since 1970."""
    entry: dict[str, Any] = {
        "id": latest.id, "event": latest.event, "kind": latest.kind, "severity": latest.severity,
        "stream": latest.stream, "series": latest.series, "since": latest.since / 1000, "time": latest.time / 1000,
        "summary": first.summary,
    }  # fmt: skip
    if latest.summary != first.summary:
        entry["latest"] = latest.summary
    if latest.acknowledged is not None:
        entry["acknowledged"] = latest.acknowledged[0]
    return entry
