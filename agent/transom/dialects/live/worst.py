"""The list of series as a viewer asks for it: those that match some words, the worst first.

Names, states and p-values of all series in, places in order out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transom.core.alerts import State
from transom.core.events import shown

STATES = tuple(state.name.lower() for state in State)
# An alert first, then silence, what may become an alert, what is still learnt, and what is as usual.
RANKS = np.array([{"alert": 0, "stale": 1, "pending": 2, "learning": 3, "normal": 4}[s] for s in STATES], np.int8)
TINIEST = 12  # powers of ten of a p-value that make a difference


def matching(names: Sequence[str], words: Sequence[str]) -> NDArray[np.bool_]:
    """bool [S]: the names that hold each of the words, whatever their case. Words in lower case."""
    if not words:
        return np.ones(len(names), bool)
    return np.array([all(word in name for word in words) for name in map(str.casefold, names)], bool)


def in_order(state: NDArray[np.uint8], p_value: NDArray[np.float32], score: NDArray[np.float32]) -> NDArray[np.int64]:
    """[S] each -> places, worst first. p-values count by their power of ten: a list of normal series stands still."""
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.minimum(np.floor(-np.log10(p_value)), TINIEST)
        power = np.where(np.isfinite(p_value), power, np.floor(np.log2(1 + np.maximum(score, 0))))
    return np.lexsort((-np.nan_to_num(power), RANKS[state]))


def reading(
    value: NDArray[np.float32], channels: Sequence[str], units: Sequence[str], classes: Sequence[str],
    probability: NDArray[np.float32],
) -> str:  # fmt: skip
    """The latest of a series in a few characters: "84.2 °C", "kettle 97 %", "temperature 84.2 °C and 7 more"."""
    if classes:
        if not np.isfinite(probability).any():
            return ""
        best = int(np.nanargmax(probability))
        return f"{classes[best]} {100 * float(probability[best]):.0f} %"
    text = f"{shown(float(value[0]))} {units[0]}".rstrip()
    return text if len(channels) == 1 else f"{channels[0]} {text} and {len(channels) - 1} more"
