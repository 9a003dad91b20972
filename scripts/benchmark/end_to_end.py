#!/usr/bin/env python3
"""Readings a second from sensor to prediction through mosquitto, Transom beside another program in the same run.

    end_to_end.py [--incremental | --stateful] [--runtime onnx] [--naive PROGRAM] [--series 1000] [--seconds 10]
                  [--rounds 3] [--json FILE]

PROGRAM is a Python script that takes PORT and QOS, prints READY, reads {"ts","seq","v"} from plant/#, and publishes
a prediction a reading on pred/# once it has 64 of a series; without it our own baseline runs (transom.bench.naive).
Both run an LSTM(32) over windows of 64; --incremental: a TCN of 32 channels, whose window the baseline computes anew;
--stateful: an LSTM(32) that carries its state, beside the baseline's of windows. The load is closed: at most --ahead
readings are on their way, so nothing is lost and the rate is what the program can do.
Programs take turns; the ratio is of the medians. Needs mosquitto.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from transom.bench import subjects
from transom.bench.load import PREDICTION, Load
from transom.bench.plan import HEARD
from transom.bench.private import find, private
from transom.bench.processes import Program
from transom.bench.readings import plain

Figures = dict[str, float]


def measure(
    program: Program, port: int, args: argparse.Namespace, filters: list[str], ending: bytes, silent: int
) -> Figures:
    with program:
        load = Load(port, [plain()], args.series, filters, ending)
        try:
            load.fill(subjects.LENGTH, silent, args.fill, program.name)
            before, heard = program.cpu(), load.heard
            rate = load.closed(args.seconds, args.ahead, program.name)
            cpu = 1e6 * (program.cpu() - before) / max(1, load.heard - heard)
            return {"rate": rate, "cpu_us": cpu, "rss_mb": program.rss() / 1e6}
        finally:
            load.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--naive", type=Path, help="the program to compare with (default: our own baseline)")
    kind = parser.add_mutually_exclusive_group()
    for name in ("incremental", "stateful"):
        kind.add_argument(f"--{name}", dest="kind", action="store_const", const=name, default="windows")
    parser.add_argument("--runtime", default="auto", choices=("auto", "torchscript", "onnx"), help="of the agent")
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ahead", type=int, default=5000)
    parser.add_argument("--fill", type=float, help="readings a second while windows fill (default: all at once)")
    parser.add_argument("--qos", type=int, default=0)
    parser.add_argument("--durability", default="none")
    parser.add_argument("--json", type=Path, help="where the raw results go")
    args = parser.parse_args()
    if find("mosquitto") is None:
        raise SystemExit("mosquitto is not installed: apt install mosquitto")
    results: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject = subjects.made_up(folder, args.kind)
        with private(folder) as broker:
            port = broker.port
            command = subjects.baseline(port, args.qos, subject.naive or [])
            filters, ending = ["naive/#"], PREDICTION
            if args.naive:
                command, filters, ending = [sys.executable, str(args.naive), str(port), str(args.qos)], ["pred/#"], b""
            for number in range(args.rounds):
                naive = Program(command, "READY")
                results.setdefault("naive", []).append(measure(naive, port, args, filters, ending, subjects.LENGTH - 1))
                state = folder / f"state-{number}"
                config = subjects.write(
                    folder / "bench.toml", port, subject.streams, state, durability=args.durability, qos=args.qos
                )
                agent = Program([*subjects.agent(config), "--agent.runtime", args.runtime], "ready:")
                results.setdefault("transom", []).append(measure(agent, port, args, HEARD, PREDICTION, subject.silent))
                for who, rows in results.items():
                    figures = "".join(f"  {what} {value:,.1f}" for what, value in rows[-1].items())
                    print(f"round {number + 1} {who:8}{figures}", flush=True)
    rate = {who: statistics.median(r["rate"] for r in rows) for who, rows in results.items()}
    print("  ".join(f"{who} {value:,.0f}/s" for who, value in rate.items()))
    cpu = {who: statistics.median(r["cpu_us"] for r in rows) for who, rows in results.items()}
    print(
        f"{subject.label}: ratio {rate['transom'] / rate['naive']:.1f}, of CPU time {cpu['naive'] / cpu['transom']:.1f}"
    )
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "results": results}, default=str, indent=1))


if __name__ == "__main__":
    main()
