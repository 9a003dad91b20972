"""Topic patterns with named levels: `plant/{site}/{device}/{channel}` to an MQTT filter, and a topic to its names.

A pattern refuses a bad form when it is made. Matching is done once per distinct topic, never per message.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transom.errors import PatternError

SHARE = "$share"
CHANNEL = "channel"
MAX_BYTES = 65_535  # MQTT 5.0, section 1.5.4: a topic is at most 65,535 bytes of UTF-8

_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """text: as configured; filter: what is subscribed to; names: the named levels in their order."""

    text: str
    filter: str
    names: tuple[str, ...]
    levels: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises PatternError when MQTT or the naming of levels does not allow the pattern."""

        def refuse(problem: str, remedy: str) -> PatternError:
            return PatternError(f"topic {text!r}", problem, remedy)

        if not text:
            raise refuse("is empty", "write a pattern such as 'plant/{site}/{device}/{channel}'")
        if "\0" in text or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise refuse("holds a NUL or is longer than 65,535 bytes", "shorten it")
        share, levels = "", tuple(text.split("/"))
        if levels[0] == SHARE:  # MQTT 5.0, section 4.8.2: agents of one group divide the messages among them
            if len(levels) < 3 or not levels[1] or any(c in levels[1] for c in "+#{}"):
                raise refuse("is no shared subscription", "write '$share/GROUP/plant/{device}/{channel}'")
            share, levels = f"{SHARE}/{levels[1]}/", levels[2:]
        names: list[str] = []
        filters: list[str] = []
        for i, level in enumerate(levels):
            named = _NAME.fullmatch(level)
            if named:
                if named[1] in names:
                    raise refuse(f"names the level {named[1]!r} twice", "give each level a name of its own")
                names.append(named[1])
                filters.append("+")
            elif level == "#" and i != len(levels) - 1:
                raise refuse("has '#' before the end", "'#' may only be the last level; use '+' for one level")
            elif level in ("+", "#"):
                filters.append(level)
            elif any(c in level for c in "+#{}"):
                raise refuse(f"has the level {level!r}", "a wildcard or {name} must be a whole level")
            else:
                filters.append(level)
        return cls(text, share + "/".join(filters), tuple(names), levels)

    def match(self, topic: str) -> tuple[str, ...] | None:
        """The texts of the named levels in the order of `names`, or None when the topic does not fit."""
        parts = topic.split("/", len(self.levels))
        if self.levels[-1] == "#":
            if len(parts) < len(self.levels) - 1:
                return None
        elif len(parts) != len(self.levels):
            return None
        if topic.startswith("$") and self.levels[0][:1] in ("+", "#", "{"):  # MQTT 5.0, section 4.7.2
            return None
        found = []
        for level, part in zip(self.levels, parts, strict=False):
            if level == "#":
                break
            if level[:1] == "{":
                found.append(part)
            elif level not in ("+", part):
                return None
        return tuple(found)

    def check_text(self, text: str) -> str:
        """A text with named levels in it, such as "sensor-{device}". Raises PatternError for unknown ones."""
        for name in _NAME.findall(text):
            if name not in self.names:
                known = ", ".join(self.names) or "none"
                raise PatternError(f"topic {self.text!r}", f"has no level {name!r} to compare with", f"named: {known}")
        return text

    def fill(self, text: str, found: Sequence[str]) -> str:
        """The text with what `match` has found in place of the levels' names."""
        return _NAME.sub(lambda m: found[self.names.index(m[1])], text)

    def check_series(self, series: Sequence[str]) -> tuple[str, ...]:
        """The levels that make a series: `series`, or all names but {channel}. Raises PatternError for unknown ones."""
        for name in series:
            if name not in self.names or name == CHANNEL:
                known = ", ".join(n for n in self.names if n != CHANNEL) or "none"
                raise PatternError(
                    f"topic {self.text!r}", f"has no level {name!r} to make series of", f"named: {known}"
                )
        return tuple(series) or tuple(n for n in self.names if n != CHANNEL)


def cover(filters: Sequence[str]) -> list[str]:
    """Filters that match all that these match, no two of them the same topic: a broker may send a message once for
    each that does.

    Of two that overlap the wider stays; where neither is, their join: equal levels stay, others become `+`, and `#`
    ends it where one of them ends so. Filters of different `$share` groups, or of none, are left side by side.
    """
    kept: list[tuple[str, list[str]]] = []
    for text in filters:
        share, levels = _shared(text)
        while other := next((k for k in kept if k[0] == share and _overlap(k[1], levels)), None):
            kept.remove(other)
            levels = _join(other[1], levels)
        kept.append((share, levels))
    return [share + "/".join(levels) for share, levels in kept]


def _shared(text: str) -> tuple[str, list[str]]:
    """The `$share/GROUP/` that a filter begins with, or "", and its levels."""
    levels = text.split("/")
    return (f"{SHARE}/{levels[1]}/", levels[2:]) if levels[0] == SHARE and len(levels) > 2 else ("", levels)


def _overlap(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether some topic is matched by both (MQTT 5.0, sections 4.7.1 and 4.7.2)."""
    if any(x[0][:1] in ("+", "#") and y[0][:1] == "$" for x, y in ((a, b), (b, a))):
        return False
    for x, y in zip(a, b, strict=False):
        if "#" in (x, y):
            return True
        if x != y and "+" not in (x, y):
            return False
    longer = max(a, b, key=len)
    return len(a) == len(b) or longer[min(len(a), len(b)) :] == ["#"]  # `a/#` matches `a` too


def _join(a: Sequence[str], b: Sequence[str]) -> list[str]:
    """The narrowest filter that matches what two that overlap match."""
    joined: list[str] = []
    for x, y in zip(a, b, strict=False):
        if "#" in (x, y):
            return [*joined, "#"]
        joined.append(x if x == y else "+")
    return joined if len(a) == len(b) else [*joined, "#"]
