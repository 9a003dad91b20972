"""The inputs that are kept of each target: one file a target, one input a line, base64."""

import base64
import itertools
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
LARGEST = 4096  # bytes of an input; the fuzzer makes none longer
ROOM = 48 << 10  # bytes of a target's inputs together; the longest are left out


def read(target: str) -> list[bytes]:
    return [base64.b64decode(line) for line in (FOLDER / f"{target}.txt").read_text().split()]


def write(target: str, inputs: Iterable[bytes]) -> int:
    """Sorted by length, each once. Returns how many there are."""
    kept = sorted({data for data in inputs if data}, key=lambda data: (len(data), data))
    room = itertools.accumulate(map(len, kept))
    lines = [base64.b64encode(data).decode() for data, size in zip(kept, room, strict=True) if size <= ROOM]
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))
    return len(lines)
