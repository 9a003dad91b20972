"""Small compiled models of each task, and a way to forge the model files that nobody should load."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transom.core.model import CalibrationTable, Channel, Manifest
from transom.runtimes import archive, bundle

LENGTH = 12


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "sample", "version": "1", "task": "anomaly", "family": "lstm", "length": LENGTH,
        "channels": (Channel("flow", "l/min"), Channel("temperature", "°C")),
        "calibration": CalibrationTable((0.5, 1.0, 4.0), (0.9, 0.5, 0.01), 1.0),
    }  # fmt: skip
    return Manifest(**fields | changes)


class LstmAnomaly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(2, 8, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        known = torch.nan_to_num(window)
        hidden, _ = self.lstm(known[:, :-1])
        expected = self.head(hidden[:, -1])
        contribution = torch.square(known[:, -1] - expected)
        interval = torch.stack([expected - 1.0, expected + 1.0], dim=2)
        return {
            "score": contribution.sum(1), "contribution": contribution, "expected": expected, "interval": interval,
        }  # fmt: skip


class GruForecast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 8, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(8, 3 * 2 * 3)

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        hidden, _ = self.gru(torch.asinh(torch.nan_to_num(window)))
        return {"forecast": torch.sort(self.head(hidden[:, -1]).view(-1, 3, 2, 3), dim=3)[0]}


class CnnClassify(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(2, 6, 3, padding=1, padding_mode="replicate"), nn.BatchNorm1d(6), nn.GELU(), nn.MaxPool1d(2),
            nn.Conv1d(6, 6, 3, dilation=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2),
            nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        known = torch.where(torch.isnan(window), torch.zeros_like(window), window)
        return {"probability": torch.softmax(self.layers(known.transpose(1, 2)), dim=1)}


class RnnTcnAnomaly(nn.Module):
    """A stack of dilated convolutions and a plain RNN, scaled by the window's own quantiles."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList([nn.Conv1d(2, 2, 3, dilation=2**i) for i in range(3)])
        self.rnn = nn.RNN(2, 4, batch_first=True, bidirectional=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)
        self.register_buffer("levels", torch.tensor([0.25, 0.5, 0.75]))

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        known = torch.nan_to_num(window)
        low, middle, high = torch.unbind(torch.quantile(known, self.levels, dim=1))
        scaled = (known - middle.unsqueeze(1)) / torch.clamp(high - low, min=1e-3).unsqueeze(1)
        x = torch.log1p(scaled.abs()).transpose(1, 2)
        for i, convolution in enumerate(self.convolutions):
            x = x + torch.relu(convolution(nn.functional.pad(x, (int(2 * 2**i), 0))))
        weights = torch.softmax(torch.cumsum(x, dim=2), dim=2)
        x = torch.einsum("bct,bct->btc", x, weights)
        hidden, _ = self.rnn(x)
        expected = self.head(self.norm(hidden[:, -1]))
        contribution = (known[:, -1] - expected).abs()
        return {"score": contribution.sum(1), "contribution": contribution, "expected": expected}


SAMPLES: dict[str, tuple[Callable[[], nn.Module], Manifest]] = {
    "lstm": (LstmAnomaly, manifest()),
    "gru": (
        GruForecast,
        manifest(task="forecast", family="gru", horizon=3, quantiles=(0.1, 0.5, 0.9), calibration=None),
    ),
    "cnn": (
        CnnClassify,
        manifest(task="classify", family="cnn", classes=("idle", "run", "rub", "leak"), calibration=None),
    ),
    "tcn": (RnnTcnAnomaly, manifest(family="tcn")),
}


def compiled(module: nn.Module) -> Any:
    with bundle.quiet():
        return torch.jit.script(module.eval())


def sample(name: str) -> tuple[Any, Manifest]:
    make, described = SAMPLES[name]
    torch.manual_seed(0)
    return compiled(make()), described


def members_of(path: Path) -> dict[str, bytes]:
    return archive.unpack(path.read_bytes(), str(path))


def forge(members: Mapping[str, bytes], path: Path, **changes: Any) -> Path:
    """Writes these members with a digest that is right, as someone who knows the format would. No digest beside it."""
    content = archive.content_sha256(members)
    described = json.loads(members[archive.MANIFEST]) | {"content_sha256": content} | changes
    path.write_bytes(archive.pack({**members, archive.MANIFEST: json.dumps(described).encode()}))
    return path
