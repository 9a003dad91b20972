"""From arguments and windows to a trained module: which one, scaled to what, and how it learns. Needs torch."""

import argparse
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transom.core.model import Privacy
from transom.errors import ModelError
from transom_models import budget, data, periods, private
from transom_models.families.tcn import REACH
from transom_models.tasks import (
    Classifier,
    DailyForecaster,
    Forecaster,
    LevelDetector,
    PathForecaster,
    PeriodicForecaster,
    ReconstructionDetector,
    ResidualDetector,
    SwitchDetector,
)
from transom_models.tasks.classify import RANDOM, vary
from transom_models.tasks.stepping import SteppedForecaster, SteppedResidualDetector
from transom_models.tasks.switch import late_start
from transom_models.training import Plan, Trained, train

RATE = 2e-3  # of learning, where a module has none of its own


def build(args: argparse.Namespace, found: data.Dataset) -> nn.Module:
    """The untrained module for task, family and method, scaled to the training part."""
    level = by_level(args)  # its levels are those of the whole recording
    seen = (found.train, found.validation, found.calibration) if level else (found.train,)
    mean, scale = scaling(np.concatenate([part[0] for part in seen]))
    length = found.train[0].shape[1]
    if args.task == "forecast" and args.method == "path":
        return PathForecaster(args.family, args.hidden, mean, scale, args.horizon, by_degrees(found))
    if args.task == "forecast" and found.targets:
        aim = scaling(found.train[1])
        if steps(args, length):
            return SteppedForecaster(args.family, args.hidden, mean, scale, args.horizon, aim, length)
        return Forecaster(args.family, args.hidden, mean, scale, args.horizon, aim)
    if args.task == "forecast":
        period = args.period or (periods.period(found.train[0]) if args.family == "cnn" else 1)
        if args.family == "cnn" and period > 1 and length >= 2 * period:
            return PeriodicForecaster(mean, scale, length, args.horizon, period)
        if args.family == "scales" and period > 1 and length > period >= args.horizon:
            return DailyForecaster(mean, scale, length, args.horizon, period)
        if steps(args, length):
            return SteppedForecaster(args.family, args.hidden, mean, scale, args.horizon, None, length)
        return Forecaster(args.family, args.hidden, mean, scale, args.horizon)
    if args.task == "classify":
        period = args.period or periods.turns(found.train[0])
        return Classifier(args.family, args.hidden, mean, scale, len(found.classes), period)
    if args.method == "reconstruction":
        return ReconstructionDetector(args.family, args.hidden, mean, scale, args.length)
    if args.method == "switch":
        return SwitchDetector(args.family, args.hidden, mean, scale)
    if args.method == "residual":
        if steps(args, length - 1):  # the steps before the one that is judged
            return SteppedResidualDetector(args.family, args.hidden, mean, scale, length)
        return ResidualDetector(args.family, args.hidden, mean, scale)
    return LevelDetector(args.family, args.hidden, mean, scale, args.length)


def by_degrees(found: data.Dataset) -> bool:
    """Whether positions are latitude and longitude, told by their names. Raises ModelError for what is no position."""
    if len(found.targets) != 2 or tuple(found.channels[:2]) != found.targets:
        raise ModelError(
            "--method path", f"forecasts two channels, not {', '.join(found.targets) or 'all'}",
            "give the position first: --channels lat lon speed --target lat lon",
        )  # fmt: skip
    return found.targets in (("lat", "lon"), ("latitude", "longitude"))


def steps(args: argparse.Namespace, length: int) -> bool:
    """Whether a model of this family can go from step to step and give the numbers of `length` steps: its output must
    depend on no more of them."""
    return args.incremental is not False and args.family == "tcn" and length >= REACH


def by_level(args: argparse.Namespace) -> bool:
    return bool(args.task == "anomaly" and args.method in (None, "level"))


def scaling(windows: NDArray[np.generic]) -> tuple[torch.Tensor, torch.Tensor]:
    """windows: [N, T, C], NaN where missing -> mean and scale [C] of each channel."""
    values = windows.reshape(-1, windows.shape[2])
    mean = torch.from_numpy(np.nan_to_num(np.nanmean(values, axis=0)).astype(np.float32))
    scale = torch.from_numpy(np.nan_to_num(np.nanstd(values, axis=0)).astype(np.float32))
    scale = torch.where(
        scale > 1e-6 * mean.abs() + 1e-12, scale, 1e-2 * mean.abs() + 1e-6
    )  # a channel that never moved
    return mean, scale


def privately(module: nn.Module, found: data.Dataset, args: argparse.Namespace, seed: int) -> tuple[Trained, Privacy]:
    """As `learn`, with differential privacy. Raises ModelError for what takes more from the data than gradients."""
    if not isinstance(module, Forecaster | ResidualDetector | ReconstructionDetector):
        raise ModelError(
            "--private", f"{type(module).__name__} is fitted to its data in more ways than by gradients",
            "--task forecast --family lstm, or --method residual or reconstruction",
        )  # fmt: skip
    horizon = found.train[1].shape[1] + found.lead - 1 if isinstance(module, Forecaster) else 0
    plan = Plan(epochs=args.epochs, seed=seed, rate=getattr(module, "rate", RATE))
    reach = found.train[0].shape[1] + horizon
    return private.learn(module, found.train, found.validation, plan, budget.of(args), reach, args.seed)


def learn(module: nn.Module, found: data.Dataset, epochs: int, seed: int) -> Trained:
    """Trains in place; random kernels are solved for instead, on the training and the validation part."""
    if isinstance(module, Classifier) and isinstance(module.body, RANDOM):
        begun = time.monotonic()
        parts = found.train, found.validation
        right = module.solve(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
        module.eval()
        return Trained(1, 1 - right, time.monotonic() - begun)
    # Of a few cases an epoch must still be some steps.
    batch = max(8, min(64, len(found.train[0]) // 8)) if isinstance(module, Classifier) else 64
    plan = Plan(epochs=epochs, batch=batch, seed=seed, rate=getattr(module, "rate", RATE))
    augment = vary if isinstance(module, Classifier) else late_start if isinstance(module, SwitchDetector) else None
    return train(module, found.train, found.validation, plan, augment)
