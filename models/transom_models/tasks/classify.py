"""Which of K classes a window belongs to."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.families.hydra import Hydra
from transom_models.families.rocket import Rocket
from transom_models.tasks.common import Scaling

SMOOTHING = 0.1  # of the labels (Szegedy et al. 2016)
RANDOM = (Rocket, Hydra)  # families whose kernels are never trained
PENALTIES = np.logspace(-3, 4, 15)  # of the ridge


class Classifier(nn.Module):
    """{"probability": [B, K]}.

    A family sees each value twice: scaled as all training data is, and as the logarithm of its place in the window's
    own range, so that a small machine's window resembles a large one's. Where readings of several kinds take turns in
    one channel they are folded apart: with the period 4, four channels a quarter as long.
    """

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, classes: int, period: int = 1) -> None:
        super().__init__()
        self.scaling, self.period = Scaling(mean, scale), period
        self.floor = 1 / 256  # of a window's range: what lies lower is its bottom
        self.body = FAMILIES[family](4 * len(mean) * period, hidden)
        self.drop = nn.Dropout(0.0 if isinstance(self.body, RANDOM) else 0.2)
        self.head = nn.Linear(hidden, classes)
        self.register_buffer("sharpness", torch.ones(()))

    def seen(self, window: Tensor) -> Tensor:
        """[B, T, C] -> [B, T / period, 4 C period]: values, their place in the range, and twice what is known."""
        z, known = self.scaling(window)
        z = z.clamp(-30.0, 30.0)
        lowest = torch.where(known > 0, z, torch.full_like(z, 1e9)).amin(1, keepdim=True)
        highest = torch.where(known > 0, z, torch.full_like(z, -1e9)).amax(1, keepdim=True)
        place = (z - lowest) / (highest - lowest).clamp(min=1e-6)
        place = torch.log(place.clamp(0.0, 1.0) + self.floor) * known / 2.0 + known
        steps = window.shape[1] // self.period
        both = torch.cat([z, place], 2)[:, -steps * self.period :]
        both = both.reshape(-1, steps, both.shape[2] * self.period)
        there = torch.cat([known, known], 2)[:, -steps * self.period :].reshape(-1, steps, both.shape[2])
        return torch.cat([both, there], 2)

    def logits(self, window: Tensor) -> Tensor:
        return self.head(self.drop(self.body(self.seen(window))))  # [B, K]

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        return {"probability": torch.softmax(self.logits(window) * self.sharpness, 1)}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:
        """target: int64 [B], the class."""
        return nn.functional.cross_entropy(self.logits(window), target, label_smoothing=SMOOTHING)

    @torch.no_grad()
    def solve(self, windows: NDArray[np.float32], target: NDArray[np.integer]) -> float:
        """For random kernels: fits the head in closed form and returns the share that leaving one out would get right.

        Ridge regression on one column a class, the penalty with the smallest leave-one-out error (Allen 1974), where
        all views of a window are left out together; the sharpness of the probabilities is the one with the smallest
        leave-one-out cross entropy.
        """
        assert isinstance(self.body, RANDOM)
        x = torch.cat([self.seen(torch.from_numpy(windows[i : i + 64])) for i in range(0, len(windows), 64)])
        self.body.prepare(x)
        views = torch.cat([self.body.views(part) for part in x.split(64)]).numpy().astype(np.float64)  # [N, V, D]
        cases, seen = views.shape[:2]
        f, of_view = views.reshape(cases * seen, -1), np.repeat(target, seen)
        classes = self.head.out_features
        y = np.where(np.arange(classes)[None] == of_view[:, None], 1.0, -1.0)
        middle = y.mean(0)
        values, vectors = np.linalg.eigh(f @ f.T)
        best = (np.inf, y, y)
        for penalty in PENALTIES:
            inverse = (vectors / (np.maximum(values, 0) + penalty * len(f))) @ vectors.T
            dual = inverse @ (y - middle)
            blocks = inverse.reshape(cases, seen, cases, seen)[np.arange(cases), :, np.arange(cases)]
            error = np.linalg.solve(blocks, dual.reshape(cases, seen, -1)).reshape(len(f), -1)
            best = min(best, (float((error**2).mean()), dual, y - error), key=lambda b: b[0])
        _, dual, left_out = best
        self.head.weight.copy_(torch.from_numpy((f.T @ dual).T))
        self.head.bias.copy_(torch.from_numpy(middle))
        left_out = left_out.reshape(cases, seen, -1).mean(1)
        guesses, truth = torch.from_numpy(left_out), torch.from_numpy(np.asarray(target, np.int64))
        losses = [float(nn.functional.cross_entropy(guesses * s, truth)) for s in SHARPNESS]
        self.sharpness = torch.tensor(float(SHARPNESS[int(np.argmin(losses))]))
        return float((left_out.argmax(1) == target).mean())


SHARPNESS = np.geomspace(0.5, 20, 25)


def vary(batch: Tensor, random: torch.Generator) -> Tensor:
    """Augmentation: [B, T, C] with a part of each batch's beginning missing, each window larger or smaller by some
    10 %, and a little noise, so that few examples are not learned by heart."""
    count, steps = batch.shape[0], batch.shape[1]
    size = torch.exp(0.1 * torch.randn(count, 1, 1, generator=random))
    moved = batch * size
    moved = moved + 0.02 * batch.nan_to_num().std(1, keepdim=True) * torch.randn(batch.shape, generator=random)
    cut = int(torch.randint(0, steps // 2 + 1, (1,), generator=random))
    turn = int(torch.randint(0, 2, (1,), generator=random))
    if turn:
        moved[:, :cut] = float("nan")
    return moved
