"""What the agent says of itself: latencies, health and info as plain values. Numbers in, nothing is sent."""

import logging
import os
import platform
import resource
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

HELD_BACK = 0.8  # share of the broker's window that waits for us, from which the agent calls itself overloaded
HELD_LONG = 1.0  # seconds, when it has been so for as long
AGAIN = 3600.0  # seconds after which a loss that goes on is told of again
KEPT = 4096  # latest latencies that percentiles are taken of
# Milliseconds: upper bounds of the histogram, the last one is open. From a good gateway to one that drowns.
BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000)


@dataclass(frozen=True, slots=True)
class Histogram:
    """All latencies since the start. counts: of each of BOUNDS and of what is longer, not cumulated; sum_ms: of all."""

    counts: tuple[int, ...]
    sum_ms: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The agent at one moment, made by the run loop; nobody changes it after that, so any thread may read it.

    health: the body of BASE/health; models: a stream's name, model, task and digest; problems: as on BASE/status;
    made: seconds of the monotonic clock.
    """

    health: Mapping[str, Any]
    latency: Histogram
    models: tuple[tuple[str, str, str, str], ...]
    problems: tuple[str, ...]
    ready: bool
    connected: bool
    made: float


class Latencies:
    """The latest latencies in milliseconds, from arrival to publishing."""

    def __init__(self) -> None:
        self._ring = np.zeros(KEPT, np.float64)
        self._count = 0
        self._counts = np.zeros(len(BOUNDS) + 1, np.int64)
        self._sum = 0.0

    def add(self, latencies: Iterable[float]) -> None:
        values = np.fromiter(latencies, np.float64)
        counted = np.maximum(values, 0.0)  # a clock that was set back: a histogram's sum may only grow
        self._counts += np.bincount(np.searchsorted(BOUNDS, counted), minlength=len(self._counts))
        self._sum += float(counted.sum())
        values = values[-KEPT:]
        self._ring[(self._count + np.arange(len(values))) % KEPT] = values
        self._count += len(values)

    def percentiles(self, *q: float) -> list[float]:
        """Milliseconds below which q percent of the latest lie; NaN when there are none."""
        known = self._ring[: min(self._count, KEPT)]
        return [float(v) for v in np.percentile(known, q)] if len(known) else [float("nan")] * len(q)

    def histogram(self) -> Histogram:
        return Histogram(tuple(self._counts.tolist()), self._sum)


def rss() -> int:
    """Bytes of memory that this process holds now (Linux), or its peak where that is not told."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def health(
    *, accounts: Mapping[str, Mapping[str, int]], strangers: int, latencies: Latencies,
    connection: Mapping[str, int], inbox: int, uptime: float,
) -> dict[str, Any]:  # fmt: skip
    """The message on BASE/health. uptime: seconds; latencies are told in milliseconds, memory in bytes."""
    p50, p95, p99 = (round(v, 3) if v == v else None for v in latencies.percentiles(50, 95, 99))
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "uptime_s": round(uptime, 1), "rss_bytes": rss(),
        "cpu_s": round(time.process_time(), 2), "inbox": inbox,
        "latency_ms": {"p50": p50, "p95": p95, "p99": p99}, "unmatched": strangers,
        "connection": dict(connection), "streams": {name: dict(counts) for name, counts in accounts.items()},
    }  # fmt: skip


class Overload:
    """Whether more comes than the agent can do. on: as it was told last."""

    def __init__(self) -> None:
        self.on = False
        self._since: float | None = None  # since when much of the broker's window waits for us

    def look(self, held_back: float) -> None:
        """held_back: how much of what the broker may send ahead of acknowledgements it has sent, 0 to 1."""
        if held_back < HELD_BACK:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()

    def tell(self, inbox_full: bool) -> None:
        """Says in the log when it begins and ends."""
        now = inbox_full or (self._since is not None and time.monotonic() - self._since >= HELD_LONG)
        if now != self.on:
            log.warning("overloaded: readings wait for us") if now else log.info("no longer overloaded")
        self.on = now


_LOSSES = {
    "invalid": "refused as invalid",
    "late": "too late",
    "duplicate": "duplicate",
    "shed": "dropped before they were read",
    "missing": "never arrived, by the sensors' rhythm or numbers",
}


class Losses:
    """What was lost, said once and then once an hour for as long as it goes on."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[float, int]] = {}  # by stream and kind: when, and the count then

    def lines(self, accounts: Mapping[str, Mapping[str, int]], now: float) -> Iterator[str]:
        """One line a stream that has lost readings in a way not told of lately. now: seconds, of a clock that only goes
        forward."""
        for name, counts in accounts.items():
            said = []
            for kind, words in _LOSSES.items():
                when, count = self._told.get((name, kind), (-AGAIN, 0))
                if counts[kind] > count and now - when >= AGAIN:
                    said.append(f"{counts[kind] - count} {words}")
                    self._told[name, kind] = now, counts[kind]
            if said:
                yield f"streams.{name}: readings were lost: {', '.join(said)}; {counts['accepted']} accepted in all"


def info(version: str, streams: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The message on BASE/info; no secrets, no paths."""
    return {
        "version": version, "streams": [dict(s) for s in streams],
        "host": {"name": platform.node(), "system": platform.system(), "machine": platform.machine(),
                 "python": platform.python_version(), "cpus": os.cpu_count()},
    }  # fmt: skip
