"""The scenarios of tests/faults for as long as you like, one after the other, each with its accounts.

Ends with 1 as soon as a scenario loses a reading or an alert, or grows; the folder of that one is kept.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from harness import Report
from scenarios import SCENARIOS

SOAK = 180  # seconds of a soak at scale 1
GROWTH = 1000  # kB a minute of a soak of half an hour
BROKERS = ("kill-broker", "kill-both")  # here the broker itself may lose what it had not written


def problems(name: str, report: Report) -> list[str]:
    """What is wrong with the accounts of a scenario."""
    f = report.facts
    found = []
    if "readings sent" in f:
        lost = f["readings sent"] - f["accepted"] - f["missing"]
        if lost or (f["missing"] and name not in BROKERS):
            found.append(f"{lost} readings not accounted for, {f['missing']} missing")
        if f["alerts never delivered"] and not f["missing"]:
            found.append("alerts that were never delivered")
        if f["predictions that differ"] and not f["missing"]:
            found.append("predictions that differ from those of an undisturbed run")
    if not f.get("accounts balance", True):
        found.append("accounts that do not balance")
    if f.get("kB a minute", 0) > GROWTH:
        found.append(f"memory that grows by {f['kB a minute']} kB a minute")
    if f.get("exit status", 0) != 0:
        found.append(f"exit status {f['exit status']}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/torture", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--minutes", type=float, default=30, help="how long in all, or how long one soak is (default 30)"
    )
    parser.add_argument("only", nargs="*", metavar="SCENARIO", help=f"some of: {', '.join(SCENARIOS)} (default: all)")
    args = parser.parse_args()
    unknown = [name for name in args.only if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    end, seed, chosen = time.monotonic() + 60 * args.minutes, 0, args.only or list(SCENARIOS)
    while True:
        for name in chosen:
            scale = max(1.0, 60 * args.minutes / SOAK) if chosen == ["soak"] else 1.0
            folder = Path(tempfile.mkdtemp(prefix=f"transom-{name}-"))
            began = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {name} …", flush=True)
            report = SCENARIOS[name](folder, scale, seed)
            print(f"{report}\n  took {time.monotonic() - began:.0f} s\n", flush=True)
            found = problems(name, report)
            if found:
                print(f"FAILED: {'; '.join(found)}; kept in {folder}")
                return 1
            shutil.rmtree(folder, ignore_errors=True)
            if time.monotonic() > end:
                return 0
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
