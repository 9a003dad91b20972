"""The shipped models of city, vehicle and motion on what was held out of their making, beside naive forecasts.

Of each recipe: the data is made or read again (recordings from FOLDER, default $TRANSOM_DATA), cut as for training,
and the shipped file is asked about the last part, a quarter, which no weight has seen; quantiles and p-values were set
on the first half of it. Errors are root mean squares in the sensors' units over all steps ahead.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch

from transom.errors import TransomError
from transom.runtimes import bundle, torchscript
from transom_models import cli, making, prescription, recipe
from transom_models.tasks.path import constant_velocity, distance

DATA = Path(os.environ.get("TRANSOM_DATA", "../shared/data"))
NAMES = (
    "city-traffic", "city-air", "city-air-watch", "city-lamp", "city-lift", "city-pump",
    "vehicle-path", "vehicle-motion", "vehicle-health", "vehicle-engine", "motion",
)  # fmt: skip

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, default=DATA)
parser.add_argument("--models", nargs="+", default=NAMES, help=f"of: {', '.join(NAMES)}")
chosen = parser.parse_args()
torch.set_num_threads(1)


def asked(model: torchscript.TorchScriptModel, windows: np.ndarray, key: str) -> np.ndarray:
    return np.concatenate([model.infer(windows[i : i + 64])[key] for i in range(0, len(windows), 64)])


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean(error**2)))


def forecasts(model: torchscript.TorchScriptModel, windows: np.ndarray, truth: np.ndarray, period: int) -> str:
    given = asked(model, windows, "forecast")
    horizon, manifest = truth.shape[1], model.manifest
    point, later = given[..., given.shape[-1] // 2], slice(len(truth) // 2, None)
    inside = ((truth >= given[..., 0]) & (truth <= given[..., -1]))[later][np.isfinite(truth[later])].mean()
    texts = []
    for c in range(truth.shape[2]):
        name = manifest.targets[c].name if manifest.targets else manifest.channels[c].name
        if manifest.targets:
            texts.append(f"{name} {rms(point - truth):.1f} (its mean {rms(truth - truth.mean()):.1f})")
            continue
        y, last = truth[..., c], windows[:, -1:, c]
        same = np.isfinite(last) & np.isfinite(y)
        naive = f"last value {rms((last - y)[same]):.2f}, the window's mean "
        naive += f"{rms((np.nanmean(windows[..., c], 1, keepdims=True) - y)[same]):.2f}"
        if 0 < period <= windows.shape[1]:
            begin = windows.shape[1] - period
            day = windows[:, begin : begin + horizon, c]
            both = same & np.isfinite(day)
            known = rms((point[..., c] - y)[both])
            naive += f"; where yesterday is known {known:.2f}, yesterday itself {rms((day - y)[both]):.2f}"
        texts.append(f"{name} {rms((point[..., c] - y)[same]):.2f} ({naive})")
    return f"{'; '.join(texts)}; {100 * inside:.0f} % within the 80 % interval"


def told(name: str) -> str:
    args = argparse.Namespace(**vars(options), recipe=name, data=[chosen.folder])
    prescribed = recipe.read(name)
    prescription.apply(args, prescribed)
    found = making.gather(args, prescribed)
    model = torchscript.load(bundle.find_model(name, Path()))
    windows, truth = found.calibration
    if args.task == "classify":
        guess = asked(model, windows, "probability").argmax(1)
        most = np.bincount(found.train[1]).argmax()
        return f"{np.mean(guess == truth):.3f} right (always the most frequent: {np.mean(truth == most):.3f})"
    if args.task == "anomaly":
        score, table = asked(model, windows, "score"), model.manifest.calibration
        bar = np.interp(-0.01, -np.array(table.p_values), table.scores)
        later = score[len(score) // 2 :]
        beyond = 100 * np.mean(later > bar)
        return f"{beyond:.2f} % of normal windows beyond what 1 % should be, median score {np.median(later):.2f}"
    if args.method == "path":
        given, degrees = asked(model, windows, "forecast"), True
        error = distance(given[..., given.shape[-1] // 2], truth, degrees)
        naive = distance(constant_velocity(windows, truth.shape[1]), truth, degrees)
        both = np.isfinite(error) & np.isfinite(naive)
        later = slice(len(truth) // 2, None)
        inside = ((truth >= given[..., 0]) & (truth <= given[..., -1]))[later].mean()
        steps = [f"{error[both[:, h], h].mean():.1f} m ({naive[both[:, h], h].mean():.1f} m)" for h in (0, 2, 4)]
        return f"after 1, 3, 5 s {', '.join(steps)} (constant velocity); {100 * inside:.0f} % within the 80 % interval"
    if name == "city-traffic":  # one file at a time
        texts = []
        for path in args.data:
            args.data = [path]
            part = making.gather(args, None).calibration
            texts.append(f"\n  {path.stem}: {forecasts(model, *part, args.period)}")
        return "".join(texts)
    return forecasts(model, windows, truth, round(86_400 / args.step) if args.step else 0)


command = argparse.ArgumentParser()
cli.add_arguments(command)
options = command.parse_args(["--output", "none"])
del options.recipe, options.data
for name in chosen.models:
    try:
        print(f"{name}: {told(name)}", flush=True)
    except TransomError as error:
        print(f"{name}: {error}", flush=True)
