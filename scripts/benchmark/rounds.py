"""`transom bench` several times over: the table of medians, and every round's results as JSON.

    rounds.py [--rounds 5] [--seconds 10] [--series 1000] [-c FILE] [--json FILE] [--svg FILE]

Rates, latencies and ratios are medians over the rounds, each ratio of the two figures of one round: what is slow for
both at the same time does not enter it. Takes some six minutes a round on a quiet machine.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from transom.bench.picture import picture
from transom.verbs.bench import show


def middle(values: list[Any]) -> Any:
    """The same tree with the median of each number; of all else the first."""
    first = values[0]
    known = [v for v in values if v is not None]
    if isinstance(first, dict):
        return {key: middle([v.get(key) for v in known if isinstance(v, dict)]) for key in first}
    if isinstance(first, list):
        return [middle([v[i] for v in known if len(v) > i]) for i in range(len(first))]
    if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        return statistics.median(known)
    return first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--series", type=int, default=1000)
    parser.add_argument("-c", "--config", type=Path, help="streams and models of a configuration")
    parser.add_argument("--json", type=Path, help="where the raw results go")
    parser.add_argument("--svg", type=Path, help="the picture of the medians")
    args = parser.parse_args()
    command = [sys.executable, "-m", "transom", "bench", "--json", "--seconds", str(args.seconds)]
    command += ["--series", str(args.series), *(["-c", str(args.config)] if args.config else [])]
    raw = []
    for number in range(args.rounds):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if not done.stdout:
            raise SystemExit(f"round {number + 1} gave nothing (status {done.returncode})")
        raw.append(json.loads(done.stdout))
        ratio = (raw[-1].get("end_to_end") or {}).get("ratio")
        print(f"round {number + 1}: {raw[-1]['taken_s']:.0f} s, ratio {ratio or float('nan'):.1f}", file=sys.stderr)
        if args.json:  # after each round: what was measured is not lost
            args.json.write_text(json.dumps({"arguments": vars(args), "rounds": raw}, default=str, indent=1))
    medians = middle(raw)
    show(medians)
    if args.svg and medians.get("series"):
        args.svg.write_text(picture(medians["series"], f"Transom {medians['version']}: {medians['subject']}"))


if __name__ == "__main__":
    main()
