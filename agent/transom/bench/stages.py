"""Where the time of a reading goes: each stage of its way timed in one thread, by CPU time. Prints one JSON object.

    python -m transom.bench.stages --config FILE [--batch 64] [--series 1000] [--readings 40000] [--memory N]

From the bytes of the broker to the bytes for it, through the very objects that run live, without socket and threads.
--series takes several numbers: one measurement for each. --memory: bytes that each of N more series costs, too.
--manifests: nothing is timed, the streams' models say what they are.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from transom.bench.readings import PLAIN_TOPIC, Source, of_stream, plain
from transom.core.due import infer
from transom.core.model import IncrementalModel, Manifest, Model, Outputs, manifest_as_dict
from transom.core.pipeline import Pipeline, Turn
from transom.dialects.plain import publications
from transom.edge import packets
from transom.edge.assembly import build_pipeline
from transom.edge.inbox import Inbox
from transom.edge.journal import Journal
from transom.edge.keeper import Keeper
from transom.edge.memory import settle, trim
from transom.edge.observe import rss
from transom.edge.receiver import Receiver
from transom.settings import Settings, load_settings

# The stages in the order of the flow; "infer" is the model's, all others are the agent's own.
STAGES = ("parse", "inbox", "decode", "align", "windows", "infer", "judge", "encode", "packets", "journal")
BASE = "transom/bench"


class Early:
    """A model whose windows are due from a series' first reading on: what is missing is NaN, and costs the same."""

    def __init__(self, model: Model) -> None:
        self._model, self.sha256 = model, model.sha256
        self.manifest: Manifest = msgspec.structs.replace(model.manifest, min_steps=1)

    def infer(self, values: NDArray[np.float32]) -> Outputs:
        return self._model.infer(values)

    @property
    def start(self) -> NDArray[np.float32]:
        return cast(IncrementalModel, self._model).start

    def step(self, values: NDArray[np.float32], state: NDArray[np.float32]) -> tuple[Outputs, NDArray[np.float32]]:
        return cast(IncrementalModel, self._model).step(values, state)


