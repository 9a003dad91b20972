"""Alarms raised over alarms budgeted, on data in which nothing happens: simulated, and parts of recordings.

Simulated: normal.py, 60 days of each kind at 5 min steps. NAB: each file until its first labelled window. SKAB: the
file without anomalies, each channel a series of its own. The last line is the exact 95 % interval of each sum's ratio
(Garwood 1936): where few alarms are allowed, one more or less is chance. The model is `universal`, on whose network
alarms do not depend: it is left out, for speed.
"""

import argparse
import csv
import math
from datetime import UTC, datetime
from pathlib import Path

import nab
import normal
import numpy as np

from transom.core.model import Model
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.runtimes import bundle, torchscript

BUDGETS = {"1/day": 86_400_000, "1/week": 604_800_000, "1/month": 2_592_000_000}  # ms to an alarm
Part = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> times int64 ms [n], values float64 [n]


class Still:
    """A model's manifest and no network, for runs that ask what the rest contributes: p-values do not depend on it."""

    def __init__(self, model: Model) -> None:
        self.manifest = model.manifest

    def infer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        last = values[:, -1]
        return {"score": np.zeros(len(values), np.float32), "contribution": np.zeros_like(last), "expected": last}


def simulated(days: int, seeds: int) -> Part:
    n = days * 86_400 // normal.STEP
    time = 1_700_000_000_000 + np.arange(n) * normal.STEP * 1000
    return {f"{kind}/{s}": (time, x) for s in range(seeds) for kind, x in normal.kinds(n, 1000 + s).items()}


def nab_part(folder: Path) -> Part:
    part = {}
    for f in nab.load(folder):
        end = f.windows[0][0] if f.windows else len(f.value)
        part[f"{f.category}/{f.name}"] = f.time[:end], f.value[:end]
    return part


def skab_part(path: Path) -> Part:
    with path.open() as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    time = np.array([int(datetime.fromisoformat(r["datetime"]).replace(tzinfo=UTC).timestamp() * 1000) for r in rows])
    names = [c for c in rows[0] if c not in ("datetime", "anomaly", "changepoint")]
    return {f"skab/{c.replace(' ', '')}": (time, np.array([float(r[c]) for r in rows])) for c in names}


def raised(part: Part, model: Model, every: int) -> dict[str, int]:
    """Alarms of each series with a budget of one in `every` ms."""
    pipeline = Pipeline([(StreamSpec("s", "s/{device}/{channel}", budget=1 / every), model)])
    names, found = list(part), dict.fromkeys(part, 0)
    for i in range(max(len(t) for t, _ in part.values())):
        messages = [
            Message(
                f"s/{j}/value", b'{"value":%r,"time":%d}' % (float(part[k][1][i]), part[k][0][i]), int(part[k][0][i])
            )
            for j, k in enumerate(names)
            if i < len(part[k][0])
        ]
        for alert in pipeline.process(messages).alerts:
            if alert.event == "raise":
                found[names[int(alert.series.split("/")[0])]] += 1
    return found


def expected(got: int) -> tuple[float, float]:
    """The means of the Poisson laws of which `got` or more, and `got` or fewer, come in 2.5 % of cases."""

    def at_most(count: int, mean: float) -> float:
        return sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))

    def mean(count: int, share: float) -> float:
        low, high = 1e-9, 2.0 * count + 20.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(count, middle) > share else (low, middle)
        return low

    return mean(got - 1, 0.975) if got else 0.0, mean(got, 0.025)


def table(title: str, part: Part, model: Model, of: int) -> None:
    """of: which part of a series' name is its kind."""
    kinds = list(dict.fromkeys(name.split("/")[of] for name in part))
    counts = {b: raised(part, model, every) for b, every in BUDGETS.items()}
    between: list[str] = []
    print(f"{title:36}" + "".join(f"{b:>22}" for b in BUDGETS))
    for kind in [*kinds, "all"]:
        own = [n for n in part if kind == "all" or n.split("/")[of] == kind]
        cells = []
        for b, every in BUDGETS.items():
            allowed = sum((part[n][0][-1] - part[n][0][0]) / every for n in own)
            got = sum(counts[b][n] for n in own)
            cells.append(f"{got:>6} of {allowed:>6.1f} {got / allowed:>5.2f}")
            if kind == "all":
                low, high = expected(got)
                between.append(f"{low / allowed:.2f} to {high / allowed:.2f}")
        print(f"{kind:36}" + "".join(f"{c:>22}" for c in cells), flush=True)
    print(f"{'95 % interval of the ratio':36}" + "".join(f"{c:>22}" for c in between), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="with nab/ and skab/; without it only simulated data")
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    model = Still(torchscript.load(bundle.find_model("universal", Path()), threads=1))
    table("simulated", simulated(args.days, args.seeds), model, 0)
    if args.folder:
        table("NAB before the first anomaly", nab_part(args.folder / "nab"), model, 0)
        table("SKAB without anomalies", skab_part(args.folder / "skab" / "anomaly-free" / "anomaly-free.csv"), model, 1)


if __name__ == "__main__":
    main()
