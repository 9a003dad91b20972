"""A trained module to a model file: script, calibrate on held-out normal windows, write, and prove the file equal."""

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transom.core.model import CalibrationTable, Manifest
from transom.errors import ModelError
from transom.runtimes import bundle, files, onnx, torchscript
from transom_models import twin

POINTS = 64  # of the calibration table
TAIL = 0.02  # share of the largest scores that the tail is fitted to
TOLERANCE = 1e-5  # of the file's numbers against the eager module's, relative to their size


@torch.no_grad()
def outputs(module: nn.Module, windows: NDArray[np.float32], batch: int = 256) -> dict[str, NDArray[np.float32]]:
    """The module's dictionary over all windows [N, T, C]."""
    parts = [module(torch.from_numpy(windows[i : i + batch])) for i in range(0, len(windows), batch)]
    return {key: np.concatenate([p[key].numpy() for p in parts]) for key in parts[0]}


def calibrate(scores: NDArray[np.float32]) -> CalibrationTable:
    """scores: [N] of normal windows that were not trained on -> their survival function as a table.

    The tail beyond it is exponential with the mean excess over the (1 - TAIL) quantile: peaks over a threshold,
    Pickands 1975, with shape 0.
    """
    s = np.sort(scores.astype(np.float64))
    # Half the points over all ranks, half towards the largest, where budgets live.
    share = np.concatenate([np.linspace(1, 0.05, POINTS // 2), np.geomspace(0.05, 2 / len(s), POINTS // 2)[1:]])
    at = np.unique(np.clip(((1 - share) * len(s)).astype(int), 0, len(s) - 1))
    values = s[at]
    keep = np.append(True, np.diff(values) > 0)
    values = values[keep]
    p = np.array([np.mean(s >= v) for v in values])
    threshold = np.quantile(s, 1 - TAIL)
    scale = float(np.mean(s[s >= threshold] - threshold)) if len(s) else 1.0
    if len(values) < 2:
        values, p = np.array([values[0], values[0] + 1.0]), np.array([1.0, 0.5])
    return CalibrationTable(tuple(values.tolist()), tuple(p.tolist()), max(scale, 1e-6))


def export(
    module: nn.Module, manifest: Manifest, path: Path, windows: NDArray[np.float32], onnx_too: bool = True
) -> Manifest:
    """Writes the file, and with `onnx_too` its twin beside it, and proves that both give the module's numbers on
    `windows`; else raises ModelError. A model that cannot be written as ONNX is told of, and has no twin."""
    with bundle.quiet():
        scripted = torch.jit.script(module.eval())
    written = bundle.write_bundle(scripted, manifest, path)
    prove_equal(module, path, windows)
    if manifest.state:
        prove_steps(path, windows, usual(module) if manifest.stateful else None)
    beside = path.with_suffix(onnx.SUFFIX)
    files.remove_with_digest(beside)  # it is that of an older model
    if onnx_too:
        try:
            twin.make(path, beside, windows)
        except ModelError as error:
            sys.stderr.write(f"transom: no ONNX twin was written: {error}\n")
    return written


def usual(module: nn.Module) -> float | None:
    """The smallest usual size of a detector's residuals, in units of its channels' scale; None for other tasks."""
    found = getattr(module, "usual", None)
    return None if found is None else float(found.min())


def apart(key: str, said: NDArray[np.float32], wanted: NDArray[np.float32], size: float | None = None) -> float:
    """The largest difference, relative to the output's size. size: of the residuals whose squares a score adds up,
    where these, in units of scale, are what is compared: a residual of a thousandth shows the last digit of float32."""
    if size is not None and key in ("score", "contribution"):
        said, wanted = np.sqrt(said) * size, np.sqrt(wanted) * size
    return float(np.abs(said - wanted).max()) / max(1.0, float(np.abs(wanted).max()))


def prove_steps(path: Path, windows: NDArray[np.float32], size: float | None = None) -> float:
    """The largest difference, as `apart` has it, between `windows` [N, T, C] stepped through and whole."""
    loaded = torchscript.load(path)
    state, given = np.repeat(loaded.start[None], len(windows), 0), {}
    for i in range(windows.shape[1]):
        given, state = loaded.step(np.ascontiguousarray(windows[:, i]), state)
    wanted, worst = loaded.infer(windows), 0.0
    for key, value in given.items():
        worst = max(worst, apart(key, value, wanted[key], size))
    if not worst <= TOLERANCE:
        raise ModelError(
            str(path),
            f"stepped through it gives numbers that differ by {worst:.2g} from the window's",
            "report this" if loaded.manifest.stateful else "--no-incremental",
        )
    return worst


def prove_equal(module: nn.Module, path: Path, windows: NDArray[np.float32]) -> float:
    """The largest difference, relative to each output's size, over all batch sizes that a gateway uses."""
    loaded, wanted = torchscript.load(path), outputs(module, windows)
    worst = 0.0
    for size in (4, 16, 64):
        got = loaded.infer(windows[:size])
        for key, value in got.items():
            size_of = max(1.0, float(np.abs(wanted[key]).max()))
            worst = max(worst, float(np.abs(value - wanted[key][:size]).max()) / size_of)
    if not worst <= TOLERANCE:
        raise ModelError(str(path), f"gives numbers that differ by {worst:.2g} from the trained model's", "report this")
    return worst