class Bench:
    """One pipeline of so many series, and a clock for each stage."""

    def __init__(self, settings: Settings, loaded: Pipeline, series: int, folder: Path) -> None:
        models: dict[int, Early] = {}
        for stream in loaded.streams.values():
            models.setdefault(id(stream.model), Early(stream.model))
        specs = [(s.spec, models[id(s.model)]) for s in loaded.streams.values()]
        self.pipeline = Pipeline(specs, loaded.own_prefix)
        self.times = dict.fromkeys(STAGES, 0.0)
        self.batches = self.windows = self.written = self.commits = 0
        self._inbox = Inbox(1 << 30)
        self._receiver = Receiver(self._inbox)
        self._receiver.begin()
        self._keeper = Keeper(Journal(folder, "process"), 1.0)
        self._keeper.start(self.pipeline)
        self._sources = sources(settings, loaded)
        self._series, self._number, self._stamp = series, 0, time.time_ns() // 1000
        for s in self.pipeline.streams.values():
            self._wrap(s.grid, "align", "align")
            self._wrap(s.buffers, "gather" if s.model.manifest.state else "push", "windows")

    def _wrap(self, room: object, name: str, stage: str) -> None:
        inner: Callable[..., Any] = getattr(room, name)

        def timed(*args: Any) -> Any:
            begun = time.thread_time()
            given = inner(*args)
            self.times[stage] += time.thread_time() - begun
            return given

        setattr(room, name, timed)

    def wire(self, count: int) -> bytes:
        """The next readings as the broker sends them, MQTT 5."""
        made, of = [], len(self._sources)
        for _ in range(count):
            i = self._number % self._series
            self._number, self._stamp = self._number + 1, self._stamp + 1
            source = self._sources[i % of]
            place = i // of % source.series if source.series is not None else i // of
            nth = self._number // self._series
            made.append((source.topic(place), source.make(place)(self._stamp, self._number, nth)))
        return packets.publish(made, True)

    def take(self, data: bytes) -> None:
        """One read of the socket, all the way."""
        times, clock = self.times, time.thread_time
        t0 = clock()
        batch, _, _ = packets.parse(data, 0, True)
        t1 = clock()
        self._receiver.take(batch)
        drained = self._inbox.drain(len(batch))
        messages, tokens, marks, again = self._keeper.redelivered.split(drained.messages, drained.tokens)
        t2, before = clock(), times["align"] + times["windows"]
        turn = Turn(messages)
        waiting = self.pipeline.gather(turn)
        t3 = clock()
        outputs = infer(waiting)
        t4 = clock()
        events = self.pipeline.judge(waiting, outputs)
        t5 = clock()
        made = list(publications(events, BASE))
        t6 = clock()
        out = packets.publish([(p.topic, p.payload) for p in made], True)
        t7 = clock()
        self._keeper.add(turn, [*tokens, *again], marks, [p for p in made if p.qos])
        self._keeper.commit(self.pipeline, ())
        t8 = clock()
        inside = times["align"] + times["windows"] - before
        for stage, seconds in zip(
            ("parse", "inbox", "decode", "infer", "judge", "encode", "packets", "journal"),
            (t1 - t0, t2 - t1, t3 - t2 - inside, t4 - t3, t5 - t4, t6 - t5, t7 - t6, t8 - t7), strict=True,
        ):  # fmt: skip
            times[stage] += seconds
        self.batches += 1
        self.windows += sum(len(due.windows) for due in waiting)
        self.written += len(out)

    def measure(self, readings: int, batch: int) -> dict[str, float]:
        """µs a reading, by stage."""
        portions = [self.wire(batch) for _ in range(max(1, readings // batch))]
        self.times = dict.fromkeys(STAGES, 0.0)
        for data in portions:
            self.take(data)
        return {stage: 1e6 * seconds / (len(portions) * batch) for stage, seconds in self.times.items()}

    def warm(self, readings: int, batch: int) -> None:
        for begin in range(0, readings, batch):
            self.take(self.wire(min(batch, readings - begin)))

    def close(self) -> None:
        self._keeper.close(self.pipeline)


def sources(settings: Settings, loaded: Pipeline) -> list[Source]:
    return [
        plain(name) if stream.topic == PLAIN_TOPIC and stream.value == "v" else
        of_stream(name, stream, loaded.streams[name].model.manifest)
        for name, stream in settings.streams.items() if name in loaded.streams
    ]  # fmt: skip


def own(stages: Mapping[str, float]) -> float:
    """µs a reading of the agent's own, without the model and without the journal."""
    return sum(taken for stage, taken in stages.items() if stage not in ("infer", "journal"))


def run(config: Path, batch: int, series: Sequence[int], readings: int, memory: int) -> Iterator[tuple[str, Any]]:
    settings = load_settings(config, {})
    loaded = build_pipeline(settings).pipeline
    settle()  # as an agent does when it is ready
    with tempfile.TemporaryDirectory(prefix="transom-bench-") as name:
        if memory:  # first: what was freed before would be used again
            yield "memory", _memory(settings, loaded, memory, Path(name) / "memory")
        for i, count in enumerate(series):
            bench = Bench(settings, loaded, count, Path(name) / str(i))
            bench.warm(max(count, 20 * batch), batch)
            yield str(count), bench.measure(readings, batch)
            bench.close()
            del bench
            gc.collect()


def _memory(settings: Settings, loaded: Pipeline, more: int, folder: Path, base: int = 1000) -> dict[str, float]:
    """Resident bytes with `base` series, and what each of `more` adds. Windows are in it: 2 T values of 4 bytes."""
    gc.collect()
    bench = Bench(settings, loaded, base, folder)
    bench.warm(2 * base, 250)
    gc.collect()
    trim()  # as an agent does each time it tells its health
    before = rss()
    bench._series = base + more
    bench.warm(base + more, 1000)
    gc.collect()
    trim()
    grown = rss() - before
    bench.close()
    return {"rss_bytes": before, "series": more, "bytes_a_series": grown / more}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--series", type=int, nargs="+", default=[1000])
    parser.add_argument("--readings", type=int, default=40_000)
    parser.add_argument("--memory", type=int, default=0)
    parser.add_argument("--manifests", action="store_true")
    args = parser.parse_args()
    if args.manifests:
        streams = build_pipeline(load_settings(args.config, {})).pipeline.streams
        told = {
            name: {"manifest": manifest_as_dict(s.model.manifest), "file": str(s.model.bundle.path)}  # type: ignore[attr-defined]
            for name, s in streams.items()
        }
        print(json.dumps(told))
        return
    found = dict(run(args.config, args.batch, args.series, args.readings, args.memory))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
