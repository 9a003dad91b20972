"""ETTh1: seven channels, 12/4/4 months, standardised on the training part.

The forecaster that `transom train --task forecast --family cnn` makes, with `--horizon` 96 and 24. The whole test part
counts: each window of it, none dropped. The period is found in the training part, training stops by the validation
part, and the intervals are set on the errors of both (the validation part is one season; the year before holds all).
Prints MSE and MAE of several seeds beside the published ones, and how often the truth lies within the 80 % interval.
"""

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from transom.core.model import Channel, Manifest
from transom.runtimes import torchscript
from transom_models import evaluation, export, periods, recordings
from transom_models.building import scaling
from transom_models.tasks import QUANTILES, PeriodicForecaster
from transom_models.training import Plan, train

DATA = Path(os.environ.get("TRANSOM_DATA", "../shared/data"))
MONTH = 30 * 24
PUBLISHED = {96: "DLinear 0.375 / 0.399, PatchTST 0.370 / 0.400, Informer 0.865 / 0.713 (MSE / MAE)", 24: "none here"}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", nargs="?", type=Path, default=DATA / "ett" / "ETTh1.csv.gz")
parser.add_argument("--horizon", nargs="+", type=int, default=[96, 24])
parser.add_argument("--length", type=int, default=720, help="of the look-back (default: 720)")
parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
parser.add_argument("--epochs", type=int, default=12)
args = parser.parse_args()
torch.set_num_threads(1)

recording = recordings.read(args.file)
edges = [0, 12 * MONTH, 16 * MONTH, 20 * MONTH]
mean, scale = scaling(recording.values[None, : edges[1]])
pieces = edges[1] // args.length
found_period = periods.period(recording.values[: pieces * args.length].reshape(pieces, args.length, -1))
print(f"{recording.name}: {len(recording.channels)} channels, period found in the training part: {found_period} steps")


def part(begin: int, end: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows whose forecasts lie in [begin, end): their look-back may reach back before it. Views, not copies."""
    first = max(0, begin - args.length)
    view = np.lib.stride_tricks.sliding_window_view(recording.values[first:end], args.length + horizon, axis=0)
    view = view.transpose(0, 2, 1)
    return view[:, : args.length], view[:, args.length :]


for horizon in args.horizon:
    training, validation, test = (part(a, b, horizon) for a, b in itertools.pairwise(edges))
    rows = []
    for seed in args.seeds:
        torch.manual_seed(seed)
        module = PeriodicForecaster(mean, scale, args.length, horizon, found_period)
        copies = [tuple(np.ascontiguousarray(a) for a in p) for p in (training, validation)]
        train(module, *copies, Plan(epochs=args.epochs, rate=module.rate, patience=4, seed=seed))
        with torch.no_grad():
            module.fit_spread(*(np.concatenate([a, b]) for a, b in zip(*copies, strict=True)))
        del copies
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "ett.pt"
            manifest = Manifest(
                name="ett", version="1", task="forecast", family="cnn",
                channels=tuple(map(Channel, recording.channels)), length=args.length, step=3_600_000,
                min_steps=args.length, horizon=horizon, quantiles=QUANTILES,
            )  # fmt: skip
            export.export(module, manifest, path, np.ascontiguousarray(test[0][:256]))
            model = torchscript.load(path)
            size = path.stat().st_size
            batches = (np.ascontiguousarray(test[0][i : i + 256]) for i in range(0, len(test[0]), 256))
            given = np.concatenate([model.infer(batch)["forecast"] for batch in batches])
        metrics = evaluation.forecast(given, test[1], test[0][:, -1], scale.numpy())
        each = [float(np.mean((test[1][..., c] >= given[..., c, 0]) & (test[1][..., c] <= given[..., c, -1])))
                for c in range(given.shape[2])]  # fmt: skip
        rows.append((metrics["mse"], metrics["mae"], metrics["coverage"]))
        mse, mae, coverage = rows[-1]
        print(
            f"  horizon {horizon}, seed {seed}: MSE {mse:.4f}  MAE {mae:.4f}  within the 80 % interval "
            f"{100 * coverage:.1f} % (by channel {', '.join(f'{100 * e:.0f}' for e in each)})  "
            f"{model.parameters} parameters, {size / 1000:.0f} kB, {len(test[0])} windows",
            flush=True,
        )
    middle = np.mean(rows, axis=0)
    print(
        f"horizon {horizon}: MSE {middle[0]:.4f}, MAE {middle[1]:.4f}, coverage {100 * middle[2]:.1f} %; "
        f"published: {PUBLISHED.get(horizon, 'none here')}; goal at 96: MSE 0.370, coverage 78 to 82 %",
        flush=True,
    )
