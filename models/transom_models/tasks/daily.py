"""The next steps of a signal from two things: what it has just been, and what it was at these hours before."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom_models.tasks.common import QUANTILES, Scaling
from transom_models.tasks.forecast import spread_of

SHORTEST, LONGEST, SCALES = 1.0, 48.0, 4  # steps: how long each of the learned stretches of the past is at first
SMOOTH = 1 / 48  # of a period, to each side: an hour of a day before is seen with its neighbours


class DailyForecaster(nn.Module):
    """Each channel by itself: falling exponential means over the recent past, whose lengths are learned, and the same
    phases of the periods before, joined by one linear map for each step ahead.

    For signals that have a habit and depart from it, and whose readings come and go (traffic): what is missing counts
    as the window's own mean. Moving or stretching the window moves and stretches the forecast, so the numbers that
    were learned on one sensor serve another of another unit.
    """

    rate = 1e-2

    def __init__(self, mean: Tensor, scale: Tensor, length: int, horizon: int, period: int) -> None:
        """length: at least a period and `smooth` steps; horizon: at most a period."""
        super().__init__()
        self.channels, self.horizon, self.period, self.length = len(mean), horizon, period, length
        self.smooth = max(1, int(period * SMOOTH))
        self.past = max(1, (length - self.smooth) // period)
        self.scaling = Scaling(mean, scale)
        self.lengths = nn.Parameter(torch.linspace(math.log(SHORTEST), math.log(LONGEST), SCALES))
        self.join = nn.Parameter(torch.full((horizon, SCALES + self.past + 1), 0.1))
        self.register_buffer("quantiles", torch.zeros(horizon, self.channels, len(QUANTILES)))

    def scaled(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, C] -> forecast [B, H, C] and spread [B, C], both in units of the training data's scale."""
        z, known = self.scaling(window)
        z, known = (a.transpose(1, 2).reshape(-1, self.length) for a in (z, known))  # [B C, T]
        count = known.sum(1, keepdim=True).clamp(min=1.0)
        mean = z.sum(1, keepdim=True) / count
        z = (z - mean) * known
        spread = ((z**2).sum(1) / count[:, 0]).sqrt().clamp(min=1e-3)  # a constant past must not claim certainty
        age = torch.arange(self.length - 1, -1, -1, device=z.device).to(z.dtype)
        kernels = torch.exp(-age[None] / self.lengths.exp()[:, None])  # [S, T]
        recent = (z @ kernels.T) / (known @ kernels.T).clamp(min=1e-3)  # [B C, S]
        width = 2 * self.smooth + 1
        total = nn.functional.avg_pool1d(z[:, None], width, 1, self.smooth)[:, 0]
        weight = nn.functional.avg_pool1d(known[:, None], width, 1, self.smooth)[:, 0]
        habit = total / weight.clamp(min=1e-3)  # [B C, T]
        steps = [recent[:, None].expand(-1, self.horizon, -1)]
        for day in range(1, self.past + 1):
            begin = self.length - day * self.period
            steps.append(habit[:, begin : begin + self.horizon, None])
        now = habit[:, self.length - 1 - self.period][:, None, None]
        steps.append(now.expand(-1, self.horizon, 1))
        seen = torch.cat(steps, 2)  # [B C, H, S + past + 1]
        forecast = (seen * self.join[None]).sum(2) + mean
        return forecast.view(-1, self.channels, self.horizon).transpose(1, 2), spread.view(-1, self.channels)

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        point, spread = self.scaled(window)
        forecast = point.unsqueeze(-1) + spread[:, None, :, None] * self.quantiles
        scaling = self.scaling
        return {"forecast": forecast * scaling.scale[None, None, :, None] + scaling.mean[None, None, :, None]}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: [B, H, C] raw, NaN where missing: mean squared error, each window's in units of its own spread, so
        that sensors of several units teach alike."""
        y, known = self.scaling(target)
        point, spread = self.scaled(window)
        return ((((point - y) / spread[:, None]).clamp(-30.0, 30.0) * known) ** 2).sum() / known.sum().clamp(min=1.0)

    def fit_spread(self, windows: NDArray[np.float32], targets: NDArray[np.float32], batch: int = 256) -> None:
        """windows: [N, T, C], targets: [N, H, C]: sets the quantiles of the error in units of the spread."""
        parts = []
        for i in range(0, len(windows), batch):
            point, spread = self.scaled(torch.from_numpy(windows[i : i + batch]))
            y, known = self.scaling(torch.from_numpy(targets[i : i + batch]))
            ratio = torch.where(known > 0, (y - point) / spread[:, None], torch.nan)
            parts.append(ratio.unsqueeze(-1).expand(-1, -1, -1, len(QUANTILES)).numpy())
        self.quantiles = torch.from_numpy(spread_of(np.concatenate(parts)))
