"""Recordings that `transom train` reads and `transom replay` does not, as CSV files: each case of a .ts file, each unit
of a .txt table of runs. The time is counted up from 2026-01-01 in steps of --step seconds, for the files hold none."""

import argparse
from pathlib import Path

import numpy as np

from transom_models.cases import is_cases, read_cases
from transom_models.runs import read_runs

BEGIN = np.datetime64("2026-01-01T00:00:00", "ms")

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", type=Path)
parser.add_argument("folder", type=Path, help="where the CSV files go; it is made")
parser.add_argument("--step", type=float, default=1.0, help="seconds from row to row (default: 1)")
parser.add_argument("--channels", nargs="+", default=[], help="names, where the file has none")
args = parser.parse_args()

args.folder.mkdir(parents=True, exist_ok=True)
if is_cases(args.file):
    values, labels = read_cases(args.file)
    names = args.channels or [f"channel{i + 1}" for i in range(values.shape[2])]
    found = [(f"{i:03}-{label}", names, case) for i, (case, label) in enumerate(zip(values, labels, strict=True))]
else:
    found = [(r.name.replace("/", "-"), list(r.channels), r.values) for r in read_runs(args.file)]
for name, names, rows in found:
    times = BEGIN + (np.arange(len(rows)) * args.step * 1000).astype("timedelta64[ms]")
    lines = [f"{t}Z,{','.join(f'{v:g}' for v in row)}" for t, row in zip(times, rows, strict=True)]
    (args.folder / f"{name}.csv").write_text("\n".join([f"time,{','.join(names)}", *lines]) + "\n")
print(f"{len(found)} files in {args.folder}")
