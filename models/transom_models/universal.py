"""The model `universal`: one channel, any sensor, no training by the user. Its network, its loss and its score.

A strided CNN predicts quantiles of the last value from the 127 before it, all relative to the window's own mean and
scale, so a * x + b gives the same score. Trained on `synthetic` signals only.
"""

import torch
from torch import Tensor, nn

LENGTH = 128
RECENT = 16  # steps that are also seen without striding
LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
HIDDEN = 32


class Universal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, HIDDEN, 4, stride=4)
        self.second = nn.Conv1d(HIDDEN, HIDDEN, 4, stride=4)
        self.third = nn.Conv1d(HIDDEN, HIDDEN, LENGTH // 16)
        self.recent = nn.Linear(3 * RECENT, HIDDEN)
        self.join = nn.Linear(2 * HIDDEN, 2 * HIDDEN)
        self.head = nn.Linear(2 * HIDDEN, len(LEVELS))
        self.register_buffer("levels", torch.tensor(LEVELS))

    def scaled(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, T, 1] -> context z [B, T] and known [B, T] (a first step of nothing, then T - 1), mean and scale [B]."""
        context = window[:, :-1, 0]
        known = torch.isfinite(context)
        zero = torch.zeros_like(context)
        count = known.to(torch.float32).sum(1).clamp(min=1.0)
        # Divided by the largest value first: squares of 1e30 do not fit into float32.
        largest = torch.where(known, context, zero).abs().amax(1).clamp(min=1e-20)
        unit = torch.where(known, context, zero) / largest[:, None]
        mean = unit.sum(1) / count
        away = torch.where(known, unit - mean[:, None], zero)
        spread = ((away**2).sum(1) / count).sqrt()
        scale = spread + 1e-4 * mean.abs() + 1e-12  # a constant signal has a scale too: a ten-thousandth of its size
        z = (away / scale[:, None]).clamp(-8.0, 8.0)
        nothing = zero[:, :1]
        return (
            torch.cat([nothing, z], 1),
            torch.cat([nothing, known.to(torch.float32)], 1),
            mean * largest,
            scale * largest,
        )

    def predict(self, z: Tensor, known: Tensor) -> Tensor:
        """Quantiles of the last value in units of the context's scale: [B, Q], not falling."""
        change = torch.cat([torch.zeros_like(z[:, :1]), z[:, 1:] - z[:, :-1]], 1) * known
        features = torch.stack([z, change, known], 1)  # [B, 3, T]
        y = torch.relu(self.first(features))  # [B, D, T / 4]
        y = torch.relu(self.second(y))  # [B, D, T / 16]
        y = torch.relu(self.third(y))[:, :, 0]  # [B, D]
        recent = torch.relu(self.recent(features[:, :, -16:].flatten(1)))  # [B, D]
        raw = self.head(torch.relu(self.join(torch.cat([y, recent], 1))))  # [B, Q]
        steps = torch.arange(z.shape[1], device=z.device).to(torch.float32)
        last = z.gather(1, (known * steps).amax(1).long()[:, None])  # the last known value, 0 when there is none
        middle = last + raw[:, 3:4]
        up = torch.nn.functional.softplus(raw[:, 4:]).cumsum(1)
        down = torch.nn.functional.softplus(raw[:, :3]).flip(1).cumsum(1).flip(1)
        return torch.cat([middle - down, middle, middle + up], 1)

    def forward(self, window: Tensor) -> dict[str, Tensor]:  # [B, T, 1]
        z, known, mean, scale = self.scaled(window)
        q = self.predict(z, known)
        value = window[:, -1, 0]
        there = torch.isfinite(value) & (known.sum(1) > 0)
        y = torch.where(there, ((value - mean) / scale).clamp(-1e9, 1e9), q[:, 3])
        change = (z[:, 1:] - z[:, :-1]).abs().mean(1)
        floor = 0.02 + 0.1 * change  # a band much narrower than the signal's own steps is a claim, not knowledge
        above = (y - q[:, 3]) / (q[:, 5] - q[:, 3] + floor)
        below = (q[:, 3] - y) / (q[:, 3] - q[:, 1] + floor)
        score = torch.log1p(torch.maximum(above, below).clamp(min=0.0))  # tails like a power become exponential
        raw = (q * scale[:, None] + mean[:, None]).clamp(-3e38, 3e38)
        raw = torch.where(raw.abs() < 1e-18, torch.zeros_like(raw), raw)  # after a past of zeros only
        return {
            "score": score,
            "contribution": score[:, None],
            "expected": raw[:, 3:4],
            "interval": torch.stack([raw[:, 1], raw[:, 5]], 1)[:, None, :],
        }

    def loss(self, window: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002  # the target is the window's last step
        """Quantile loss in units of the context's scale; what is very far away counts no more than 20 of them."""
        z, known, mean, scale = self.scaled(window)
        value = window[:, -1, 0]
        there = torch.isfinite(value)
        y = torch.where(there, ((value - mean) / scale).clamp(-20.0, 20.0), torch.zeros_like(value))
        error = y[:, None] - self.predict(z, known)
        each = torch.maximum(self.levels * error, (self.levels - 1) * error).sum(1)
        return (each * there.to(torch.float32)).sum() / there.sum().clamp(min=1)
