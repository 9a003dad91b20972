"""The measurements of `transom bench`, one after another, each with programs and a load of its own.

A subject and a broker in, plain figures out: rates are a second, times µs or ms as their names say, memory bytes.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from transom.bench import stages, subjects
from transom.bench.load import PORTION, Load, Paced, publish
from transom.bench.private import Private, find
from transom.bench.processes import BenchError, Program, children, output
from transom.bench.subjects import Subject

HEARD = ["transom/bench/#"]
MALFORMED = b"{\xff"  # refused in every format: its dead letter says that all before it has been decoded
RATES = (100, 10_000)  # readings a second at which latency is measured
SWEEP_RATE = 1000  # the same against the number of series
CORE = (10, 100, 1000, 10_000, 100_000)  # series of which the cost a reading is measured without a broker
SWEEP = (10, 100, 1000, 10_000)  # and from end to end
MOST_FILLED = 60_000  # readings that filling windows may take in the sweep
MORE = 50_000  # series by which memory is made to grow
FLOOD = 25_000  # messages for each second of --seconds that are received
PATIENCE = 120.0  # seconds until all of them must have been


@dataclass(slots=True)
class Plan:
    """seconds: of each measurement. series: of the comparison; ahead: readings on their way in a closed load."""

    broker: Private
    subject: Subject
    folder: Path
    seconds: float
    series: int = 1000
    ahead: int = 5000
    sweep: Sequence[int] = SWEEP
    core: Sequence[int] = CORE
    rates: Sequence[int] = RATES
    fill: float | None = None  # readings a second while windows fill
    _numbers: Any = field(default_factory=itertools.count)
    _started: list[tuple[float, float]] = field(default_factory=list)  # seconds, and of CPU, until an agent was ready

    def __post_init__(self) -> None:
        if not self.broker.fast:  # amqtt passes on some 4,000 messages a second, and queues badly
            self.series, self.ahead, self.fill = min(self.series, 50), 200, 1000.0
            self.sweep = [n for n in self.sweep if n <= 100]
            self.rates = [rate for rate in self.rates if rate <= 1000]
        if self.seconds < 1:  # a look whether all works, not a measurement
            self.core = [n for n in self.core if n <= 10_000]

    def steps(self) -> list[tuple[str, str, Callable[[], Any]]]:
        """(key of the result, what is done, how) in their order."""
        return [
            ("end_to_end", "readings from end to end", self.end_to_end),
            ("receive", "receiving alone", self.receive),
            ("latency", "latency", self.latency),
            ("series", "many series, end to end", self.many_series),
            ("core", "many series, stage by stage", self.stages),
            ("start", "start", self.start),
        ]

    # --- parts --------------------------------------------------------------------------------------------------------

    def _config(self, subject: Subject, **options: Any) -> Path:
        number = next(self._numbers)
        folder = self.folder / f"agent-{number}"
        protocol = "auto" if self.broker.fast else "3.1.1"
        return subjects.write(
            self.folder / f"agent-{number}.toml",
            self.broker.port,
            subject.streams,
            folder,
            protocol=protocol,
            **options,
        )

    @contextmanager
    def _agent(self, subject: Subject, **options: Any) -> Iterator[Program]:
        with Program(subjects.agent(self._config(subject, **options)), "ready:") as program:
            if subject is self.subject:
                self._started.append((program.seconds, program.cpu()))
            yield program

    def _load(self, series: int, filters: Sequence[str] = HEARD) -> Load:
        return Load(self.broker.port, self.subject.sources, series, filters)

    def start(self) -> dict[str, float]:
        """Seconds from the start of the process, and of CPU: until the agent is subscribed, the least of all that were
        started for the other measurements, and for `import torch` alone, the lesser of two."""
        imports = []
        for _ in range(2):
            begun, cpu = time.perf_counter(), children()
            output([sys.executable, "-c", "import torch"], 300)
            imports.append((time.perf_counter() - begun, children() - cpu))
        (seconds, cpu), (alone, cpu_alone) = min(self._started), min(imports)
        return {
            "ready_s": seconds, "ready_cpu_s": cpu, "import_torch_s": alone, "import_torch_cpu_s": cpu_alone,
            "ratio": seconds / alone, "cpu_ratio": cpu / cpu_alone,
        }  # fmt: skip

    def end_to_end(self) -> dict[str, Any]:
        """The baseline, the agent without and with its journal, and on ONNX Runtime where there is one."""
        subject, found = self.subject, {}
        if subject.naive is not None:
            program = Program(subjects.baseline(self.broker.port, 0, subject.naive), "READY")
            found["naive"] = self._rate(program, ["naive/#"], subject.length - 1)
        found["transom"] = self._rate(self._agent(subject), HEARD, subject.silent)
        found["transom_process"] = self._rate(self._agent(subject, durability="process"), HEARD, subject.silent)
        other = subjects.twin(subject, self.folder)
        if isinstance(other, Subject):
            found["transom_onnx"] = self._rate(self._agent(other), HEARD, other.silent)
        result: dict[str, Any] = {"series": self.series, "qos": 0, **found}
        result["onnx_note"] = other if isinstance(other, str) else ""
        result["ratio"] = found["transom"]["rate"] / found["naive"]["rate"] if "naive" in found else None
        result["onnx_ratio"] = (
            found["transom_onnx"]["rate"] / found["naive"]["rate"]
            if {"naive", "transom_onnx"} <= found.keys()
            else None
        )
        result["journal_cost"] = 1 - found["transom_process"]["rate"] / found["transom"]["rate"]
        return result

    def _rate(
        self, started: AbstractContextManager[Program], filters: Sequence[str], silent: int
    ) -> dict[str, float]:  # fmt: skip
        with started as program:
            load = self._load(self.series, filters)
            try:
                load.fill(self.subject.length, silent, self.fill, program.name)
                before, heard = program.cpu(), load.heard
                rate = load.closed(self.seconds, self.ahead, program.name)
                cpu = (program.cpu() - before) / max(1, load.heard - heard)
                return {"rate": rate, "cpu_us": 1e6 * cpu, "rss_bytes": program.rss(), "ready_s": program.seconds}
            finally:
                load.close()

    def receive(self) -> dict[str, Any] | None:
        """Messages received and decoded while no window is due, beside mosquitto_sub. None without mosquitto."""
        if not self.broker.fast:
            return None
        found: dict[str, Any] = {}
        count = max(2000, round(FLOOD * self.seconds))
        for qos in (0, 1):
            mine = self._receive(qos, count)
            ceiling = self._mosquitto_sub(qos, count)
            found[f"qos{qos}"] = {
                "messages": count, "transom": mine, "mosquitto_sub": ceiling,
                "rate_ratio": mine["rate"] / ceiling["rate"] if ceiling else None,
                "cpu_ratio": mine["cpu_us"] / ceiling["cpu_us"] if ceiling else None,
            }  # fmt: skip
        return found

    def _receive(self, qos: int, count: int) -> dict[str, float]:
        with self._agent(self.subject, qos=qos, due=False, durability="process" if qos else "none") as program:
            load = self._load(self.series)
            try:
                flood = self._flood(load, count, qos)
                self._mark(load, 1, qos, program.name)
                cpu, begun = program.cpu(), time.monotonic()
                for data in flood:
                    load.write(data)
                self._mark(load, 2, qos, program.name)
                return {"rate": count / (time.monotonic() - begun), "cpu_us": 1e6 * (program.cpu() - cpu) / count}
            finally:
                load.close()

    def _flood(self, load: Load, count: int, qos: int) -> list[bytes]:
        """Made before the time is taken. Each series has been seen before: its first window is always due."""
        load.write(publish(load.readings(load.series), qos))
        portions = [PORTION] * (count // PORTION) + [count % PORTION]
        return [publish(load.readings(n), qos, 1 + i * PORTION) for i, n in enumerate(portions) if n]

    def _mark(self, load: Load, nth: int, qos: int, what: str) -> None:
        load.write(publish([(load.readings(1)[0][0], MALFORMED)], qos, 65_535))
        if not load.wait_refused(nth, PATIENCE):
            raise BenchError(what, f"has not received everything after {PATIENCE:.0f} s")

    def _mosquitto_sub(self, qos: int, count: int) -> dict[str, float] | None:
        binary = find("mosquitto_sub")
        if binary is None:
            return None
        name = f"bench-sub-{next(self._numbers)}"
        filters = [word for text in self._filters() for word in ("-t", text)]
        command = [binary, "-h", "127.0.0.1", "-p", str(self.broker.port), "-i", name, "-q", str(qos), "-C", str(count)]
        load = self._load(self.series, [])
        try:
            flood = self._flood(load, count, qos)
            with Program([*command, *filters], None, devnull=True) as program:
                self.broker.wait_subscribed(f"{name} {qos}")
                begun = time.monotonic()
                for data in flood:
                    load.write(data)
                ended = program.wait(PATIENCE)
                if ended is None:
                    raise BenchError(binary, f"has not received {count:,} messages after {PATIENCE:.0f} s")
                return {"rate": count / (ended[0] - begun), "cpu_us": 1e6 * ended[1] / count}
        finally:
            load.close()

    def _filters(self) -> list[str]:
        topics = [str(table["topic"]) for table in self.subject.streams.values()]
        return ["/".join("+" if level.startswith("{") else level for level in text.split("/")) for text in topics]

    def latency(self) -> dict[str, Any]:
        """From the reading's sending to the prediction's hearing, over the broker twice; and as the agent counts, from
        arrival to publishing, in whole milliseconds."""
        found: dict[str, Any] = {}
        with self._agent(self.subject) as program:
            load = self._load(min(self.series, 100))
            try:
                load.fill(self.subject.silent + 1, self.subject.silent, self.fill, program.name)
                for rate in self.rates:
                    given = load.paced(rate, max(self.seconds, 1.0))
                    load.health, end = b"", time.monotonic() + 5
                    while not load.health and time.monotonic() < end:
                        load.listen(0.1)
                    told = msgspec.json.decode(load.health)["latency_ms"] if load.health else {}
                    found[str(rate)] = {**percentiles(given, rate), "agent_ms": told}
            finally:
                load.close()
        return {"timed_by": "reading" if all(s.timed for s in self.subject.sources) else "arrival", "at": found}

    def many_series(self) -> list[dict[str, Any]]:
        """Throughput and latency against the number of series, one agent that meets more and more of them."""
        found: list[dict[str, Any]] = []
        silent = self.subject.silent
        with self._agent(self.subject) as program:
            load = self._load(min(self.sweep))
            try:
                for series in self.sweep:
                    if series * (silent + 1) > MOST_FILLED or (found and found[-1]["series"] == load.use(series)):
                        break
                    load.fill(silent + 1, silent, self.fill, program.name)
                    load.calm()
                    cpu, heard = program.cpu(), load.heard
                    rate = load.closed(self.seconds / 2, self.ahead, program.name)
                    each = 1e6 * (program.cpu() - cpu) / max(1, load.heard - heard)
                    pace = SWEEP_RATE if self.broker.fast else 100
                    given = load.paced(pace, max(self.seconds / 2, 0.5))
                    found.append({"series": load.series, "rate": rate, "cpu_us": each, **percentiles(given, pace)})
            finally:
                load.close()
        return found

    def stages(self) -> dict[str, Any]:
        """Each stage's CPU time a reading at batch 64, and memory."""
        config = self._config(self.subject)
        readings = max(2000, round(5000 * self.seconds))
        more = MORE if self.seconds >= 1 else MORE // 5
        command = ["--config", str(config), "--batch", "64", "--readings", str(readings), "--memory", str(more)]
        told = output([sys.executable, "-m", "transom.bench.stages", *command, "--series", *map(str, self.core)], 600)
        found = json.loads(told)
        memory = found.pop("memory")
        at = found.get("1000") or next(iter(found.values()))
        own = {count: stages.own(taken) for count, taken in found.items()}
        total = {count: own[count] + found[count]["infer"] for count in found}
        few, many = str(self.core[0]), str(self.core[-1])
        return {
            "batch": 64, "own_us": stages.own(at), "infer_us": at["infer"], "journal_us": at["journal"],
            "stages_us": at,
            "own_us_by_series": own, "total_us_by_series": total,
            "growth": total[many] / total[few], "own_growth": own[many] / own[few],
            "bytes_a_series": memory["bytes_a_series"],
        }  # fmt: skip


def percentiles(given: Paced, rate: float) -> dict[str, Any]:
    """kept_up: whether no more than a tenth of a second's readings were waiting at the end."""
    p50, p95, p99 = np.percentile(given.latencies, [50, 95, 99]) if len(given.latencies) else [float("nan")] * 3
    told: Mapping[str, Any] = {
        "p50_ms": float(p50), "p95_ms": float(p95), "p99_ms": float(p99), "sent": given.sent, "heard": given.heard,
        "kept_up": given.behind <= max(20, rate / 10),
    }  # fmt: skip
    return dict(told)
