"""Whether a model may take the place of the one that a stream runs: two manifests in, nothing or a ModelError out.

What survives a switch are the windows as they are, so their shape must stay. A model with another shape is a change of
the configuration.
"""

import re
from itertools import zip_longest

from transom.core.model import Manifest
from transom.core.stream import StreamSpec
from transom.errors import ModelError

REMEDY = "train it for this stream, or name it as the stream's model in the configuration"


def check(name: str, now: tuple[StreamSpec, Manifest], new: tuple[StreamSpec, Manifest], *, force: bool) -> None:
    """name: of the stream. force: an older version, or a model of another name, is meant. Raises ModelError."""
    place = f"streams.{name}: {new[1].label}"
    for what, is_now, would_be in _shapes(now, new):
        if is_now != would_be:
            raise ModelError(place, f"{what} {would_be!s:.200}, and this stream has {is_now!s:.200}", REMEDY)
    if force:
        return
    a, b = now[1], new[1]
    if a.name != b.name:
        raise ModelError(place, f"is not {a.name}, which runs here", REMEDY)
    if not newer(b.version, a.version):
        raise ModelError(
            place,
            f"is not newer than {a.label}, which runs here",
            "give what you train a higher version (--model-version)",
        )


def _shapes(now: tuple[StreamSpec, Manifest], new: tuple[StreamSpec, Manifest]) -> list[tuple[str, object, object]]:
    (spec, m), (other, n) = now, new
    return [
        ("task", m.task, n.task),
        ("channels", ", ".join(c.name for c in m.channels), ", ".join(c.name for c in n.channels)),
        ("length", m.length, n.length),
        ("step", spec.grid.step or "reading", other.grid.step or "reading"),
        ("aggregate", spec.grid.aggregate, other.grid.aggregate),
        ("stride", spec.stride, other.stride),
        ("classes", ", ".join(m.classes), ", ".join(n.classes)),
    ]


def newer(version: str, than: str) -> bool:
    """Part by part, numbers as numbers: 2 < 10, 1.2 < 1.2.1, 1.0-rc < 1.0-rc2."""
    for a, b in zip_longest(_parts(version), _parts(than)):
        if a != b:
            return b is None or (a is not None and a > b)
    return False


def _parts(version: str) -> list[tuple[int, int, str]]:
    """Words before numbers, numbers by their size."""
    found = re.findall(r"[0-9]+|[^0-9.\-_]+", version)
    return [(1, len(n := part.lstrip("0")), n) if "0" <= part[0] <= "9" else (0, 0, part) for part in found]
