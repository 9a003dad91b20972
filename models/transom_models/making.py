"""Recordings to a model file: a module is built, trained, calibrated, evaluated, written and proved equal.

Arguments of `transom train` in, the manifest of the written file out. Needs torch.
"""

import argparse
from datetime import UTC, datetime

import numpy as np
import torch

from transom.core.model import Channel, Manifest
from transom.errors import ModelError
from transom_models import data, evaluation, export, recipe
from transom_models.building import build, learn
from transom_models.families import FAMILIES
from transom_models.tasks import QUANTILES, Forecaster, PeriodicForecaster, ReconstructionDetector, ResidualDetector

HELD_GAP = 10  # steps that a trained model's last value is held
LEARNING = 50  # windows that a trained detector watches a new series before it may raise an alert


def make(args: argparse.Namespace) -> tuple[Manifest, float]:
    """The manifest, and how many seconds the training took. Raises ModelError and RecordingError."""
    # Sums in another order have other last digits, so the machine's cores must not decide.
    torch.set_num_threads(max(1, args.threads))
    if args.recipe is not None:
        manifest, trained = recipe.make(recipe.read(args.recipe), args.output, args.seed)
        return manifest, trained.seconds
    if args.family not in FAMILIES:
        raise ModelError("--family", f"there is no family {args.family!r}", f"choose from {', '.join(FAMILIES)}")
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
    return manifest, trained.seconds
