"""The next steps of the inputs, or of another column, as quantiles in raw units.

The middle quantile is the least-squares forecast, what RMSE and MSE ask for. The others are set after training, by
`fit_spread`, on windows that were not trained on: split conformal prediction (Vovk et al. 2005; Lei et al. 2018), for
each step ahead and target by itself, so that the stated share of the truth falls below each.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import QUANTILES, Scaling, features, last_known, ordered, pinball, rising

MIDDLE = len(QUANTILES) // 2


class Forecaster(nn.Module):
    """{"forecast": [B, H, C, Q]} from all channels at once; C the inputs, or the targets where those are others."""

    def __init__(
        self, family: str, hidden: int, mean: Tensor, scale: Tensor, horizon: int,
        targets: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """mean, scale: [C] of the inputs; targets: the same [C_targets] of other columns, None for the inputs."""
        super().__init__()
        self.horizon, self.own = horizon, targets is None
        self.scaling = Scaling(mean, scale)
        self.target = Scaling(*(targets or (mean, scale)))
        self.channels = len(self.target.mean)
        self.body = FAMILIES[family](2 * len(mean), hidden)
        self.head = nn.Linear(hidden, horizon * self.channels * len(QUANTILES))
        self.register_buffer("levels", torch.tensor(QUANTILES))
        self.register_buffer("stretch", torch.ones(horizon, self.channels, len(QUANTILES)))

    def scaled(self, window: Tensor) -> Tensor:
        """[B, T, C] -> [B, H, C_targets, Q] in units of the targets' scale, as trained."""
        z, known = self.scaling(window)
        raw = self.head(self.body(features(z, known)))
        raw = ordered(raw.view(-1, self.horizon, self.channels, self.levels.shape[0]))
        if self.own:
            raw = raw + last_known(z, known)[:, None, :, None]
        return raw

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return self.stretched(self.scaled(window))

    def stretched(self, q: Tensor) -> dict[str, Tensor]:
        target, middle = self.target, self.levels.shape[0] // 2
        point = q[..., middle : middle + 1]
        away = (q - point) * self.stretch
        up = rising(away[..., middle:])  # stretched one by one, they must still not cross
        down = rising(-away[..., :middle].flip(-1)).flip(-1)
        forecast = torch.cat([point - down, point + up], -1)
        return {"forecast": forecast * target.scale[None, None, :, None] + target.mean[None, None, :, None]}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: [B, H, C_targets] raw, NaN where missing. Squares for the middle, quantile loss around it."""
        return self.missed(self.scaled(window), target)

    def missed(self, q: Tensor, target: Tensor) -> Tensor:
        """The loss of q, as `scaled` gives it."""
        y, known = self.target(target)
        point = q[..., MIDDLE]
        squares = (((point - y) * known) ** 2).sum() / known.sum().clamp(min=1.0)
        around = q - (point - point.detach()).unsqueeze(-1)  # the spread may not pull the middle
        return squares + 0.1 * pinball(around, y, known, self.levels)

    def fit_spread(self, windows: NDArray[np.float32], targets: NDArray[np.float32], batch: int = 256) -> None:
        """windows: [N, T, C], targets: [N, H, C_targets], not trained on: sets how far each quantile is stretched."""
        q = [self.scaled(torch.from_numpy(windows[i : i + batch])) for i in range(0, len(windows), batch)]
        self.fit_stretch(torch.cat(q), torch.from_numpy(targets))

    def fit_stretch(self, q: Tensor, targets: Tensor) -> None:
        """`fit_spread` for q, as `scaled` gives it."""
        y, known = self.target(targets)
        away = (q - q[..., MIDDLE : MIDDLE + 1]).abs().clamp(min=1e-6)
        ratio = (y - q[..., MIDDLE]).unsqueeze(-1) / away
        stretch = spread_of(torch.where(known.unsqueeze(-1) > 0, ratio, torch.nan).numpy())
        self.stretch = torch.from_numpy(np.abs(stretch))


class PeriodicForecaster(nn.Module):
    """Each channel by itself, by one small CNN for all of them, for signals with a period (a day, a shift).

    The look-back, less its own mean, is folded into periods. A convolution gathers each step's neighbours within the
    period, and a second one, across the periods, continues each phase of it (the idea of SparseTSF, Lin et al. 2024).
    The spread is in units of what the look-back's own mean period leaves unexplained: it widens and narrows with the
    signal. A missing step counts as the mean period has it.
    """

    rate = 1e-2  # so few numbers learn faster

    def __init__(self, mean: Tensor, scale: Tensor, length: int, horizon: int, period: int) -> None:
        """length: at least two periods, of which only whole ones are used."""
        super().__init__()
        self.channels, self.horizon, self.period = len(mean), horizon, period
        self.past, self.ahead = length // period, -(-horizon // period)
        self.scaling = Scaling(mean, scale)
        self.gather = nn.Conv1d(1, 1, 2 * (period // 2) + 1, padding=period // 2, bias=False)
        self.across = nn.Linear(self.past, self.ahead, bias=False)
        self.register_buffer("quantiles", torch.zeros(horizon, self.channels, len(QUANTILES)))

    def scaled(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, C] -> forecast [B, H, C] and spread [B, C], both in units of the training data's scale."""
        z, known = self.scaling(window[:, -self.past * self.period :])
        z, known = (a.transpose(1, 2).reshape(-1, self.past, self.period) for a in (z, known))  # [B C, past, P]
        mean = z.sum((1, 2), keepdim=True) / known.sum((1, 2), keepdim=True).clamp(min=1.0)
        z = (z - mean) * known
        phase = z.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp(min=1.0)  # the mean period
        left = (z - phase) * known
        spread = ((left**2).sum((1, 2)) / known.sum((1, 2)).clamp(min=1.0)).sqrt()
        spread = spread.clamp(min=1e-3)  # [B C]; a constant past must not claim certainty
        z = z + phase * (1.0 - known)
        flat = z.flatten(1)  # [B C, T]
        smooth = (flat + self.gather(flat[:, None])[:, 0]).view(-1, self.past, self.period)
        steps = self.across(smooth.transpose(1, 2)).transpose(1, 2).flatten(1)  # [B C, ahead P]
        forecast = (steps[:, : self.horizon] + mean[:, :, 0]).view(-1, self.channels, self.horizon)
        return forecast.transpose(1, 2), spread.view(-1, self.channels)

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        point, spread = self.scaled(window)
        forecast = point.unsqueeze(-1) + spread[:, None, :, None] * self.quantiles
        scaling = self.scaling
        return {"forecast": forecast * scaling.scale[None, None, :, None] + scaling.mean[None, None, :, None]}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: [B, H, C] raw, NaN where missing: mean squared error."""
        y, known = self.scaling(target)
        return (((self.scaled(window)[0] - y) * known) ** 2).sum() / known.sum().clamp(min=1.0)

    def fit_spread(self, windows: NDArray[np.float32], targets: NDArray[np.float32], batch: int = 256) -> None:
        """windows: [N, T, C], targets: [N, H, C]: sets the quantiles of the error in units of the spread."""
        parts = []
        for i in range(0, len(windows), batch):
            point, spread = self.scaled(torch.from_numpy(windows[i : i + batch]))
            y, known = self.scaling(torch.from_numpy(targets[i : i + batch]))
            ratio = torch.where(known > 0, (y - point) / spread[:, None], torch.nan)
            parts.append(ratio.unsqueeze(-1).expand(-1, -1, -1, len(QUANTILES)).numpy())
        self.quantiles = torch.from_numpy(spread_of(np.concatenate(parts)))


def spread_of(ratio: NDArray[np.float32]) -> NDArray[np.float32]:
    """ratio: [N, H, C, Q], errors in units of each quantile's width, NaN where unknown -> float32 [H, C, Q].

    The quantile of each at its own level, with the rank of n + 1 values that makes it conformal; 0 in the middle, and
    never on the wrong side of it. Where nothing is known the width stays as it is.
    """
    found = np.empty(ratio.shape[1:], np.float32)
    for i, level in enumerate(QUANTILES):
        for step in range(ratio.shape[1]):  # one at a time: a copy of all would be as large as the data
            errors = ratio[:, step, :, i]
            n = np.maximum(np.isfinite(errors).sum(0), 1)
            outer = np.clip(abs(level - 0.5) * (1 + 1 / n), 0, 0.5)
            for c in range(errors.shape[1]):
                known = errors[np.isfinite(errors[:, c]), c]
                side = 1.0 if level > 0.5 else -1.0
                found[step, c, i] = np.quantile(known, 0.5 + side * outer[c]) if len(known) else side
    found[..., :MIDDLE] = np.minimum(found[..., :MIDDLE], 0)
    found[..., MIDDLE] = 0
    found[..., MIDDLE + 1 :] = np.maximum(found[..., MIDDLE + 1 :], 0)
    return found
