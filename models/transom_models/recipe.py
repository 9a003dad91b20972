"""A recipe to a model file: how a shipped model was made, so that anyone can make it again."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transom.core.model import ANY, Channel, Manifest
from transom.errors import ModelError
from transom_models import export, prescription, synthetic
from transom_models.training import Plan, Trained, train
from transom_models.universal import LENGTH, Universal


def read(name: str) -> dict[str, Any]:
    """A recipe by a shipped one's name or a file's: that of `universal`, or one for `prescription`; or ModelError."""
    path = Path(name)
    folder = resources.files("transom_models") / "recipes"
    shipped = folder / f"{name}.toml"
    try:
        recipe: dict[str, Any] = tomllib.loads(path.read_text() if path.suffix == ".toml" else shipped.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))
        raise ModelError(f"recipe {name!r}", "does not exist", f"name a .toml file or: {known}") from None
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"recipe {name!r}", f"is not TOML ({error})", "mend it") from None
    if "signals" not in recipe:
        prescription.check(recipe, f"recipe {name!r}")
    return recipe


def cropped(batch: Tensor, random: torch.Generator) -> Tensor:
    """[B, LENGTH + longer, 1] -> [B, LENGTH, 1] somewhere inside; one batch in four begins with missing steps."""
    begin = int(torch.randint(0, batch.shape[1] - LENGTH + 1, (1,), generator=random))
    window = batch[:, begin : begin + LENGTH].clone()
    if int(torch.randint(0, 4, (1,), generator=random)) == 0:
        window[:, : int(torch.randint(1, LENGTH - 16, (1,), generator=random))] = float("nan")
    return window


def make(
    recipe: dict[str, Any], output: Path, seed: int | None = None, onnx_too: bool = True
) -> tuple[Manifest, Trained]:
    """Trains, calibrates on held-out signals, writes and proves."""
    seed = int(recipe["seed"]) if seed is None else seed
    long = synthetic.signals(recipe["signals"], LENGTH + recipe["longer"], seed)[:, :, None]
    held = synthetic.signals(recipe["held_out"] // 10, LENGTH, seed + 1)[:, :, None]
    none = np.zeros((len(long), 0), np.float32)
    torch.manual_seed(seed)
    module = Universal()
    plan = Plan(recipe["epochs"], recipe["batch"], recipe["rate"], patience=recipe["epochs"], seed=seed)
    trained = train(module, (long, none), (held, none[: len(held)]), plan, cropped)
    # Normal is what comes without events: they are what an alert is for.
    calibration = synthetic.signals(recipe["held_out"], LENGTH, seed + 2, events=False)[:, :, None]
    calibration = calibration[np.isfinite(calibration[:, -1, 0])]
    given = export.outputs(module, calibration)
    value, interval = calibration[:, -1, 0], given["interval"][:, 0]
    inside = float(np.mean((value >= interval[:, 0]) & (value <= interval[:, 1])))
    manifest = Manifest(
        name=recipe["name"], version=recipe["version"], task="anomaly", family="cnn", channels=(Channel(ANY),),
        length=LENGTH, min_steps=recipe["min_steps"], learning=recipe["learning"],
        calibration=export.calibrate(given["score"]), data=f"{recipe['signals']} synthetic signals, seed {seed}",
        metrics={"quantile_loss": trained.loss, "coverage_of_90_percent": inside},
        torch=torch.__version__.split("+")[0],
    )  # fmt: skip
    return export.export(module, manifest, output, calibration[:256], onnx_too), trained
