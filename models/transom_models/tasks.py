"""A family becomes a forecaster, a detector or a classifier: scaling inside the graph, missing values understood.

Raw windows [B, T, C] in (NaN where missing), the dictionary that the task promises out, in raw units. Each module also
has `loss(window, target)`, for training. Nothing here reads data.
"""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
TAIL_STEPS = 8  # steps at the window's end whose reconstruction is judged


class Scaling(nn.Module):
    """mean, scale: [C] of the training data. A missing value becomes 0, and a second feature says so."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:  # [B, T, C]
        known = torch.isfinite(window)
        z = torch.where(known, (window - self.mean) / self.scale, torch.zeros_like(window))
        return z.clamp(-1e9, 1e9), known.to(torch.float32)  # [B, T, C] twice


def features(z: Tensor, known: Tensor) -> Tensor:
    """[B, T, C] twice -> [B, T, 2 C]; far outliers are cut, so that nothing overflows inside the network."""
    return torch.cat([z.clamp(-30.0, 30.0), known], 2)


def ordered(raw: Tensor) -> Tensor:
    """[..., Q] any numbers -> [..., Q] that do not fall: the middle one, and steps away from it that are positive."""
    middle = raw.shape[-1] // 2
    up = torch.nn.functional.softplus(raw[..., middle + 1 :]).cumsum(-1)
    down = torch.nn.functional.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
    centre = raw[..., middle : middle + 1]
    return torch.cat([centre - down, centre, centre + up], -1)


def pinball(predicted: Tensor, target: Tensor, known: Tensor, levels: Tensor) -> Tensor:
    """Quantile loss (Koenker & Bassett 1978): predicted [..., Q], target and known [...] -> scalar."""
    error = target.unsqueeze(-1) - predicted
    each = torch.maximum(levels * error, (levels - 1) * error).sum(-1)
    return (each * known).sum() / known.sum().clamp(min=1.0)


def last_known(z: Tensor, known: Tensor) -> Tensor:
    """[B, T, C] -> [B, C]: each channel's last known value, 0 where there is none."""
    steps = torch.arange(1.0, z.shape[1] + 1, device=z.device)[None, :, None]
    at = (known * steps).amax(1).long()  # [B, C], 0 = none
    padded = torch.cat([torch.zeros_like(z[:, :1]), z], 1)
    return padded.gather(1, at[:, None, :])[:, 0]


class Forecaster(nn.Module):
    """The next H steps as quantiles: {"forecast": [B, H, C, Q]}."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, horizon: int) -> None:
        super().__init__()
        self.channels, self.horizon = len(mean), horizon
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2 * self.channels, hidden)
        self.head = nn.Linear(hidden, horizon * self.channels * len(QUANTILES))
        self.register_buffer("levels", torch.tensor(QUANTILES))

    def scaled(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window)
        raw = self.head(self.body(features(z, known)))
        raw = raw.view(-1, self.horizon, self.channels, self.levels.shape[0])
        return ordered(raw) + last_known(z, known)[:, None, :, None]  # [B, H, C, Q]

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        scaling = self.scaling
        forecast = self.scaled(window) * scaling.scale[None, None, :, None] + scaling.mean[None, None, :, None]
        return {"forecast": forecast}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: [B, H, C] raw, NaN where missing."""
        z, known = self.scaling(target)
        return pinball(self.scaled(window), z, known, self.levels)


class ResidualDetector(nn.Module):
    """How far the last step is from what the steps before it promised.

    score: mean over channels of squared residuals in units of their usual size; contribution: its parts.
    """

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.channels = len(mean)
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2 * self.channels, hidden)
        self.head = nn.Linear(hidden, self.channels * 3)
        self.register_buffer("levels", torch.tensor([0.1, 0.5, 0.9]))
        self.register_buffer("usual", torch.ones(self.channels))  # size of residuals, fitted after training

    def scaled(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window[:, :-1])
        raw = self.head(self.body(features(z, known))).view(-1, self.channels, 3)
        return ordered(raw) + last_known(z, known)[:, :, None]  # [B, C, 3]

    def residual(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window[:, -1:])
        return (z[:, 0] - self.scaled(window)[:, :, 1]) * known[:, 0]  # [B, C], 0 where missing

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        predicted = self.scaled(window)
        raw = predicted * self.scaling.scale[:, None] + self.scaling.mean[:, None]
        contribution = ((self.residual(window) / self.usual).clamp(-1e9, 1e9) ** 2) / self.channels
        interval = torch.stack([raw[:, :, 0], raw[:, :, 2]], 2)
        return {
            "score": contribution.sum(1),
            "contribution": contribution,
            "expected": raw[:, :, 1],
            "interval": interval,
        }

    def loss(self, window: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002  # the target is the window's last step
        z, known = self.scaling(window[:, -1:])
        return pinball(self.scaled(window), z[:, 0], known[:, 0], self.levels)

    def fit_scales(self, windows: Tensor) -> None:
        """windows: [N, T, C] of normal running: the usual size of each channel's residual."""
        self.usual = (self.residual(windows) ** 2).mean(0).sqrt().clamp(min=1e-3)


class ReconstructionDetector(nn.Module):
    """How badly a narrow code gives the end of the window back.

    score: mean over channels and the last TAIL_STEPS steps of squared errors in units of their usual size.
    """

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, length: int) -> None:
        super().__init__()
        self.channels, self.length = len(mean), length
        self.tail = min(TAIL_STEPS, length)
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2 * self.channels, hidden)
        self.code = nn.Linear(hidden, max(2, hidden // 4))
        self.decode = nn.Sequential(
            nn.Linear(max(2, hidden // 4), hidden), nn.ReLU(), nn.Linear(hidden, length * self.channels)
        )
        self.register_buffer("usual", torch.ones(self.channels))

    def scaled(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window)
        code = self.code(self.body(features(z, known)))
        return self.decode(code).view(-1, self.length, self.channels)  # [B, T, C]

    def residual(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window)
        return (z - self.scaled(window)) * known  # [B, T, C]

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        expected = self.scaled(window)[:, -1] * self.scaling.scale + self.scaling.mean  # [B, C]
        tail = (self.residual(window)[:, -self.tail :] / self.usual).clamp(-1e9, 1e9)
        contribution = (tail**2).mean(1) / self.channels
        band = 1.64 * self.usual * self.scaling.scale  # 90 % of a normal residual
        interval = torch.stack([expected - band, expected + band], 2)
        return {"score": contribution.sum(1), "contribution": contribution, "expected": expected, "interval": interval}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002  # the target is the window itself
        _, known = self.scaling(window)
        return (self.residual(window) ** 2).sum() / known.sum().clamp(min=1.0)

    def fit_scales(self, windows: Tensor) -> None:
        """windows: [N, T, C] of normal running: the usual size of each channel's error."""
        self.usual = (self.residual(windows) ** 2).mean((0, 1)).sqrt().clamp(min=1e-3)


class Classifier(nn.Module):
    """{"probability": [B, K]}."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, classes: int) -> None:
        super().__init__()
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2 * len(mean), hidden)
        self.head = nn.Linear(hidden, classes)

    def logits(self, window: Tensor) -> Tensor:
        z, known = self.scaling(window)
        return self.head(self.body(features(z, known)))  # [B, K]

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"probability": torch.softmax(self.logits(window), 1)}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: int64 [B], the class."""
        return torch.nn.functional.cross_entropy(self.logits(window), target)
