"""The scenarios of tests/faults for as long as you like, one after the other, each with its accounts.

Ends with 1 as soon as a scenario breaks a promise; the folder of that one is kept.
"""

import argparse
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalogue import SCENARIOS
from harness import Listener, Sensors

SOAK = 180  # seconds of a soak at scale 1


@contextmanager
def progress(name: str) -> Iterator[None]:
    """One line that tells how far a scenario is, on a terminal only."""
    if not sys.stderr.isatty():
        yield
        return
    over, began = threading.Event(), time.monotonic()
    Sensors.latest = Listener.latest = None

    def go() -> None:
        while not over.wait(1.0):
            sensors, heard = Sensors.latest, Listener.latest
            told = f"{name} {time.monotonic() - began:4.0f} s"
            if sensors is not None and heard is not None:
                told += f", {sensors.sent * sensors.series:,} sent, {heard.counts().get('accepted', 0):,} accepted"
                told += f", {len(heard.alerts):,} alerts"
            print(f"\r\033[K{told}", end="", file=sys.stderr, flush=True)
        print("\r\033[K", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run(name: str, scale: float, seed: int) -> list[str]:
    """Prints what came of it; the promises that were broken."""
    folder, began = Path(tempfile.mkdtemp(prefix=f"transom-{name}-")), time.monotonic()
    print(f"{time.strftime('%H:%M:%S')} {name}, seed {seed} …", flush=True)
    with progress(name):
        report = SCENARIOS[name](folder, scale, seed)
    print(f"{report}\n  took {time.monotonic() - began:.0f} s\n", flush=True)
    problems = report.problems()
    if problems:
        print(f"FAILED, kept in {folder}:\n  " + "\n  ".join(problems))
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=30, help="how long in all, or how long one soak is (default 30)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the first round; each round has the next (default 0)")
    parser.add_argument("only", nargs="*", metavar="SCENARIO", help=f"some of: {', '.join(SCENARIOS)} (default: all)")
    args = parser.parse_args()
    unknown = [name for name in args.only if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    end, seed, chosen = time.monotonic() + 60 * args.minutes, args.seed, args.only or list(SCENARIOS)
    while True:
        for name in chosen:
            scale = max(1.0, 60 * args.minutes / SOAK) if chosen == ["soak"] else 1.0
            if run(name, scale, seed):
                return 1
            if time.monotonic() > end:
                return 0
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
