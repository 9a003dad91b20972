"""A detector for several channels: is each at its level, as lively as ever, and in step with the others?

A window is history, a short gap and a tail. What the tail should be is

    persistence * mean of the history + what the family says of the history's shape

A channel that jitters about its level has a persistence near 0: it is held to the level that it was trained at, for as
long as it stays away from it. One that wanders (a temperature) has a persistence near 1: it is held to its own last
minute. The family sees the history only relative to its mean, so that no level, however strange, can lead it astray.

Of each channel's residuals in the tail come four deviations, each in units of its usual size: of their mean; of the
mean given the other channels' means (a broken relation between channels that look normal: the conditional residual of
a Gaussian, whose precision matrix is shrunk to its diagonal); of the logarithm of the variance of the steps (noisy or
stuck); of a single step (a spike). The largest decides. Residuals are bounded before they are averaged (Huber, Robust
Statistics, 1981), so that one spike is no level, and a large fault is soon over for the detector when it is over.
"""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import Scaling, features

BOUND = 3.0  # a step's residual counts for at most so many times its usual size
FLOOR = 0.1  # usual size of a mean residual, at least, in units of a step's
SHRINK = 0.5  # of the residuals' correlations: half of what is seen in a short recording is chance
LIVELY = 0.6  # weight of the deviation of the variance, whose tails are heavier
STILL = 1e-3  # share of the usual variance below which all is the same: stuck
NARROWEST = 0.2  # usual size of a log variance, at least
JUMP = 2.4  # weight of a single step: twice the largest one ever seen counts as 4.8
NEWEST = 3  # steps in which a single large one is looked for


def parts(length: int) -> tuple[int, int]:
    """Steps of the gap and of the tail in a window of `length`: 5 and 10 of 64."""
    return length // 12, max(2, length // 6)


