"""The next steps as quantiles, in raw units."""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import QUANTILES, Scaling, features, last_known, ordered, pinball


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
