"""What `transom train --private` costs in accuracy on one recording: ETTh1, two channels, the next 6 hours from the
last 24, LSTM of 16. The same training with and without privacy, for each epsilon, unit and seed; the last eighth of the
recording is the test. MSE in units of the training data's variance; `naive` repeats the last value.
"""

import argparse
import contextlib
import io
import os
import tempfile
from pathlib import Path
from statistics import mean, pstdev

from transom.core.model import Manifest, Privacy
from transom_models import cli, making

DATA = Path(os.environ.get("TRANSOM_DATA", "../shared/data"))

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", nargs="?", type=Path, default=DATA / "ett" / "ETTh1.csv.gz")
parser.add_argument("--channels", nargs="+", default=["OT", "HULL"])
parser.add_argument("--epsilon", nargs="+", type=float, default=[8.0, 3.0, 1.0])
parser.add_argument("--unit", nargs="+", choices=("block", "window"), default=["block", "window"])
parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()


def trained(seed: int, *more: str) -> Manifest:
    words = argparse.ArgumentParser()
    cli.add_arguments(words)
    with tempfile.TemporaryDirectory() as folder:
        args = words.parse_args([
            "--data", str(options.file), "--channels", *options.channels, "--task", "forecast", "--family", "lstm",
            "--length", "24", "--horizon", "6", "--hidden", "16", "--epochs", str(options.epochs), "--seed", str(seed),
            "--no-onnx", "--output", f"{folder}/m.pt", *more,
        ])  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):
            return making.make(args)[0]


def told(name: str, found: list[Manifest]) -> None:
    mse, mae, coverage = ([m.metrics[key] for m in found] for key in ("mse", "mae", "coverage"))
    privacy = found[0].privacy
    noise = f"noise {privacy.noise:.2f}" if isinstance(privacy, Privacy) else ""
    print(
        f"{name:28} MSE {mean(mse):.3f} ± {pstdev(mse):.3f}  MAE {mean(mae):.3f}  naive MSE "
        f"{found[0].metrics['mse_naive']:.3f}  80 % interval holds {100 * mean(coverage):.0f} %  {noise}",
        flush=True,
    )


told("no privacy", [trained(seed) for seed in options.seeds])
for unit in options.unit:
    for epsilon in options.epsilon:
        asked = "--private", "--epsilon", str(epsilon), "--unit", unit
        told(f"epsilon {epsilon:g}, {unit}", [trained(seed, *asked) for seed in options.seeds])
