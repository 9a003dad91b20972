"""Tasks that go from step to step: what a window would give, for the work of one step, when the family can do so.

`step(values, state)` beside `forward(window)`. The state is one row of numbers a series: the family's own, then what
the task remembers. It gives the window's numbers because the window is longer than the family's reach: what lies
before it has no say in either.
"""

import torch
from torch import Tensor

from transom_models.tasks.anomaly import ResidualDetector
from transom_models.tasks.common import ordered
from transom_models.tasks.forecast import Forecaster


def followed(z: Tensor, known: Tensor, last: Tensor, age: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """[B, C] each -> each channel's last known value and how many steps ago that was; 0 once it is `limit` ago."""
    age = torch.where(known > 0, torch.zeros_like(age), age + 1.0)
    last = torch.where(known > 0, z, last)
    return torch.where(age < limit, last, torch.zeros_like(last)), age


class SteppedResidualDetector(ResidualDetector):
    """The state: the family's, its output after the step before, and the last known values with their age."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, length: int) -> None:
        """Raises AttributeError for a family that cannot step."""
        super().__init__(family, hidden, mean, scale)
        self.limit, self.carried, self.hidden = length - 1, self.body.carried, hidden
        self.state = self.carried + hidden + 2 * self.channels

    @torch.jit.export
    def step(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # [B, C], [B, state]
        c = self.channels
        cache, y = state[:, : self.carried], state[:, self.carried : self.carried + self.hidden].contiguous()
        last, age = state[:, -2 * c : -c], state[:, -c:]
        given = self.judged(values, ordered(self.head(y).view(-1, c, 3)) + last[:, :, None])
        z, known = self.scaling(values)
        y, cache = self.body.step(torch.cat([z.clamp(-30.0, 30.0), known], 1), cache)
        last, age = followed(z, known, last, age, self.limit)
        return given, torch.cat([cache, y, last, age], 1)


class SteppedForecaster(Forecaster):
    """The state: the family's, and the last known values with their age."""

    def __init__(
        self, family: str, hidden: int, mean: Tensor, scale: Tensor, horizon: int,
        targets: tuple[Tensor, Tensor] | None, length: int,
    ) -> None:  # fmt: skip
        """Raises AttributeError for a family that cannot step."""
        super().__init__(family, hidden, mean, scale, horizon, targets)
        self.limit, self.carried, self.inputs = length, self.body.carried, len(mean)
        self.state = self.carried + 2 * self.inputs

    @torch.jit.export
    def step(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # [B, C], [B, state]
        c = self.inputs
        z, known = self.scaling(values)
        y, cache = self.body.step(torch.cat([z.clamp(-30.0, 30.0), known], 1), state[:, : self.carried])
        last, age = followed(z, known, state[:, -2 * c : -c], state[:, -c:], self.limit)
        raw = self.head(y).view(-1, self.horizon, self.channels, self.levels.shape[0])
        raw = ordered(raw)
        if self.own:
            raw = raw + last[:, None, :, None]
        return self.stretched(raw), torch.cat([cache, last, age], 1)
