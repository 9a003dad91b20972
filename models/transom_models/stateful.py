"""`transom train --stateful`: recordings to a model that carries its state, built, trained, calibrated, evaluated and
written that way. Arguments in, the manifest of the written file out.
"""

import argparse
from typing import Any

import numpy as np
import torch

from transom.core.model import Manifest
from transom.errors import ModelError
from transom.runtimes import torchscript
from transom_models import carrying, data, describing, evaluation, export, material, warm
from transom_models.building import RATE, scaling
from transom_models.cases import is_cases
from transom_models.families.carried import CARRIED
from transom_models.stretches import Stretches, stretches
from transom_models.tasks.stateful import StatefulClassifier, StatefulDetector, StatefulForecaster
from transom_models.training import Plan

WHOLE = 20  # simulated series, from which on those held out are strangers, not later parts of the known ones
Module = StatefulDetector | StatefulForecaster | StatefulClassifier


def check(args: argparse.Namespace) -> None:
    """Raises ModelError for what cannot carry its state."""
    if args.family not in CARRIED:
        raise ModelError(
            "--stateful", f"{args.family} has no state to carry", f"--family {', '.join(CARRIED)}; or leave it out"
        )
    if args.task != "classify" and args.method not in (None, "residual"):
        raise ModelError("--stateful", f"--method {args.method} needs whole windows", "--method residual")
    if any(is_cases(p) for p in args.data or []):
        raise ModelError("--stateful", "cases of .ts files have no past to carry", "leave it out")


def make(
    args: argparse.Namespace, prescribed: dict[str, Any] | None, start: warm.Start | None
) -> tuple[Manifest, float]:
    """As `making.make`, whose arguments these are, checked."""
    count = min(args.min_steps or args.length, args.length)
    found = gather(args, prescribed, count)
    torch.manual_seed(args.seed or 0)
    module = build(args, found)
    if start is not None:
        warm.go_on(module, start)
    plan = Plan(epochs=args.epochs, batch=args.length, seed=args.seed or 0, rate=RATE)
    trained = carrying.train(module, found.train, found.validation, count, plan)
    if isinstance(module, StatefulDetector):
        given, _, _ = carrying.outputs(module, found.validation, count)
        module.fit_usual({key: torch.from_numpy(array) for key, array in given.items()})
    given, values, truth = carrying.outputs(module, found.calibration, count)
    # The later half of the calibration part is for the metrics, so that no figure stems from what it was fitted to.
    half = len(values) // 2
    if isinstance(module, StatefulForecaster):
        before, _, aims = carrying.outputs(module, found.validation, count)
        q = np.concatenate([before["scaled"], given["scaled"][:half]])
        module.fit_stretch(torch.from_numpy(q), torch.from_numpy(np.concatenate([aims, truth[:half]])))
        given, values, truth = carrying.outputs(module, found.calibration, count)
    scale = module.scaling.scale.numpy()
    table = None
    if isinstance(module, StatefulDetector):
        table = export.calibrate(given["score"][:half])
        bar = float(np.quantile(given["score"][:half], 0.99))
        metrics = evaluation.anomaly(given["score"][half:], bar, given["expected"][half:], values[half:], scale)
    elif isinstance(module, StatefulForecaster):
        last = None if found.targets else values[half:]
        metrics = evaluation.forecast(given["forecast"][half:], truth[half:], last, module.target.scale.numpy())
    else:
        known = truth >= 0
        metrics = evaluation.classify(given["probability"][known], truth[known])
    normal = [s.values for part in (found.train, found.validation, found.calibration) for s in part]
    manifest = describing.manifest(
        args, prescribed, start, found, args.length, normal, table, metrics, module.state, stateful=True
    )
    whole = carrying.windows(found.calibration, args.length)
    manifest = export.export(module, manifest, args.output, whole, args.onnx)
    carrying.prove(module, str(args.output), torchscript.load(args.output), found.calibration)
    return manifest, trained.seconds


def build(args: argparse.Namespace, found: Stretches) -> Module:
    """The untrained module, scaled to the training part."""
    mean, scale = scaling(np.concatenate([s.values for s in found.train])[:, None])
    if args.task == "classify":
        return StatefulClassifier(args.family, args.hidden, mean, scale, len(found.classes))
    if args.task == "forecast":
        aim = scaling(np.concatenate([s.target for s in found.train])) if found.targets else None
        return StatefulForecaster(args.family, args.hidden, mean, scale, args.horizon, aim, args.length)
    return StatefulDetector(args.family, args.hidden, mean, scale, args.length)


def gather(args: argparse.Namespace, prescribed: dict[str, Any] | None, count: int) -> Stretches:
    """The stretches that the arguments, with what the recipe has set in them, name; count: see `stretches`. Raises
    ModelError and RecordingError."""
    classes: tuple[str, ...] = ()
    whole = False
    if prescribed is not None and "scene" in prescribed["data"]:
        recordings, classes = material.simulated(prescribed["data"], f"recipe {args.recipe!r}")
        recordings = [r.only(args.channels) for r in recordings] if args.channels else recordings
        whole = len(recordings) >= WHOLE
    else:
        if prescribed is not None:
            args.data = material.files(prescribed["data"], args.data or [], f"recipe {args.recipe!r}")
        check(args)
        recordings = data.recorded(
            args.data, args.task, args.channels, args.label, args.target, args.cap, args.stream, args.topic
        )
    step = round(1000 * args.step) if args.step else None
    recordings = data.prepared(recordings, args.target, step, args.aggregate, args.length)
    horizon = args.horizon if args.task == "forecast" else 0
    # On a grid a value is held for as long as a gateway holds it, which begins anew after that.
    silent = 0 if step else data.GAP
    return stretches(recordings, args.task, count, horizon, args.target, classes, whole, silent)
