"""A detector for contacts: is a door open at an hour, or for as long, as it never is?

What a contact is most of the time is its rest, whichever way it is wired. The family sees when it was away from rest,
over as many hours as the window has, and says for each of the last TAIL steps how likely it is to be away then. A
window's score is what the tail then says against that: the Kullback-Leibler divergence of each step's state from the
one expected, summed, in nats. A short opening at an odd hour is one large term, a door left open is many.
"""

import torch
from torch import Tensor, nn

from transom_models.families import FAMILIES
from transom_models.tasks.common import Scaling, features

TAIL = 6  # steps that are judged
LEAST = 1e-6  # the smallest chance that is believed


class SwitchDetector(nn.Module):
    """score [B] >= 0; contribution [B, C] >= 0, its parts; expected [B, C], the mean state that is likely now."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor) -> None:
        """mean, scale: [C] of the training data, kept for the metrics; states are taken as they are, 0 to 1."""
        super().__init__()
        self.channels, self.tail, self.least = len(mean), TAIL, LEAST
        self.scaling = Scaling(mean, scale)
        self.body = FAMILIES[family](2, hidden)  # each channel by itself
        self.head = nn.Linear(hidden, TAIL)

    def away(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, C] -> [B C, T] away from rest, [B C, T] known, [B C, 1] the rest, 0 or 1."""
        known = torch.isfinite(window)
        state = torch.where(known, window, torch.zeros_like(window)).clamp(0.0, 1.0)
        state, there = (a.transpose(1, 2).flatten(0, 1) for a in (state, known.to(torch.float32)))
        rest = (state.sum(1, keepdim=True) > 0.5 * there.sum(1, keepdim=True)).to(torch.float32)
        return (state - rest).abs() * there, there, rest

    def logits(self, away: Tensor, known: Tensor) -> Tensor:
        """[B C, T] twice -> [B C, TAIL], from what was before the tail."""
        before, there = away[:, : -self.tail, None], known[:, : -self.tail, None]
        return self.head(self.body(features(before, there)))

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        away, known, rest = self.away(window)
        chance = torch.sigmoid(self.logits(away, known)).clamp(self.least, 1.0 - self.least)
        state = away[:, -self.tail :].clamp(1e-7, 1.0 - 1e-7)
        apart = state * torch.log(state / chance) + (1.0 - state) * torch.log((1.0 - state) / (1.0 - chance))
        score = (apart * known[:, -self.tail :]).sum(1).clamp(min=0.0).view(-1, self.channels)
        expected = (rest[:, 0] - chance[:, -1]).abs().view(-1, self.channels)
        return {"score": score.sum(1), "contribution": score, "expected": expected}

    def loss(self, window: Tensor, target: Tensor) -> Tensor:  # noqa: ARG002  # the target is the window's tail
        away, known, _ = self.away(window)
        there = known[:, -self.tail :]
        each = nn.functional.binary_cross_entropy_with_logits(
            self.logits(away, known), away[:, -self.tail :], reduction="none"
        )
        return (each * there).sum() / there.sum().clamp(min=1.0)


def late_start(batch: Tensor, random: torch.Generator) -> Tensor:
    """Augmentation: one batch in four lacks its beginning, as a series that has only begun does."""
    if int(torch.randint(0, 4, (1,), generator=random)):
        return batch
    short = batch.clone()
    short[:, : int(torch.randint(1, batch.shape[1] - 2 * TAIL, (1,), generator=random))] = float("nan")
    return short
