"""`transom train --from MODEL`: the weights of a model file as a start for a plant that has changed.

A verified model file in; the arguments that it was made with, and a module that goes on from its weights, out.
"""

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from transom.core.model import Manifest
from transom.errors import ModelError
from transom.runtimes import bundle
from transom_models.tasks import LevelDetector


@dataclass(frozen=True, slots=True)
class Start:
    """state: the module's parameters and buffers by name."""

    path: Path
    manifest: Manifest
    state: dict[str, Tensor]


def read(path: Path) -> Start:
    """Raises ModelError for a file that is refused, is not there or was not made by `transom train`."""
    opened = bundle.open_bundle(path)
    with bundle.quiet():
        module = torch.jit.load(io.BytesIO(opened.archive()), map_location="cpu")
    start = Start(path, opened.manifest, dict(module.state_dict()))
    if not any(name.startswith("body.") for name in start.state):
        raise ModelError(str(path), f"{opened.manifest.label} is no start for training", "take one that train has made")
    return start


def same_shape(args: argparse.Namespace, start: Start) -> None:
    """Sets what must be as in the model: task, family, method, channels, length, horizon, hidden."""
    made, names = start.manifest, start.state
    args.task, args.family, args.length, args.stateful = made.task, made.family, made.length, made.stateful
    args.horizon = made.horizon or args.horizon
    args.channels = [c.name for c in made.channels]
    args.target = [c.name for c in made.targets]
    args.name = args.name or made.name
    args.method = "level" if "persistence" in names else "reconstruction" if "code.weight" in names else "residual"
    if made.task == "forecast" and "quantiles" in names:  # of those with a body only where a vehicle will be
        args.method = "path"
    args.hidden = names["code.weight" if "code.weight" in names else "head.weight"].shape[1]


def go_on(module: nn.Module, start: Start) -> None:
    """Loads the weights. Raises ModelError if the module is another."""
    own = module.state_dict()
    fitted = isinstance(module, LevelDetector)  # its buffers say what is normal: they are fitted to the new recording
    parameters = {name for name, _ in module.named_parameters()}
    taken = {name: value for name, value in start.state.items() if not fitted or name in parameters}
    odd = [n for n, v in taken.items() if n not in own or own[n].shape != v.shape]
    if odd or parameters - set(taken):
        raise ModelError(
            str(start.path), f"does not fit this data or version ({', '.join(odd) or 'parameters are missing'})",
            "train without --from",
        )  # fmt: skip
    module.load_state_dict(taken, strict=False)


def next_version(version: str) -> str:
    """'1' -> '2'; what is no number gets one after it."""
    return str(int(version) + 1) if version.isdigit() else f"{version}.1"
