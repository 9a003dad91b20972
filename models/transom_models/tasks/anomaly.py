"""Detectors: how far a window's end is from what was promised, and how badly a narrow code gives it back."""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import Scaling, features, last_known, ordered, pinball

TAIL_STEPS = 8  # steps at the window's end whose reconstruction is judged


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

    def residual(self, last: Tensor, predicted: Tensor) -> Tensor:
        """last: [B, C], the window's last step; predicted: as `scaled` gives it -> [B, C], 0 where missing."""
        z, known = self.scaling(last)
        return (z - predicted[:, :, 1]) * known

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return self.judged(window[:, -1], self.scaled(window))

    def judged(self, last: Tensor, predicted: Tensor) -> dict[str, Tensor]:
        raw = predicted * self.scaling.scale[:, None] + self.scaling.mean[:, None]
        contribution = ((self.residual(last, predicted) / self.usual).clamp(-1e9, 1e9) ** 2) / self.channels
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
        self.usual = (self.residual(windows[:, -1], self.scaled(windows)) ** 2).mean(0).sqrt().clamp(min=1e-3)


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
