"""Recordings to a model file: a module is built, trained, calibrated, evaluated, written and proved equal.

Arguments of `transom train` in, the manifest of the written file out. Needs torch.
"""

import argparse
import warnings
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from transom.core.model import Channel, Manifest, Privacy, Reference
from transom.errors import ModelError
from transom_models import data, evaluation, export, material, prescription, recipe, warm
from transom_models.building import build, by_level, learn, privately
from transom_models.families import FAMILIES
from transom_models.families.tcn import REACH
from transom_models.tasks import (
    QUANTILES,
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
WHOLE = 20  # simulated series, from which on those held out are strangers, not later parts of the known ones
HELD_GAP = 10  # steps that a trained model's last value is held
LEARNING = 50  # windows that a trained detector watches a new series before it may raise an alert
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
    found = gather(args, prescribed)
    horizon = args.horizon if args.task == "forecast" else 0
    length = found.train[0].shape[1]
    seed = args.seed or 0
    torch.manual_seed(seed)
    module = build(args, found)
    state = int(getattr(module, "state", 0))
    if args.incremental and not state:
        raise ModelError(
            "--incremental", f"{args.task} with {args.family} and windows of {length} steps needs whole windows",
            f"--family tcn with --task forecast, or --method residual, and --length {REACH + 1} or more",
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
    manifest = Manifest(
        name=args.name or args.output.stem, version=warm.next_version(start.manifest.version) if start else "1",
        task=args.task, family=args.family,
        channels=tuple(Channel(c) for c in found.channels), length=length, step=found.step,
        min_steps=min(args.min_steps or length, length), horizon=horizon, quantiles=QUANTILES if horizon else (),
        aggregate=args.aggregate if args.step else "last", classes=found.classes,
        targets=tuple(Channel(c) for c in found.targets), lead=found.lead,
        max_gap=HELD_GAP * found.step if found.step else None, learning=LEARNING if table else 0, calibration=table,
        reference=_reference(np.concatenate([p[0][:, -1] for p in (found.train, found.validation, found.calibration)])),
        data=material.told(prescribed["data"], args.data or []) if prescribed else ", ".join(p.name for p in args.data),
        metrics=metrics, torch=torch.__version__.split("+")[0],
        state=state, privacy=kept, created=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip
    if prescribed is not None:
        manifest = prescription.named(manifest, prescribed)
    manifest = export.export(module, manifest, args.output, normal[:256], args.onnx)
    return manifest, trained.seconds


def _reference(values: NDArray[np.float32]) -> Reference:
    """values: [N, C] of normal running, NaN where missing: where its channels were, for the agent to tell of drift."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is missing throughout
        mean, spread = np.nanmean(values, 0, dtype=np.float64), np.nanstd(values, 0, dtype=np.float64)
    return Reference(tuple(np.nan_to_num(mean).tolist()), tuple(np.nan_to_num(spread).tolist()))


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
            int(prescribed["data"].get("every", 1)), len(recordings) >= WHOLE, step, args.aggregate,
        )  # fmt: skip
    if prescribed is not None:
        args.data = material.files(prescribed["data"], args.data or [], f"recipe {args.recipe!r}")
    if prescribed is not None and "mains" in prescribed["data"]:
        return data.deal(*material.metered(prescribed["data"], args.data), args.channels, args.data)
    return data.load(
        args.data, args.task, args.length, horizon, args.channels, args.label, args.target, args.cap, args.min_steps,
        apart, args.stream, args.topic, step, args.aggregate,
    )  # fmt: skip
