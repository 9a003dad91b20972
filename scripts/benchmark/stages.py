"""Where the time of a reading goes: CPU time by stage and batch size, in one thread, without a broker.

    stages.py [--model FILE] [--batch 1 16 64 256] [--series 1000] [--readings 40000] [--rounds 3] [--json FILE]

Without --model an LSTM(32) over windows of 64 x 1 is trained for an epoch. The least of the rounds stands in the table:
what a busy machine adds is not the stage's. The gemm peak is that of NumPy's float32 product in one thread.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from transom.bench import stages, subjects
from transom.bench.processes import environment
from transom.bench.readings import PLAIN_TOPIC

SIDE = 1024  # of the matrices whose product is the peak


def gemm() -> float:
    """Floating-point operations a second that one core can do, the best of ten products."""
    a = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    best = float("inf")
    for _ in range(10):
        begun = time.thread_time()
        a @ a
        best = min(best, time.thread_time() - begun)
    return 2 * SIDE**3 / best


def work(hidden: int = subjects.HIDDEN, length: int = subjects.LENGTH) -> int:
    """Floating-point operations of an LSTM over a window of one channel: four gates, a product and a sum each."""
    return length * 2 * 4 * hidden * (hidden + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model of one channel, read as {ts, seq, v}")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("--readings", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the raw results go")
    args = parser.parse_args()
    raw: dict[int, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        streams = {"bench": {"topic": PLAIN_TOPIC, "value": "v", "time": "ts", "model": str(args.model)}}
        if args.model is None:
            print("training the model", file=sys.stderr)
            streams = subjects.made_up(folder).streams
        config = subjects.write(folder / "bench.toml", 1, streams, folder / "state")
        for number in range(args.rounds):
            for batch in args.batch:
                command = [sys.executable, "-m", "transom.bench.stages", "--config", str(config)]
                readings = args.readings if batch > 1 else args.readings // 10
                command += ["--batch", str(batch), "--series", str(args.series), "--readings", str(readings)]
                print(f"round {number + 1}, batch {batch}", file=sys.stderr)
                told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment()).stdout
                raw.setdefault(batch, []).append(json.loads(told)[str(args.series)])
    best = {b: {s: min(r[s] for r in rounds) for s in stages.STAGES} for b, rounds in raw.items()}
    print(f"{'µs of CPU a reading':22}" + "".join(f"{f'batch {b}':>12}" for b in best))
    for stage in stages.STAGES:
        print(f"{stage:22}" + "".join(f"{at[stage]:12.2f}" for at in best.values()))
    print(f"{'all but infer, journal':22}" + "".join(f"{stages.own(at):12.2f}" for at in best.values()))
    peak = gemm()
    print(f"gemm peak of a core {peak / 1e9:.0f} GFLOP/s")
    if args.model is None:
        least = work() / peak * 1e6
        largest = max(best)
        print(
            f"the network at that peak {least:.2f} µs a window; infer takes {best[largest]['infer'] / least:.0f} times"
        )
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "gemm": peak, "results": raw}, default=str, indent=1))


if __name__ == "__main__":
    main()
