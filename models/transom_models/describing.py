"""What a trained model's file says of itself: arguments, data and figures in, the manifest out."""

import argparse
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from transom.core.model import CalibrationTable, Channel, Manifest, Reference
from transom_models import data, material, prescription, stretches, warm
from transom_models.tasks import QUANTILES

HELD_GAP = 10  # steps that a trained model's last value is held
LEARNING = 50  # windows that a trained detector watches a new series before it may raise an alert


def manifest(
    args: argparse.Namespace, prescribed: dict[str, Any] | None, start: warm.Start | None,
    found: data.Dataset | stretches.Stretches, length: int, values: Sequence[NDArray[np.float32]],
    table: CalibrationTable | None, metrics: dict[str, float], state: int, stateful: bool = False,
) -> Manifest:  # fmt: skip
    """values: each [N, C], NaN where missing, of normal running; table: of a detector; state: see Manifest."""
    horizon = args.horizon if args.task == "forecast" else 0
    made = Manifest(
        name=args.name or args.output.stem,
        version=args.model_version or (warm.next_version(start.manifest.version) if start else "1"),
        task=args.task, family=args.family,
        channels=tuple(Channel(c) for c in found.channels), length=length, step=found.step,
        min_steps=min(args.min_steps or length, length), horizon=horizon, quantiles=QUANTILES if horizon else (),
        aggregate=args.aggregate if args.step else "last", classes=found.classes,
        targets=tuple(Channel(c) for c in found.targets), lead=found.lead,
        max_gap=HELD_GAP * found.step if found.step else None, learning=LEARNING if table else 0, calibration=table,
        reference=_reference(np.concatenate(list(values))),
        data=material.told(prescribed["data"], args.data or []) if prescribed else ", ".join(p.name for p in args.data),
        metrics=metrics, torch=torch.__version__.split("+")[0],
        state=state, stateful=stateful, created=datetime.now(UTC).strftime("%Y-%m-%d"),
    )  # fmt: skip
    return made if prescribed is None else prescription.named(made, prescribed)


def _reference(values: NDArray[np.float32]) -> Reference:
    """values: [N, C] of normal running, NaN where missing: where its channels were, for the agent to tell of drift."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a channel that is missing throughout
        mean, spread = np.nanmean(values, 0, dtype=np.float64), np.nanstd(values, 0, dtype=np.float64)
    return Reference(tuple(np.nan_to_num(mean).tolist()), tuple(np.nan_to_num(spread).tolist()))
