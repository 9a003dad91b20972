"""The inputs that are kept of each target: one file a target, one input a line, base64."""

import base64
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
LARGEST = 4096  # bytes of an input that is kept; the fuzzer makes none longer


def read(target: str) -> list[bytes]:
    return [base64.b64decode(line) for line in (FOLDER / f"{target}.txt").read_text().split()]


def write(target: str, inputs: Iterable[bytes]) -> int:
    """Sorted by length, each once. Returns how many there are."""
    kept = sorted({data for data in inputs if len(data) <= LARGEST}, key=lambda data: (len(data), data))
    lines = [base64.b64encode(data).decode() for data in kept if data]
    (FOLDER / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))
    return len(lines)
