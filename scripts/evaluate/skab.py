"""SKAB: an eight-channel detector for each experiment, trained on its first 400 rows.

`transom train` and `transom replay` with their defaults but for the stream's `threshold`; a row is anomalous when its
state is "alert". Prints the pooled figures beside the published ones, each file's, and those with the threshold chosen
on the other groups. Some 2 minutes on one core.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from skab_protocol import BAR, DATA, GROUPS, alerts, experiments, pooled, replay, train

PUBLISHED = {"Conv-AE": 0.78, "MSET": 0.78, "T2+Q": 0.76, "LSTM-AE": 0.74, "LSTM": 0.54, "isolation forest": 0.29}
BARS = np.sqrt(np.arange(3.0, 8.0, 0.2))

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, default=DATA / "skab", help="with valve1/, valve2/ and other/")
parser.add_argument("--families", nargs="+", default=["lstm", "cnn"])
parser.add_argument("--seeds", nargs="+", type=int, default=[0])
parser.add_argument("--false-alarms", help='a budget such as "1/day" in place of the threshold')
args = parser.parse_args()
torch.set_num_threads(1)
tables = experiments(args.folder)
if not tables:
    raise SystemExit(f"{args.folder}: no experiments here; name the folder that holds valve1/, valve2/ and other/")
setting = f'false_alarms = "{args.false_alarms}"' if args.false_alarms else f"threshold = {BAR}"

print(f"{len(tables)} experiments, {sum(len(t.times) - 400 for t in tables):,} rows judged, {setting}\n")
for name, f1 in PUBLISHED.items():
    print(f"{name + ' (published)':28}F1 {f1:.2f}{'    FAR 13.6 %   MAR 28.0 %' if name == 'Conv-AE' else ''}")
for family in args.families:
    for seed in args.seeds:
        scores, flags = [], []
        for table in track(tables, f"{family}, seed {seed}", transient=True):
            with tempfile.TemporaryDirectory() as folder:
                model = train(table, Path(folder), family, seed)
                score, alert = replay({"whole": table}, model, Path(folder), setting)["whole"]
            scores.append(score)
            flags.append(alert)
        print(f"{f'transom {family}, seed {seed}':28}{pooled(tables, flags)}")
        for group in GROUPS:
            of = [i for i, t in enumerate(tables) if t.group == group]
            if of:
                print(f"{'  ' + group:28}{pooled([tables[i] for i in of], [flags[i] for i in of])}")
        for table, alert in zip(tables, flags, strict=True):
            print(f"{f'    {table.group}/{table.path.name}':28}{pooled([table], [alert])}")
        # The threshold chosen on two groups, by the best F1 there, and judged on the third.
        every = {float(b): [alerts(s, float(b)) for s in scores] for b in BARS}
        left: list[np.ndarray] = [np.zeros(0, bool)] * len(tables)
        for group in GROUPS:
            others = [i for i, t in enumerate(tables) if t.group != group]
            if not others:
                continue
            bar = max(every, key=lambda b: pooled([tables[i] for i in others], [every[b][i] for i in others]).f1)
            for i in set(range(len(tables))) - set(others):
                left[i] = every[bar][i]
            print(f"    threshold {bar:.2f} chosen without {group}")
        print(f"{'  leaving each group out':28}{pooled(tables, left)}")
        print("  F1 and FAR by threshold:")
        for bar, said in every.items():
            if 2 < bar < 2.5:
                print(f"{f'    {bar:.2f}':28}{pooled(tables, said)}")
