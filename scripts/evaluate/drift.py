"""Is slow ageing told as drift, is nothing else, and does it raise alarms? A data folder in, tables out.

Without a drift: normal.py, 120 days of each kind at 5 min steps; signals of the family that `universal` learned from,
60 days at 1 h; NAB until each file's first labelled window; SKAB without anomalies. With one: the kinds of normal.py
stay as they are for 30 days and then rise by a share of their level over 30 days; alarms are those of `universal` at
one a week, beside those of the same data without the rise. Some 2 minutes on one core.
"""

import argparse
from pathlib import Path

import alarms
import normal
import numpy as np

from transom.core.drift import DAYS, Drift
from transom.core.model import Model
from transom.core.pipeline import Message, Pipeline
from transom.core.stream import StreamSpec
from transom.runtimes import bundle, torchscript
from transom_models import synthetic

DAY = 86_400_000  # ms
LEVEL = 10.0  # added to kinds whose mean is near 0, so that a share of the level means something
RISES = (0.0, 0.1, 0.3)
EVERY = 3  # readings of normal.py: 15 min
WEEK = 7 * DAY


def told(part: alarms.Part) -> dict[str, int]:
    """Of each series: the first day on which a drift is told of, -1 = never."""
    drift, names = Drift(1), list(part)
    drift.resize(len(names))
    first = dict.fromkeys(names, -1)
    days = {n: (part[n][0] - part[n][0][0]) // DAY for n in names}
    for day in range(max(int(d[-1]) for d in days.values()) + 1):
        rows = [np.flatnonzero(days[n] == day) for n in names]
        series = np.repeat(np.arange(len(names), dtype=np.int32), [len(r) for r in rows])
        time = np.concatenate([part[n][0][r] for n, r in zip(names, rows, strict=True)])
        value = np.concatenate([part[n][1][r] for n, r in zip(names, rows, strict=True)])
        drift.learn(series, time * 1000, value[:, None].astype(np.float32))
        for i in np.flatnonzero(drift.began[:, 0] >= 0).tolist():
            if first[names[i]] < 0:
                first[names[i]] = day
    return first


def show(title: str, part: alarms.Part, of: int | None = None) -> None:
    """of: which part of a series' name is its kind, where those with a report are shown apart."""
    found = told(part)
    hit = [n for n in part if found[n] >= 0]
    years = sum((t[-1] - t[0]) / DAY for t, _ in part.values()) / 365
    kinds = ", ".join(sorted({n.split("/")[of] for n in hit})) if of is not None else ""
    print(f"{title:52}{len(part):>8}{years:>14.1f}{len(hit):>10}   {kinds}", flush=True)


def made_up(count: int) -> alarms.Part:
    values = synthetic.signals(count, 60 * 24, 17, events=False)
    time = 1_700_000_000_000 + np.arange(60 * 24) * 3_600_000
    return {f"{i}": (time, x) for i, x in enumerate(values)}


def ageing(rise: float, seeds: int) -> tuple[alarms.Part, int]:
    """30 days as ever, and 30 in which the level rises by so much of itself; and the first day of the rise."""
    n = 60 * DAY // (1000 * normal.STEP)
    time = 1_700_006_400_000 + np.arange(n) * normal.STEP * 1000
    share = np.clip((np.arange(n) - n / 2) / (n / 2), 0, 1)
    part = {}
    for seed in range(seeds):
        for kind, x in normal.kinds(n, 2000 + seed).items():
            if kind == "on and off":  # its level is where it happens to be
                continue
            x = x + (LEVEL if abs(x.mean()) < 1 else 0.0)
            part[f"{kind}/{seed}"] = time[::EVERY], (x + rise * x[: n // 2].mean() * share)[::EVERY]
    return part, 30


def alarmed(part: alarms.Part, model: Model) -> tuple[dict[str, int], dict[str, tuple[int, float]]]:
    """Alarms of each series with a budget of one a week; and of those told of as drift: the day, and the beginning."""
    pipeline = Pipeline([(StreamSpec("s", "s/{device}/{channel}", budget=1 / WEEK), model)])
    names = list(part)
    raised, drifts = dict.fromkeys(names, 0), {}
    begin = part[names[0]][0][0]
    for i, now in enumerate(part[names[0]][0].tolist()):
        events = pipeline.process([
            Message(f"s/{j}/value", b'{"value":%r,"time":%d}' % (float(part[n][1][i]), now), now)
            for j, n in enumerate(names)
        ])  # fmt: skip
        for alert in events.alerts:
            raised[names[int(alert.series.split("/")[0])]] += alert.event == "raise"
        if (now - begin) % DAY == 0:
            for report in pipeline.drifting(len(names))[1]:
                assert report.since is not None
                name = names[int(report.series.split("/")[0])]
                drifts.setdefault(name, (int((now - begin) // DAY), (report.since / 1000 - begin) / DAY))
    return raised, drifts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="with nab/ and skab/; without it only simulated data")
    parser.add_argument("--seeds", type=int, default=4, help="of each kind without a drift (default: 4)")
    parser.add_argument("--ageing-seeds", type=int, default=1, help="of each kind with one (default: 1)")
    args = parser.parse_args()
    print(f"{'without a drift':52}{'series':>8}{'sensor years':>14}{'told of':>10}")
    show("simulated, 10 kinds, 120 days at 5 min", alarms.simulated(120, args.seeds), 0)
    show("made-up signals, some with trend or walk, 60 days", made_up(300))
    if args.folder:
        show("NAB before the first anomaly", alarms.nab_part(args.folder / "nab"), 1)
        show("SKAB without anomalies", alarms.skab_part(args.folder / "skab" / "anomaly-free" / "anomaly-free.csv"))
    model = alarms.Still(torchscript.load(bundle.find_model("universal", Path()), threads=1))
    print(f"\n{'30 days still, then over 30 days':36}{'series':>8}{'told of':>9}{'after days':>12}{'since, off by':>15}"
          f"{'alarms':>8}{'allowed':>9}")  # fmt: skip
    for rise in RISES:
        part, first = ageing(rise, args.ageing_seeds)
        raised, drifts = alarmed(part, model)
        after = [day - first for day, _ in drifts.values()]
        off = [abs(since - first) for _, since in drifts.values()]
        row = f"{'as ever' if not rise else f'+{100 * rise:.0f} % of the level':36}{len(part):>8}{len(drifts):>9}"
        row += f"{np.median(after):>12.0f}{np.median(off):>13.1f} d" if drifts else f"{'':27}"
        print(f"{row}{sum(raised.values()):>8}{len(part) * 60 * DAY / WEEK:>9.0f}", flush=True)
    print(f"\n{sum(column.nbytes for column in _columns(Drift(1)))} bytes a channel, {DAYS} days of it")


def _columns(drift: Drift) -> list[np.ndarray]:
    drift.resize(1)
    return [getattr(drift, name)[:1] for name in drift.fills]


if __name__ == "__main__":
    main()
