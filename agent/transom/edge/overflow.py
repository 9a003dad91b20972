"""Which alerts go when too many wait in memory and no disk takes them: first what tells least.

Publications in, which to keep out; nothing is sent or forgotten here.
"""

from collections.abc import Sequence

import msgspec

from transom.dialects.plain import Publication


class _Alert(msgspec.Struct):
    id: str = ""
    event: str = ""


_decode = msgspec.json.Decoder(_Alert).decode


def thin(alerts: Sequence[Publication], most: int) -> list[bool]:
    """For each alert, oldest first, whether it is kept. Dropped are, until `most` are left: updates, the oldest first;
    then alerts whose raise and clear both wait, the oldest first. A raise whose alert is still up, and a clear whose
    raise has gone out, are always kept, even where that is more than `most`."""
    seen = [_read(alert) for alert in alerts]
    kept, left = [True] * len(alerts), len(alerts)
    raised: dict[tuple[str, str], int] = {}
    pairs: list[tuple[int, int]] = []
    for i, (alert, one) in enumerate(zip(alerts, seen, strict=True)):
        if one.event == "update" and left > most:
            kept[i], left = False, left - 1
        elif one.event == "raise":
            raised[alert.topic, one.id] = i
        elif one.event == "clear" and (alert.topic, one.id) in raised:
            pairs.append((raised.pop((alert.topic, one.id)), i))
    for first, last in sorted(pairs):
        if left <= most:
            break
        kept[first] = kept[last] = False
        left -= 2
    return kept


def _read(alert: Publication) -> _Alert:
    try:
        return _decode(alert.payload)
    except msgspec.DecodeError:
        return _Alert()
