"""`transom train`: recordings to a model file. Arguments in, a file and its held-out metrics out."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from transom.core.model import Channel, Manifest
from transom.errors import ModelError
from transom_models import data, evaluation, export, periods, recipe
from transom_models.families import FAMILIES
from transom_models.families.rocket import Rocket
from transom_models.tasks import (
    QUANTILES,
    Classifier,
    Forecaster,
    PeriodicForecaster,
    ReconstructionDetector,
    ResidualDetector,
)
from transom_models.tasks.classify import vary
from transom_models.training import Plan, Trained, train

EXAMPLES = """\
transom train --data normal.csv --task anomaly --family lstm --output pump.pt
transom train --data jan.csv feb.csv --task forecast --family tcn --horizon 24 --output load.pt
transom train --data run1.csv run2.csv … --task forecast --target rul --cap 125 --family scales --output wear.pt
transom train --data moves.csv --task classify --label activity --family cnn --output moves.pt
transom train --data appliances.ts.gz --task classify --family rocket --hidden 2400 --output appliance.pt
transom train --recipe universal --output universal.pt"""

HELD_GAP = 10  # steps that a trained model's last value is held
RATE = 2e-3  # of learning, where a module has none of its own
LEARNING = 50  # windows that a trained detector watches a new series before it may raise an alert


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="CSV files (plain or .gz) of normal running, or with labels; .ts files of cases; .txt tables of runs to "
        "failure: unit, cycle, measurements",
    )
    parser.add_argument("--task", choices=("forecast", "anomaly", "classify"), default="anomaly")
    parser.add_argument("--family", choices=tuple(FAMILIES), default="lstm")
    parser.add_argument("--output", type=Path, required=True, metavar="MODEL", help="the model file to write")
    parser.add_argument("--recipe", metavar="FILE", help="make a shipped model again, by name or from a .toml file")
    parser.add_argument(
        "--method",
        choices=("residual", "reconstruction"),
        default="residual",
        help="of anomaly: by the forecast's error, or by the window's reconstruction (default: residual)",
    )
    parser.add_argument(
        "--channels", nargs="+", default=[], help="columns to use (default: all numeric ones but labels)"
    )
    parser.add_argument("--label", help="the column that holds each row's class, a number")
    parser.add_argument(
        "--target", nargs="+", default=[], metavar="COLUMN",
        help="of forecast: columns that are no inputs; `rul` is made where missing: steps to the file's end",
    )  # fmt: skip
    parser.add_argument("--cap", type=float, default=float("inf"), help="the largest `rul` (default: none)")
    parser.add_argument(
        "--period", type=int, help="steps of a day or shift; 1: none (default: found in the training part)"
    )
    parser.add_argument("--min-steps", type=int, help="steps before a series' first window (default: --length)")
    parser.add_argument("--length", type=int, default=64, help="steps in a window (default: 64)")
    parser.add_argument("--horizon", type=int, default=12, help="steps to forecast (default: 12)")
    parser.add_argument("--hidden", type=int, default=32, help="width of the network (default: 32)")
    parser.add_argument("--epochs", type=int, default=40, help="at most; training stops early (default: 40)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same model (default: 0)")
    parser.add_argument("--name", help="the model's name (default: the output file's)")


def run(args: argparse.Namespace) -> int:
    console = Console()
    if sys.stderr.isatty():
        Console(stderr=True).print("reading")
    if args.recipe is not None:
        manifest, trained = recipe.make(recipe.read(args.recipe), args.output, args.seed)
        _report(console, manifest, args.output, trained.seconds)
        return 0
    _check(args)
    torch.set_num_threads(max(1, min(4, torch.get_num_threads())))
    horizon = args.horizon if args.task == "forecast" else 0
    found = data.load(
        args.data, args.task, args.length, horizon, args.channels, args.label, args.target, args.cap, args.min_steps
    )
    length = found.train[0].shape[1]
    seed = args.seed or 0
    torch.manual_seed(seed)
    module = build(args, found)
    trained = learn(module, found, args.epochs, seed)
    normal, truth = found.calibration
    if isinstance(module, ResidualDetector | ReconstructionDetector):
        with torch.no_grad():
            module.fit_scales(torch.from_numpy(found.validation[0]))
    # The later half of the calibration part is for the metrics, so that no figure stems from what it was fitted to.
    half = len(normal) // 2
    if isinstance(module, Forecaster | PeriodicForecaster):
        with torch.no_grad():
            module.fit_spread(
                np.concatenate([found.validation[0], normal[:half]]),
                np.concatenate([found.validation[1], truth[:half]]),
            )
    given, held = export.outputs(module, normal[:half]), export.outputs(module, normal[half:])
    scale = module.scaling.scale.numpy()
    table = None
    if args.task == "anomaly":
        table = export.calibrate(given["score"])
        bar = float(np.quantile(given["score"], 0.99))
        metrics = evaluation.anomaly(held["score"], bar, held["expected"], normal[half:, -1], scale)
    elif args.task == "forecast":
        target = scale if isinstance(module, PeriodicForecaster) else module.target.scale.numpy()
        metrics = evaluation.forecast(
            held["forecast"], truth[half:], None if found.targets else normal[half:, -1], target
        )
    else:
        metrics = evaluation.classify(export.outputs(module, normal)["probability"], truth)
    manifest = Manifest(
        name=args.name or args.output.stem, version="1", task=args.task, family=args.family,
        channels=tuple(Channel(c) for c in found.channels), length=length, step=found.step,
        min_steps=min(args.min_steps or length, length), horizon=horizon, quantiles=QUANTILES if horizon else (),
        classes=found.classes, targets=tuple(Channel(c) for c in found.targets), lead=found.lead,
        max_gap=HELD_GAP * found.step if found.step else None, learning=LEARNING if table else 0, calibration=table,
        data=", ".join(p.name for p in args.data), metrics=metrics, torch=torch.__version__.split("+")[0],
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip
    manifest = export.export(module, manifest, args.output, normal[:256])
    _report(console, manifest, args.output, trained.seconds)
    return 0


def build(args: argparse.Namespace, found: data.Dataset) -> nn.Module:
    """The untrained module for task, family and method, scaled to the training part."""
    mean, scale = scaling(found.train[0])
    length = found.train[0].shape[1]
    if args.task == "forecast" and found.targets:
        return Forecaster(args.family, args.hidden, mean, scale, args.horizon, scaling(found.train[1]))
    if args.task == "forecast":
        period = args.period or (periods.period(found.train[0]) if args.family == "cnn" else 1)
        if args.family == "cnn" and period > 1 and length >= 2 * period:
            return PeriodicForecaster(mean, scale, length, args.horizon, period)
        return Forecaster(args.family, args.hidden, mean, scale, args.horizon)
    if args.task == "classify":
        period = args.period or periods.turns(found.train[0])
        return Classifier(args.family, args.hidden, mean, scale, len(found.classes), period)
    if args.method == "reconstruction":
        return ReconstructionDetector(args.family, args.hidden, mean, scale, args.length)
    return ResidualDetector(args.family, args.hidden, mean, scale)


def scaling(windows: NDArray[np.generic]) -> tuple[torch.Tensor, torch.Tensor]:
    """windows: [N, T, C], NaN where missing -> mean and scale [C] of each channel."""
    values = windows.reshape(-1, windows.shape[2])
    mean = torch.from_numpy(np.nan_to_num(np.nanmean(values, axis=0)).astype(np.float32))
    scale = torch.from_numpy(np.nan_to_num(np.nanstd(values, axis=0)).astype(np.float32))
    scale = torch.where(
        scale > 1e-6 * mean.abs() + 1e-12, scale, 1e-2 * mean.abs() + 1e-6
    )  # a channel that never moved
    return mean, scale


def learn(module: nn.Module, found: data.Dataset, epochs: int, seed: int) -> Trained:
    """Trains in place; random kernels are solved for instead, on the training and the validation part."""
    if isinstance(module, Classifier) and isinstance(module.body, Rocket):
        begun = time.monotonic()
        parts = found.train, found.validation
        right = module.solve(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
        module.eval()
        return Trained(1, 1 - right, time.monotonic() - begun)
    # Of a few cases an epoch must still be some steps.
    batch = max(8, min(64, len(found.train[0]) // 8)) if isinstance(module, Classifier) else 64
    plan = Plan(epochs=epochs, batch=batch, seed=seed, rate=getattr(module, "rate", RATE))
    return train(module, found.train, found.validation, plan, vary if isinstance(module, Classifier) else None)


def _check(args: argparse.Namespace) -> None:
    if not args.data:
        raise ModelError("--data", "is missing", "name CSV files, or --recipe universal")
    for name, least in (("length", 4), ("horizon", 1), ("hidden", 1), ("epochs", 1)):
        if getattr(args, name) < least:
            raise ModelError(f"--{name}", f"{getattr(args, name)} is too small", f"at least {least}")


def _report(console: Console, manifest: Manifest, path: Path, seconds: float) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("model", f"{manifest.label}, {manifest.family}, {manifest.task}")
    table.add_row("file", f"{path} ({path.stat().st_size / 1000:.0f} kB)")
    table.add_row("trained", f"{seconds:.0f} s on {manifest.data}")
    step = f"{manifest.step} ms" if manifest.step else "one reading"
    table.add_row("window", f"{manifest.length} steps of {step}, {len(manifest.channels)} channels")
    for name, value in manifest.metrics.items():
        table.add_row(name, f"{value:.4g}")
    console.print(table)
