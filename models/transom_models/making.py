"""Recordings to a model file: a module is built, trained, calibrated, evaluated, written and proved equal.

Arguments of `transom train` in, the manifest of the written file out. Needs torch.
"""

import argparse
from typing import Any

import msgspec
import numpy as np
import torch

from transom.core.model import Manifest, Privacy
from transom.errors import ModelError
from transom_models import data, describing, evaluation, export, material, prescription, recipe, stateful, warm
from transom_models.building import build, by_level, learn, privately
from transom_models.families import FAMILIES
from transom_models.families.tcn import REACH
from transom_models.tasks import (
    DailyForecaster,
    Forecaster,
    LevelDetector,
    PathForecaster,
    PeriodicForecaster,
    ReconstructionDetector,
    ResidualDetector,
)
from transom_models.tasks.level import parts
from transom_models.training import validation_loss

FORECASTERS = (Forecaster, PeriodicForecaster, DailyForecaster, PathForecaster)
PAYS = 0.8  # share of the untrained loss that a level detector's network has to come below, or it stays silent


def make(args: argparse.Namespace) -> tuple[Manifest, float]:
    """The manifest, and how many seconds the training took. Raises ModelError and RecordingError."""
    # Sums in another order have other last digits, so the machine's cores must not decide.
    torch.set_num_threads(max(1, args.threads))
    prescribed = recipe.read(args.recipe) if args.recipe is not None else None
    if prescribed is not None and "signals" in prescribed:
        manifest, trained = recipe.make(prescribed, args.output, args.seed, args.onnx)
        return manifest, trained.seconds
    if prescribed is not None:
        prescription.apply(args, prescribed)
    start = warm.read(args.start) if args.start else None
    if start is not None:
        warm.same_shape(args, start)
    if args.family not in FAMILIES:
        raise ModelError("--family", f"there is no family {args.family!r}", f"choose from {', '.join(FAMILIES)}")
    if args.stateful:
        stateful.check(args)
        return stateful.make(args, prescribed, start)
    found = gather(args, prescribed)
    length = found.train[0].shape[1]
    seed = args.seed or 0
    torch.manual_seed(seed)
    module = build(args, found)
    state = int(getattr(module, "state", 0))
    if args.incremental and not state:
        raise ModelError(
            "--incremental", f"{args.task} with {args.family} and windows of {length} steps needs whole windows",
            f"--family tcn with --task forecast, or --method residual, and --length {REACH + 1} or more; or --stateful",
        )  # fmt: skip
    normal, truth = found.calibration
    windows = [torch.from_numpy(part[0]) for part in (found.train, found.validation, found.calibration)]
    untrained = float("inf")
    if isinstance(module, LevelDetector):
        module.fit_persistence(torch.cat(windows))
        untrained = validation_loss(module, found.validation)
    if start is not None:
        warm.go_on(module, start)
    kept: Privacy | msgspec.UnsetType = msgspec.UNSET
    if args.private:
        trained, kept = privately(module, found, args, seed)
    else:
        trained = learn(module, found, args.epochs, seed)
    if isinstance(module, LevelDetector):
        if not trained.loss < PAYS * untrained:  # less than that is chance in a short recording
            module.silence()
        module.fit_scales(torch.cat(windows[:2]))  # once more below, when the calibration part has been judged
    elif isinstance(module, ResidualDetector | ReconstructionDetector):
        with torch.no_grad():
            module.fit_scales(torch.from_numpy(found.validation[0]))
    # The later half of the calibration part is for the metrics, so that no figure stems from what it was fitted to.
    half = len(normal) // 2
    if isinstance(module, FORECASTERS):
        with torch.no_grad():
            module.fit_spread(
                np.concatenate([found.validation[0], normal[:half]]),
                np.concatenate([found.validation[1], truth[:half]]),
            )
    given, held = export.outputs(module, normal[:half]), export.outputs(module, normal[half:])
    if isinstance(module, LevelDetector):
        module.fit_scales(torch.cat(windows))
    scale = module.scaling.scale.numpy()
    table = None
    if args.task == "anomaly":
        table = export.calibrate(given["score"])
        bar = float(np.quantile(given["score"], 0.99))
        metrics = evaluation.anomaly(held["score"], bar, held["expected"], normal[half:, -1], scale)
    elif isinstance(module, PathForecaster):
        metrics = evaluation.path(held["forecast"], truth[half:], normal[half:], module.degrees)
    elif args.task == "forecast":
        target = module.target.scale.numpy() if isinstance(module, Forecaster) else scale
        metrics = evaluation.forecast(
            held["forecast"], truth[half:], None if found.targets else normal[half:, -1], target
        )
    else:
        metrics = evaluation.classify(export.outputs(module, normal)["probability"], truth)
    values = [part[0][:, -1] for part in (found.train, found.validation, found.calibration)]
    manifest = describing.manifest(args, prescribed, start, found, length, values, table, metrics, state)
    manifest = msgspec.structs.replace(manifest, privacy=kept)
    manifest = export.export(module, manifest, args.output, normal[:256], args.onnx)
    return manifest, trained.seconds


def gather(args: argparse.Namespace, prescribed: dict[str, Any] | None) -> data.Dataset:
    """The windows that the arguments, with what the recipe has set in them, name. Sets args.data to a recipe's files.

    Raises ModelError and RecordingError.
    """
    horizon = args.horizon if args.task == "forecast" else 0
    apart = parts(args.length)[1] if by_level(args) else None  # tails must not overlap; histories may
    step = round(1000 * args.step) if args.step else None
    if prescribed is not None and "scene" in prescribed["data"]:
        recordings, classes = material.simulated(prescribed["data"], f"recipe {args.recipe!r}")
        recordings = [r.only(args.channels) for r in recordings] if args.channels else recordings
        return data.dataset(
            recordings, args.task, args.length, horizon, args.target, args.min_steps, apart, classes,
            int(prescribed["data"].get("every", 1)), len(recordings) >= stateful.WHOLE, step, args.aggregate,
        )  # fmt: skip
    if prescribed is not None:
        args.data = material.files(prescribed["data"], args.data or [], f"recipe {args.recipe!r}")
    if prescribed is not None and "mains" in prescribed["data"]:
        return data.deal(*material.metered(prescribed["data"], args.data), args.channels, args.data)
    return data.load(
        args.data, args.task, args.length, horizon, args.channels, args.label, args.target, args.cap, args.min_steps,
        apart, args.stream, args.topic, step, args.aggregate,
    )  # fmt: skip