class LevelDetector(nn.Module):
    """score [B]: square root of the largest deviation, in units of its usual size.

    contribution [B, C]: the score, shared by the squares of the channels' own deviations; the relation to other
    channels counts for what it adds to these.
    """

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, length: int) -> None:
        """mean, scale: [C] of the training data; length: T."""
        super().__init__()
        self.channels = len(mean)
        self.bound, self.lively_weight, self.still, self.jump, self.newest = BOUND, LIVELY, STILL, JUMP, NEWEST
        gap, self.tail = parts(length)
        self.history = length - gap - self.tail
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2 * self.channels, hidden)
        self.head = nn.Linear(hidden, self.tail * self.channels)
        self.silence()
        weights = torch.exp(-torch.arange(self.tail - 1, -1, -1) / (0.5 * self.tail))
        self.register_buffer("weights", (weights / weights.sum()).view(1, -1, 1))  # the newest step counts most
        for name, fill in (
            ("persistence", 0.0), ("spread", 1.0),  # [C]: see fit_persistence; usual size of a step's residual
            ("usual", 1.0), ("related", 1.0),  # [C]: usual size of mean residuals, and of those given the others
            ("steps", 1.0), ("lively", 0.0), ("wobble", 1.0),  # [C]: mean square of steps; centre and size of its log
            ("farthest", 1.0),  # [C]: largest step ever seen
        ):  # fmt: skip
            self.register_buffer(name, torch.full((self.channels,), fill))
        self.register_buffer("precision", torch.eye(self.channels))

    @torch.jit.ignore
    def silence(self) -> None:
        """The family has nothing to say: before training, and where training did not pay."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def scaled(self, window: Tensor) -> Tensor:
        """What each step of the tail should be: [B, tail, C], scaled."""
        z, known = self.scaling(window[:, : self.history])
        level = (z * known).sum(1) / known.sum(1).clamp(min=1.0)  # [B, C]
        shape = features((z - level[:, None]) * known, known)
        said = self.head(self.body(shape)).view(-1, self.tail, self.channels)
        # How far a channel may be followed: a fault in one that jitters must not leave its mark on what comes after it.
        reach = self.bound / (1.0 - self.persistence).clamp(min=1e-3)
        followed = torch.minimum(torch.maximum(level, -reach), reach)
        return (self.persistence * followed)[:, None] + said

    def residual(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, tail, C] in units of the channel's spread, 0 where missing; and 1 where known."""
        z, known = self.scaling(window[:, -self.tail :])
        return (z - self.scaled(window)) / self.spread * known, known

    def mean_residual(self, window: Tensor) -> Tensor:
        """[B, C] of bounded residuals. Fewer known steps say less: their mean counts less."""
        residual, known = self.residual(window)
        weight = self.weights * known
        total = weight.sum(1)
        mean = (self.bound * torch.tanh(residual / self.bound) * weight).sum(1) / total.clamp(min=1e-6)
        return mean * total.sqrt()

    def changes(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 2 tail, C] twice: from each step to the next, scaled, 0 where either is missing; and 1 where known."""
        z, known = self.scaling(window[:, -2 * self.tail - 1 :])
        both = known[:, 1:] * known[:, :-1]
        return (z[:, 1:] - z[:, :-1]).clamp(-1e6, 1e6) * both, both

    def log_variance(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C] twice: log of the mean squared change in units of the usual one; 1 where enough is known for it."""
        change, known = self.changes(window)
        count = known.sum(1)
        ratio = (change**2).sum(1) / count.clamp(min=1.0) / self.steps
        return torch.log(ratio + self.still), (count >= self.tail).to(torch.float32)

    def conditional(self, means: Tensor) -> Tensor:
        """means: [B, C] in units of their usual size -> those given all others, [B, C]."""
        return (means[:, :, None] * self.precision[None]).sum(1)

    def deviations(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C] twice, >= 0: of the channel by itself, and given the others."""
        means = self.mean_residual(window) / self.usual
        variance, sure = self.log_variance(window)
        own = torch.maximum(means.abs(), self.lively_weight * sure * ((variance - self.lively) / self.wobble).abs())
        change, _ = self.changes(window)
        own = torch.maximum(own, self.jump * change[:, -self.newest :].abs().amax(1) / self.farthest)
        return own, self.conditional(means).abs() / self.related

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        own, given = self.deviations(window)
        most = own.amax(1)
        score = torch.maximum(most, given.amax(1)).sqrt()
        # A fault in one channel shifts what is expected of all its relatives, by less: it is not their fault.
        blame = own**2 + torch.relu(given - most[:, None]) ** 2
        expected = self.scaled(window)[:, -1] * self.scaling.scale + self.scaling.mean
        band = 1.64 * self.spread * self.scaling.scale  # 90 % of a normal residual
        return {
            "score": score,
            "contribution": score[:, None] * blame / blame.sum(1, keepdim=True).clamp(min=1e-12),
            "expected": expected,
            "interval": torch.stack([expected - band, expected + band], 2),
        }

    def loss(self, window: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002  # the target is the window's tail
        residual, known = self.residual(window)
        each = nn.functional.smooth_l1_loss(residual, torch.zeros_like(residual), reduction="none", beta=self.bound)
        return (each * known).sum() / known.sum().clamp(min=1.0)

    @torch.no_grad()
    def fit_persistence(self, windows: Tensor) -> None:
        """windows: [N, T, C] of normal running, before training. What of a channel's variance shows within half a tail
        (the variogram: Matheron, Principles of Geostatistics, 1963) is its jitter; the rest wanders and persists."""
        z, known = self.scaling(windows)
        lag = max(1, self.tail // 2)
        both = known[:, lag:] * known[:, :-lag]
        jitter = 0.5 * _size(z[:, lag:] - z[:, :-lag], both, 0.0) ** 2
        self.persistence = (1.0 - jitter).clamp(0.0, 1.0) ** 1.5
        self.spread = torch.ones_like(self.spread)
        self.spread = _size(*self.residual(windows), 1e-3)

    @torch.no_grad()
    def fit_scales(self, windows: Tensor) -> None:
        """windows: [N, T, C] of normal running, after training: the usual sizes, and how channels agree."""
        self.spread = self.spread * _size(*self.residual(windows), 1e-6)
        means = self.mean_residual(windows)
        self.usual = ((means**2).mean(0) + FLOOR**2).sqrt()
        means = means / self.usual
        shared = means.T @ means / len(means)
        inverse = torch.linalg.inv(
            SHRINK * torch.diag(torch.diag(shared)) + (1.0 - SHRINK) * shared + 1e-6 * torch.eye(self.channels)
        )
        self.precision = inverse / torch.diag(inverse).sqrt()
        self.related = (self.conditional(means) ** 2).mean(0).sqrt().clamp(min=1.0)
        self.steps = torch.ones_like(self.steps)
        change, known = self.changes(windows)
        self.steps = _size(change, known, 1e-6) ** 2
        self.farthest = change.abs().amax((0, 1)).clamp(min=1e-3)
        variance, sure = self.log_variance(windows)
        count = sure.sum(0).clamp(min=1.0)
        self.lively = (variance * sure).sum(0) / count
        self.wobble = (((variance - self.lively) ** 2 * sure).sum(0) / count).sqrt().clamp(min=NARROWEST)


def _size(values: Tensor, known: Tensor, least: float) -> Tensor:
    """Root mean square of the known ones of [N, T, C] -> [C]."""
    return ((values**2 * known).sum((0, 1)) / known.sum((0, 1)).clamp(min=1.0)).sqrt().clamp(min=least)
