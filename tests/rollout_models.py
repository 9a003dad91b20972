"""Small model files of one detector and one forecaster, in the versions that an update brings: good and bad ones."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transom.core.model import CalibrationTable, Channel, Manifest
from transom.runtimes import bundle

LENGTH = 4


class Distance(nn.Module):
    """How far the last step is from the mean of the window, times `gain`; `loops` products of matrices take time."""

    def __init__(self, gain: float, loops: int) -> None:
        super().__init__()
        self.gain, self.loops = gain, loops

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        known = torch.nan_to_num(window)
        mean = known.mean(1)
        contribution = (known[:, -1] - mean).abs() * self.gain
        work = torch.ones(64, 64)
        for _ in range(self.loops):
            work = torch.tanh(work @ work)
        contribution = contribution + torch.clamp(work.sum(), max=0.0)
        return {"score": contribution.sum(1), "contribution": contribution, "expected": mean}


class Persistence(nn.Module):
    """The last value again, and `bias` more."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.bias = bias

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        last = torch.nan_to_num(window[:, -1]) + self.bias
        return {"forecast": torch.stack([last - 1.0, last, last + 1.0], dim=2).unsqueeze(1)}


def manifest(version: str, **changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "pump", "version": version, "task": "anomaly", "family": "none", "length": LENGTH,
        "channels": (Channel("x"),), "calibration": CalibrationTable((0.5, 1.0, 4.0), (0.9, 0.5, 0.01), 1.0),
    }  # fmt: skip
    return Manifest(**fields | changes)


def _write(module: nn.Module, path: Path, described: Manifest) -> Path:
    with bundle.quiet():
        bundle.write_bundle(torch.jit.script(module.eval()), described, path)
    return path


def detector(folder: Path, version: str, gain: float = 1.0, loops: int = 0, **changes: Any) -> Path:
    path = folder / f"pump-{version}-{gain:g}-{loops}{''.join(changes)}.pt"
    return _write(Distance(gain, loops), path, manifest(version, **changes))


def forecaster(folder: Path, version: str, bias: float = 0.0) -> Path:
    described = manifest(version, task="forecast", horizon=1, quantiles=(0.1, 0.5, 0.9), calibration=None)
    return _write(Persistence(bias), folder / f"forecast-{version}-{bias:g}.pt", described)
