"""Text that may have come over the network, for a terminal or a log: it shows what it holds and does nothing."""

import unicodedata

_CONTROLS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # control, direction, lone halves, nobody's, ends of lines


def printable(text: str) -> str:
    """The text on one line; what moves a cursor, turns the direction of writing or has no look is escaped as JSON
    escapes it, so that JSON stays what it was."""
    if text.isprintable():
        return text
    return "".join(_escaped(c) if unicodedata.category(c) in _CONTROLS else c for c in text)


def cut(text: str, most: int = 120) -> str:
    """At most so many characters of it, and a sign that there were more."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escaped(c: str) -> str:
    units = c.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
