"""Runs of equal keys in sorted columns: where they start, ranks and running maxima within them.

Columns in, columns out. Knows nothing of sensors.
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


def starts(keys: NDArray[np.integer]) -> Mask:
    """keys: int [n], equal keys adjacent -> bool [n], True where a run begins."""
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return first


def start_of(first: Mask) -> Ints:
    """first: bool [n] -> int64 [n], for each row the index of the first row of its run."""
    return np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))


def ranks(first: Mask) -> Ints:
    """first: bool [n] -> int64 [n], 0 for the first row of each run, then 1, 2, …"""
    return np.arange(len(first)) - start_of(first)


def ends(first: Mask) -> Ints:
    """first: bool [n] -> int64 [runs], the index of the last row of each run."""
    return np.append(np.flatnonzero(first)[1:], len(first))[: len(first)] - 1


def running_max(values: Ints, first: Mask) -> Ints:
    """values: int64 [n]; first: bool [n] -> int64 [n], the largest value of the run up to and with this row."""
    rising = values[1:] >= values[:-1]
    if bool(np.all(rising | first[1:])):  # readings come in order nearly always
        return values
    # Ranks instead of values, so that the run's number can be put above them without overflow.
    order = np.argsort(values, kind="stable")
    rank = np.empty(len(values), np.int64)
    rank[order] = np.arange(len(values))
    above = (np.cumsum(first) - 1) * len(values)
    highest: Ints = values[order[np.maximum.accumulate(rank + above) - above]]
    return highest


def max_before(values: Ints, first: Mask, initial: Ints) -> Ints:
    """The largest of `initial` and the run's earlier rows; initial: int64 [n], constant within each run."""
    before = np.empty_like(values)
    before[1:] = running_max(values, first)[:-1]
    before[first] = initial[first]
    return np.maximum(before, initial)
