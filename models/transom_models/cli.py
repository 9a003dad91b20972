"""`transom train`: recordings to a model file. Arguments in, a file and its held-out metrics out."""

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from transom.core.model import Channel, Manifest
from transom.errors import ModelError
from transom_models import data, evaluation, export, recipe, warm
from transom_models.families import FAMILIES
from transom_models.tasks import (
    QUANTILES,
    Classifier,
    Forecaster,
    LevelDetector,
    ReconstructionDetector,
    ResidualDetector,
)
from transom_models.tasks.level import parts
from transom_models.training import Plan, train, validation_loss

EXAMPLES = """\
transom train --data normal.csv --task anomaly --family lstm --output pump.pt
transom train --data jan.csv feb.csv --task forecast --family tcn --horizon 24 --output load.pt
transom train --data moves.csv --task classify --label activity --family cnn --output moves.pt
transom train --data autumn.csv --from pump.pt --output pump.pt
transom train --recipe universal --output universal.pt"""

HELD_GAP = 10  # steps that a trained model's last value is held
LEARNING = 50  # windows that a trained detector watches a new series before it may raise an alert
PAYS = 0.8  # share of the untrained loss that a level detector's network has to come below, or it stays silent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="CSV files (plain or .gz) of normal running, or with labels",
    )
    parser.add_argument("--task", choices=("forecast", "anomaly", "classify"), default="anomaly")
    parser.add_argument("--family", choices=tuple(FAMILIES), default="lstm")
    parser.add_argument("--output", type=Path, required=True, metavar="MODEL", help="the model file to write")
    parser.add_argument("--recipe", metavar="FILE", help="make a shipped model again, by name or from a .toml file")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="MODEL",
        help="go on from this model's weights; task, family, channels and sizes are its own, and the version the next",
    )
    parser.add_argument(
        "--method",
        choices=("level", "residual", "reconstruction"),
        default="level",
        help="of anomaly: levels, liveliness and relations of the channels; the next step's error; or the window's "
        "reconstruction (default: level)",
    )
    parser.add_argument(
        "--channels", nargs="+", default=[], help="columns to use (default: all numeric ones but labels)"
    )
    parser.add_argument("--label", help="the column that holds each row's class, a number")
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
    start = warm.read(args.start) if args.start else None
    if start is not None:
        warm.same_shape(args, start)
    _check(args)
    torch.set_num_threads(max(1, min(4, torch.get_num_threads())))
    horizon = args.horizon if args.task == "forecast" else 0
    level = args.task == "anomaly" and args.method == "level"
    apart = parts(args.length)[1] if level else None  # tails must not overlap; histories may
    found = data.load(args.data, args.task, args.length, horizon, args.channels, args.label, apart)
    seed = args.seed or 0
    torch.manual_seed(seed)
    module = build(args, found)
    normal, truth = found.calibration
    windows = [torch.from_numpy(part[0]) for part in (found.train, found.validation, found.calibration)]
    untrained = float("inf")
    if isinstance(module, LevelDetector):
        module.fit_persistence(torch.cat(windows))
        untrained = validation_loss(module, found.validation)
    if start is not None:
        warm.go_on(module, start)
    trained = train(module, found.train, found.validation, Plan(epochs=args.epochs, seed=seed))
    if isinstance(module, LevelDetector):
        if not trained.loss < PAYS * untrained:  # less than that is chance in a short recording
            module.silence()
        module.fit_scales(torch.cat(windows[:2]))  # once more below, when the calibration part has been judged
    elif isinstance(module, ResidualDetector | ReconstructionDetector):
        with torch.no_grad():
            module.fit_scales(torch.from_numpy(found.validation[0]))
    # The later half of the calibration part is for the metrics, so that no figure stems from what it was fitted to.
    half = len(normal) // 2
    given, held = export.outputs(module, normal[:half]), export.outputs(module, normal[half:])
    if isinstance(module, LevelDetector):
        module.fit_scales(torch.cat(windows))
    scale = module.scaling.scale.numpy()
    table = None
    if args.task == "anomaly":
        table = export.calibrate(given["score"])
        bar = float(np.quantile(given["score"], 0.99))
        metrics = evaluation.anomaly(held["score"], bar, held["expected"], normal[half:, -1], scale)
    elif args.task == "forecast":
        metrics = evaluation.forecast(held["forecast"], truth[half:], normal[half:, -1], scale)
    else:
        metrics = evaluation.classify(export.outputs(module, normal)["probability"], truth)
    manifest = Manifest(
        name=args.name or args.output.stem, version=warm.next_version(start.manifest.version) if start else "1",
        task=args.task, family=args.family,
        channels=tuple(Channel(c) for c in found.channels), length=args.length, step=found.step,
        min_steps=args.length, horizon=horizon, quantiles=QUANTILES if horizon else (), classes=found.classes,
        max_gap=HELD_GAP * found.step if found.step else None, learning=LEARNING if table else 0, calibration=table,
        data=", ".join(p.name for p in args.data), metrics=metrics, torch=torch.__version__.split("+")[0],
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip
    manifest = export.export(module, manifest, args.output, normal[:256])
    _report(console, manifest, args.output, trained.seconds)
    return 0


def build(args: argparse.Namespace, found: data.Dataset) -> nn.Module:
    """The untrained module for task, family and method, scaled to the training part."""
    level = args.task == "anomaly" and args.method == "level"  # its levels are those of the whole recording
    seen = [found.train[0], found.validation[0], found.calibration[0]] if level else [found.train[0]]
    values = np.concatenate(seen).reshape(-1, len(found.channels))
    mean = torch.from_numpy(np.nan_to_num(np.nanmean(values, axis=0)).astype(np.float32))
    scale = torch.from_numpy(np.nan_to_num(np.nanstd(values, axis=0)).astype(np.float32))
    scale = torch.where(
        scale > 1e-6 * mean.abs() + 1e-12, scale, 1e-2 * mean.abs() + 1e-6
    )  # a channel that never moved
    if args.task == "forecast":
        return Forecaster(args.family, args.hidden, mean, scale, args.horizon)
    if args.task == "classify":
        return Classifier(args.family, args.hidden, mean, scale, len(found.classes))
    if args.method == "reconstruction":
        return ReconstructionDetector(args.family, args.hidden, mean, scale, args.length)
    if args.method == "residual":
        return ResidualDetector(args.family, args.hidden, mean, scale)
    return LevelDetector(args.family, args.hidden, mean, scale, args.length)


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
