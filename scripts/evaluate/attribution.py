"""Does an alert name the channel that is at fault? Faults put into held-out normal running.

`transom train` on the first 60 % of SKAB's recording without anomalies, `transom replay` of pieces of the rest, each
with a fault in one channel, or in two. Sizes are in units of the channel's jitter about its mean of 20 steps. Counted
are cases whose piece raises no alert without the fault, and does with it (of two faults: with either alone). Two faults
rarely show at the same second: they are asked for when the alert is raised, in windows in which both are up, over the
whole alert, and by its sentences: whether these have named all at fault by its end, how many others, and how many
updates it took. Some 2 minutes on one core.
"""

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from skab_protocol import BAR, DATA, Table, read, run, train, write

from faults import BEFORE, FAULTY, KINDS, jitter_of, spoil

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, default=DATA / "skab", help="with anomaly-free/")
parser.add_argument("--family", default="lstm")
parser.add_argument("--cases", type=int, default=100, help="of each kind, and of two faults (default: 100)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.set_num_threads(1)
whole = read(args.folder / "anomaly-free" / "anomaly-free.csv")
channels, cut = len(whole.names), int(0.6 * len(whole.times))
rng = np.random.default_rng(args.seed)
jitter = jitter_of(whole.values[:cut])


def judged(pieces: dict[str, np.ndarray], folder: Path, model: Path, times: np.ndarray) -> dict[str, dict[str, list]]:
    """Replays each piece. -> by name: the shares of the channels in each window of its alerts, by time."""
    folder.mkdir()
    paths = [
        write(folder / f"{name}.csv", Table(folder, whole.names, times, values, np.zeros(0, bool)))
        for name, values in pieces.items()
    ]
    (folder / "c.toml").write_text(f'[streams.replay]\ntopic = "replay/{{series}}"\nthreshold = {BAR}\n')
    run("replay", *paths, "-c", folder / "c.toml", "--model", model, "--output", folder / "o.jsonl",
        "--alerts", folder / "a.jsonl")  # fmt: skip
    found: dict[str, dict[str, list]] = defaultdict(dict)
    for line in (folder / "o.jsonl").open():
        window = json.loads(line)
        if window["state"] == "alert":
            found[window["series"]][window["time"]] = [window["contribution"][n] for n in whole.names]
    return found


def named_in(folder: Path, channels: tuple[str, ...]) -> dict[str, tuple[set[int], int]]:
    """By series: the channels that its first alert has named by its end (or the piece's), and its updates."""
    found: dict[str, tuple[set[int], int]] = {}
    ids: dict[str, str] = {}
    for line in (folder / "a.jsonl").open():
        alert = json.loads(line)
        if ids.setdefault(alert["series"], alert["id"]) == alert["id"]:
            updates = found.get(alert["series"], (set(), 0))[1] + (alert["event"] == "update")
            found[alert["series"]] = {channels.index(c) for c in alert["channels"]}, updates
    return found


def names(shares: list, at: list[int]) -> bool:
    """Whether the channels at fault are the first ones by their shares."""
    return set(np.argsort(-np.asarray(shares))[: len(at)].tolist()) == set(at)


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    print(f"training {args.family} on {cut:,} rows")
    model = train(whole, folder, args.family, args.seed, slice(cut))
    times = whole.times[:1] + 1_000_000 * np.arange(BEFORE + FAULTY)
    print(f"{args.cases} cases of each; the channels at fault are named first, of those raised")
    print(f"{'fault':12}{'raised':>8}{'when raised':>18}{'in its windows':>18}{'over the alert':>18}"
      f"{'told by its end':>18}{'others told':>14}{'updates':>10}")  # fmt: skip
    named = total = 0
    for kind in track((*KINDS, "two faults"), "replaying", transient=True):
        faults, pieces = {}, {}
        for case in range(args.cases):
            begin = rng.integers(cut, len(whole.times) - BEFORE - FAULTY)
            clean = whole.values[begin : begin + BEFORE + FAULTY]
            double = kind == "two faults"
            at = rng.choice(channels, 2, replace=False) if double else [case % channels]
            kinds = rng.choice(KINDS, 2) if double else [kind]
            pieces[f"{case}-clean"], pieces[f"{case}"] = clean, clean.copy()
            for c, one in zip(at, kinds, strict=True):
                spoiled = spoil(clean[BEFORE:, c], one, jitter[c], rng.choice([-1, 1]), rng.standard_normal(FAULTY))
                pieces[f"{case}"][BEFORE:, c] = spoiled
                alone = clean.copy()
                alone[BEFORE:, c] = spoiled
                if double:
                    pieces[f"{case}-{c}"] = alone
            faults[f"{case}"] = [int(c) for c in at]
        found = judged(pieces, folder / kind.replace(" ", "-"), model, times)
        told = named_in(folder / kind.replace(" ", "-"), whole.names)
        counted = [
            n for n, at in faults.items()
            if n in found and f"{n}-clean" not in found and (len(at) == 1 or all(f"{n}-{c}" in found for c in at))
        ]  # fmt: skip
        right = [names(next(iter(found[n].values())), faults[n]) for n in counted]
        over = [names(np.mean(list(found[n].values()), 0), faults[n]) for n in counted]
        both = [
            names(shares, faults[n])
            for n in counted
            for time, shares in found[n].items()
            if all(time in found[f"{n}-{c}"] for c in faults[n] if kind not in KINDS)
        ]
        if kind in KINDS:
            named, total = named + sum(right), total + len(right)
        by_end = [set(faults[n]) <= told[n][0] for n in counted]
        others = np.mean([len(told[n][0] - set(faults[n])) for n in counted])
        shares = "".join(f"{100 * np.mean(r):16.1f} %" for r in (right, both, over, by_end))
        print(f"{kind:12}{len(counted):8}{shares}{others:>14.2f}{np.mean([told[n][1] for n in counted]):>10.1f}")
    print(f"one fault, all kinds: named first in {named} of {total} alerts ({100 * named / max(total, 1):.1f} %)")
