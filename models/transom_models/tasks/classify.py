"""Which of K classes a window belongs to."""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import Scaling, features


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
