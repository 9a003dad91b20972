"""What keeping costs: readings a second with each durability, and bytes written a day at a given rate.

The core with JSON in and windows out, 1,000 series, batches of 100, no model, in one process; every batch is kept.
Bytes are those that the kernel counts as sent to the disk (/proc/self/io), so the folder must be on one: --folder.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from transom.core.model import ANY, Channel, Manifest
from transom.core.pipeline import Message, Pipeline, Turn
from transom.core.stream import StreamSpec
from transom.edge.inbox import Token
from transom.edge.journal import Durability, Journal
from transom.edge.keeper import Keeper
from transom.edge.redelivered import mark_of

T0 = 1_700_000_000_000
DAY = 86_400


class Quiet:
    sha256 = ""
    manifest = Manifest(name="quiet", version="1", task="anomaly", family="none", channels=(Channel(ANY),), length=64)

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        zero = np.zeros(len(values), np.float32)
        return {"score": zero, "contribution": zero[:, None], "expected": np.nan_to_num(values[:, -1])}


def message(i: int, series: int) -> Message:
    body = b'{"value": %d.%d, "time": %.3f}' % (20 + i % 7, i % 10, T0 / 1000 + i / series)
    return Message(f"plant/device-{i % series}/temperature", body, T0 + i)


def keeping(durability: Durability, folder: Path, commit_every: float = 1.0) -> tuple[Pipeline, Keeper]:
    pipeline = Pipeline([(StreamSpec("s", "plant/{device}/{channel}"), Quiet())])
    keeper = Keeper(None if durability == "none" else Journal(folder / durability, durability), commit_every)
    keeper.start(pipeline)
    return pipeline, keeper


def turn(pipeline: Pipeline, keeper: Keeper, messages: list[Message], first: int) -> None:
    step = Turn(messages)
    pipeline.take(step)
    marks = [mark_of((first + k) % 65_536, m) for k, m in enumerate(messages)]
    keeper.redelivered.add(marks)
    keeper.add(step, [Token(1, mid) for mid, _ in marks], marks, ())


def rate(durability: Durability, folder: Path, seconds: float, batch: int) -> float:
    """Readings a second."""
    pipeline, keeper = keeping(durability, folder)
    messages = [message(i, 1000) for i in range(200_000)]
    count, end, begin = 0, time.perf_counter() + seconds, time.perf_counter()
    for start in itertools.cycle(range(0, len(messages), batch)):
        turn(pipeline, keeper, messages[start : start + batch], count)
        keeper.commit(pipeline, ())
        count += batch
        if time.perf_counter() > end:
            break
    taken = time.perf_counter() - begin
    keeper.close(pipeline)
    return count / taken


def written() -> int:
    os.sync()
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


def bytes_a_day(per_second: float, series: int, folder: Path, messages: int) -> float:
    """With one commit a second, as `commit_every` has it for a thin stream, and more for a dense one."""
    pipeline, keeper = keeping("process", folder)
    before, sent = written(), 0
    together = max(1, min(round(per_second), 1000))
    while sent < messages:
        turn(pipeline, keeper, [message(sent + k, series) for k in range(together)], sent)
        keeper.commit(pipeline, ())
        sent += together
    keeper.close(pipeline)
    return (written() - before) / (sent / per_second) * DAY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each measurement of speed (default 5)")
    parser.add_argument("--batch", type=int, default=100, help="readings kept together (default 100)")
    parser.add_argument("--folder", type=Path, default=None, help="where the journals are written (default: here)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder or Path.cwd()) as name:
        folder = Path(name)
        rates: dict[Durability, list[float]] = {"none": [], "process": [], "power": []}
        for turn_ in range(3):  # interleaved: a machine that is busy now is busy for all of them
            for durability, measured in rates.items():
                measured.append(rate(durability, folder / f"{turn_}", args.seconds / 3, args.batch))
        best = {durability: max(measured) for durability, measured in rates.items()}
        for durability, readings in best.items():
            share = "" if durability == "none" else f", {1 - readings / best['none']:.0%} slower than none"
            print(f"{durability:8} {readings:10,.0f} readings/s{share}")
        for per_second, series, messages in (
            (1, 10, 2000),
            (10, 10, 20_000),
            (100, 100, 100_000),
            (1000, 1000, 300_000),
        ):
            size = bytes_a_day(per_second, series, folder / f"day-{per_second}", messages)
            print(f"{per_second:6,} readings/s of {series:5,} series   {size / 1e6:10,.0f} MB written a day")


if __name__ == "__main__":
    main()
