"""Where a vehicle will be: the next positions as quantiles, from where it has been and how fast.

All is seen from the vehicle: metres from its last position, along and across the way that it came. So a model knows no
place and no direction, and one that was trained in one town is right in another.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import QUANTILES, Scaling, last_known
from transom_models.tasks.forecast import spread_of

LATITUDE = 111_132.0  # metres of a degree of latitude, at 45°; 0.5 % more at the poles
LONGITUDE = 111_320.0  # metres of a degree of longitude at the equator; times the latitude's cosine elsewhere
FAR = 5.0  # metres: the way is seen from the newest point so far off, so that noise at a halt turns nothing
REACH = 50.0  # metres, the unit in which the network sees the past
PACE = 2  # steps over which the velocity is taken that a correction is learned to


class PathForecaster(nn.Module):
    """{"forecast": [B, H, 2, Q]} of the first two channels: latitude and longitude in degrees, or metres.

    Constant velocity, and what the network adds to it along and across the way. The intervals are of each of the two
    channels by itself: the axes of an ellipse that lies along the way, seen from north and east.
    """

    rate = 2e-3

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, horizon: int, degrees: bool) -> None:
        """mean, scale: [C] of the inputs, those of the two positions unused. degrees: of latitude and longitude."""
        super().__init__()
        self.horizon, self.degrees, self.others, self.pace = horizon, degrees, len(mean) - 2, PACE
        self.north, self.east, self.far, self.reach = LATITUDE, LONGITUDE, FAR, REACH  # TorchScript knows no globals
        self.scaling = Scaling(mean[2:], scale[2:])
        self.body = FAMILIES[family](2 * (4 + self.others), hidden)
        self.head = nn.Linear(hidden, horizon * 4)
        self.register_buffer("quantiles", torch.tensor([-1.3, -0.6, 0.0, 0.6, 1.3]).repeat(horizon, 2, 1))

    def place(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, C] -> positions [B, T, 2], 0 where missing; what is known [B, T, 1]; the last known [B, 2]."""
        known = (torch.isfinite(window[:, :, 0]) & torch.isfinite(window[:, :, 1])).unsqueeze(2)
        position = torch.where(known, window[:, :, :2], torch.zeros_like(window[:, :, :2]))
        there = known.to(window.dtype)
        return position, there, last_known(position, there.expand(-1, -1, 2))

    def seen(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, T, C] -> features [B, T, 2 F]; velocity [B, 2] in the vehicle's frame, metres a step; its direction
        [B, 2]; metres of a unit of the two positions [B, 2]. Constant velocity is taken over PACE steps."""
        position, there, origin = self.place(window)
        metres = torch.ones_like(origin)
        if self.degrees:
            east = self.east * torch.cos(torch.deg2rad(origin[:, 0]))
            metres = torch.stack([torch.full_like(east, self.north), east.clamp(min=1.0)], 1)
        away = ((position - origin[:, None]) * metres[:, None] * there).clamp(-1e5, 1e5)  # [B, T, 2] metres
        far = (away**2).sum(2).sqrt()
        steps = torch.arange(1.0, window.shape[1] + 1, device=window.device)
        newest = ((far > self.far).to(window.dtype) * steps).amax(1).long()  # 0: never so far off
        padded = torch.cat([torch.zeros_like(away[:, :1]), away], 1)
        back = padded[torch.arange(len(window), device=window.device), newest]  # [B, 2]
        size = (back**2).sum(1, keepdim=True).sqrt()
        north = torch.zeros_like(back)
        north[:, 0] = 1.0
        way = torch.where(size > 0.0, -back / size.clamp(min=1e-6), north)  # [B, 2]
        own = turned(away, way)  # [B, T, 2] along and across
        moved = torch.cat([torch.zeros_like(own[:, :1]), own[:, 1:] - own[:, :-1]], 1)
        both = there * torch.cat([torch.zeros_like(there[:, :1]), there[:, :-1]], 1)
        moved = moved * both
        count = both[:, -self.pace :].sum(1)
        velocity = moved[:, -self.pace :].sum(1) / count.clamp(min=1.0)  # [B, 2]
        z, sure = self.scaling(window[:, :, 2:])
        values = torch.cat([own / self.reach, 5.0 * moved / self.reach, z.clamp(-30.0, 30.0)], 2)
        flags = torch.cat([there, there, both, both, sure], 2)
        return torch.cat([values.clamp(-30.0, 30.0), flags], 2), velocity, way, metres

    def scaled(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[B, T, C] -> metres along and across from the last position [B, H, 2]; their usual error [B, H, 2]; the
        direction [B, 2]; metres of a unit [B, 2]."""
        x, velocity, way, metres = self.seen(window)
        raw = self.head(self.body(x)).view(-1, self.horizon, 4)
        ahead = torch.arange(1.0, self.horizon + 1, device=window.device)[None, :, None]
        point = ahead * (velocity[:, None] + raw[:, :, :2])
        size = 0.1 + nn.functional.softplus(raw[:, :, 2:]) * ahead
        return point, size, way, metres

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        point, size, way, metres = self.scaled(window)
        _, _, origin = self.place(window)
        middle = turned_back(point, way)
        spread = axes(size, way)
        away = middle.unsqueeze(-1) + spread.unsqueeze(-1) * self.quantiles  # [B, H, 2, Q] metres
        return {"forecast": origin[:, None, :, None] + away / metres[:, None, :, None]}

    def truth(self, window: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """window, and target [B, H, 2] raw, NaN where missing -> metres from the last position, in the channels' own
        directions, and what is known, both [B, H, 2]."""
        _, _, _, metres = self.seen(window)
        _, known, origin = self.place(window)
        there = torch.isfinite(target).all(2, keepdim=True) & (known.amax(1, keepdim=True) > 0)
        away = (target - origin[:, None]) * metres[:, None]
        return torch.where(there, away, torch.zeros_like(away)), there.to(away.dtype).expand(-1, -1, 2)

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: [B, H, 2] raw, NaN where missing. Squares of metres for the point; for its usual error the
        likelihood of a Laplace distribution, which may not pull the point."""
        away, known = self.truth(window, target)
        point, size, way, _ = self.scaled(window)
        error = (turned(away, way) - point) * known
        count = known.sum().clamp(min=1.0)
        likelihood = (torch.log(size) + error.detach().abs() / size) * known
        return (error**2).sum() / count / 10.0 + 0.1 * likelihood.sum() / count

    def fit_spread(self, windows: NDArray[np.float32], targets: NDArray[np.float32], batch: int = 256) -> None:
        """windows: [N, T, C], targets: [N, H, 2]: sets the quantiles of the error in units of its usual size."""
        parts = []
        for i in range(0, len(windows), batch):
            window = torch.from_numpy(windows[i : i + batch])
            away, known = self.truth(window, torch.from_numpy(targets[i : i + batch]))
            point, size, way, _ = self.scaled(window)
            ratio = torch.where(known > 0, (away - turned_back(point, way)) / axes(size, way), torch.nan)
            parts.append(ratio.unsqueeze(-1).expand(-1, -1, -1, len(QUANTILES)).numpy())
        self.quantiles = torch.from_numpy(spread_of(np.concatenate(parts)))


def turned(away: Tensor, way: Tensor) -> Tensor:
    """[B, N, 2] in the channels' directions, way [B, 2] -> [B, N, 2] along and across the way."""
    first, second = way[:, :1], way[:, 1:]
    return torch.stack(
        [away[:, :, 0] * first + away[:, :, 1] * second, away[:, :, 1] * first - away[:, :, 0] * second], 2
    )


def turned_back(own: Tensor, way: Tensor) -> Tensor:
    first, second = way[:, :1], way[:, 1:]
    return torch.stack([own[:, :, 0] * first - own[:, :, 1] * second, own[:, :, 0] * second + own[:, :, 1] * first], 2)


def axes(size: Tensor, way: Tensor) -> Tensor:
    """[B, N, 2] along and across -> how far the ellipse with these axes reaches in the channels' own directions."""
    squares, first, second = size**2, way[:, :1] ** 2, way[:, 1:] ** 2
    return torch.stack(
        [squares[:, :, 0] * first + squares[:, :, 1] * second, squares[:, :, 0] * second + squares[:, :, 1] * first], 2
    ).sqrt()


def constant_velocity(windows: NDArray[np.float32], horizon: int) -> NDArray[np.float64]:
    """windows: [N, T, >= 2], positions first -> [N, H, 2]: the naive forecast, on from the last PACE steps."""
    last = windows[:, -1, :2].astype(np.float64)
    pace = (last - windows[:, -1 - PACE, :2]) / PACE
    return last[:, None] + np.arange(1, horizon + 1)[None, :, None] * pace[:, None]


def distance(a: NDArray[np.floating], b: NDArray[np.floating], degrees: bool) -> NDArray[np.float64]:
    """a, b: [..., 2] positions -> [...] metres between them."""
    away = a.astype(np.float64) - b
    if degrees:
        away = away * np.stack([np.full(away.shape[:-1], LATITUDE), LONGITUDE * np.cos(np.radians(b[..., 0]))], -1)
    return np.sqrt((away**2).sum(-1))
