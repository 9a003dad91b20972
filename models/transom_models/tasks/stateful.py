"""Tasks whose state goes on for ever: trained, calibrated and run without windows.

`over(values, state)` goes through whole stretches [B, T, C], for training; `step(values, state)` through one step
[B, C], for the agent; `forward(window)` through a window, beginning with the state that knows nothing, all zeros. All
three give the same numbers. The state is one row of numbers a series: the family's own, then each channel's last known
value and how many steps ago that was. Values that are missing never enter it.
"""

import torch
from torch import Tensor, nn

from transom_models.families.carried import CARRIED
from transom_models.tasks.anomaly import ResidualDetector
from transom_models.tasks.classify import SMOOTHING
from transom_models.tasks.common import Scaling, features, ordered, pinball
from transom_models.tasks.forecast import Forecaster
from transom_models.tasks.stepping import followed


def held(z: Tensor, known: Tensor, last: Tensor, age: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """`followed` for all steps of a stretch: z, known [B, T, C]; last, age [B, C] before it -> [B, T, C] twice."""
    steps = torch.arange(1, z.shape[1] + 1, device=z.device)[None, :, None]
    at = torch.cummax((known * steps).to(torch.int64), 1)[0]  # the latest known step, 0: none
    value = torch.cat([last[:, None], z], 1).gather(1, at)
    ages = torch.where(at > 0, steps - at, age[:, None] + steps)
    return torch.where(ages < limit, value, torch.zeros_like(value)), ages.to(torch.float32)


def before(first: Tensor, following: Tensor) -> Tensor:
    """[B, D], [B, T, D] -> [B, T, D], each step's value of the step before."""
    return torch.cat([first[:, None], following[:, :-1]], 1)


class StatefulDetector(ResidualDetector):
    """How far each step is from what all steps before it promised."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, length: int) -> None:
        """length: steps after which a channel's last known value counts no more. Raises KeyError for a family that
        carries no state."""
        super().__init__(family, hidden, mean, scale)
        self.body = CARRIED[family](2 * self.channels, hidden)
        self.limit, self.carried, self.hidden = length, self.body.carried, hidden
        self.state = self.carried + 2 * self.channels

    def over(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """What each step should be, [B, T, C, 3], scaled, and the state after the stretch."""
        z, known = self.scaling(values)
        y, carried = self.body.stretch(features(z, known), state[:, : self.carried])
        last = state[:, self.carried : self.carried + self.channels]
        lasts, ages = held(z, known, last, state[:, -self.channels :], self.limit)
        raw = self.head(before(state[:, : self.hidden], y)).view(values.shape[0], -1, self.channels, 3)
        after = torch.cat([carried, lasts[:, -1], ages[:, -1]], 1)
        return ordered(raw) + before(last, lasts).unsqueeze(-1), after

    def scaled(self, window: Tensor) -> Tensor:
        return self.over(window, torch.zeros(window.shape[0], self.state, device=window.device))[0][:, -1]

    @torch.jit.export
    def step(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # [B, C], [B, state]
        c = self.channels
        last, age = state[:, -2 * c : -c], state[:, -c:]
        raw = self.head(state[:, : self.hidden].contiguous()).view(-1, c, 3)
        given = self.judged(values, ordered(raw) + last[:, :, None])
        z, known = self.scaling(values)
        _, carried = self.body.step(torch.cat([z.clamp(-30.0, 30.0), known], 1), state[:, : self.carried])
        last, age = followed(z, known, last, age, self.limit)
        return given, torch.cat([carried, last, age], 1)

    def outputs(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The task's outputs for each step, [B * T, …], and the state after the stretch."""
        predicted, after = self.over(values, state)
        return self.judged(values.flatten(0, 1), predicted.flatten(0, 1)), after

    def loss_over(self, values: Tensor, _target: Tensor, counts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """counts: [B, T], 1 where a step's error counts -> the loss, and the state after the stretch."""
        predicted, after = self.over(values, state)
        z, known = self.scaling(values)
        return pinball(predicted, z, known * counts[..., None], self.levels), after

    def fit_usual(self, given: dict[str, Tensor]) -> None:
        """given: outputs of normal running that was not trained on: the usual size of each channel's residual."""
        self.usual = self.usual * (given["contribution"].mean(0) * self.channels).sqrt()
        self.usual = self.usual.clamp(min=1e-3)


class StatefulForecaster(Forecaster):
    """What follows each step."""

    def __init__(
        self, family: str, hidden: int, mean: Tensor, scale: Tensor, horizon: int,
        targets: tuple[Tensor, Tensor] | None, length: int,
    ) -> None:  # fmt: skip
        """As Forecaster, and length as StatefulDetector."""
        super().__init__(family, hidden, mean, scale, horizon, targets)
        self.inputs = len(mean)
        self.body = CARRIED[family](2 * self.inputs, hidden)
        self.limit, self.carried = length, self.body.carried
        self.state = self.carried + 2 * self.inputs

    def over(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, H, C_targets, Q] in units of the targets' scale, as trained, and the state after the stretch."""
        c = self.inputs
        z, known = self.scaling(values)
        y, carried = self.body.stretch(features(z, known), state[:, : self.carried])
        lasts, ages = held(z, known, state[:, -2 * c : -c], state[:, -c:], self.limit)
        raw = self.head(y).view(values.shape[0], -1, self.horizon, self.channels, self.levels.shape[0])
        raw = ordered(raw)
        if self.own:
            raw = raw + lasts[:, :, None, :, None]
        return raw, torch.cat([carried, lasts[:, -1], ages[:, -1]], 1)

    def scaled(self, window: Tensor) -> Tensor:
        return self.over(window, torch.zeros(window.shape[0], self.state, device=window.device))[0][:, -1]

    @torch.jit.export
    def step(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # [B, C], [B, state]
        c = self.inputs
        z, known = self.scaling(values)
        y, carried = self.body.step(torch.cat([z.clamp(-30.0, 30.0), known], 1), state[:, : self.carried])
        last, age = followed(z, known, state[:, -2 * c : -c], state[:, -c:], self.limit)
        raw = ordered(self.head(y).view(-1, self.horizon, self.channels, self.levels.shape[0]))
        if self.own:
            raw = raw + last[:, None, :, None]
        return self.stretched(raw), torch.cat([carried, last, age], 1)

    def outputs(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As StatefulDetector's; beside `forecast` what it is before it is stretched, as `scaled`."""
        q, after = self.over(values, state)
        q = q.flatten(0, 1)
        return self.stretched(q) | {"scaled": q}, after

    def loss_over(self, values: Tensor, target: Tensor, counts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As StatefulDetector's; target: [B, T, H, C_targets] raw, NaN where missing."""
        q, after = self.over(values, state)
        some = counts.flatten() > 0
        return self.missed(q.flatten(0, 1)[some], target.flatten(0, 1)[some]), after


class StatefulClassifier(nn.Module):
    """Which class each step belongs to, by all steps so far."""

    def __init__(self, family: str, hidden: int, mean: Tensor, scale: Tensor, classes: int) -> None:
        super().__init__()
        self.scaling = Scaling(mean, scale)
        self.body = CARRIED[family](2 * len(mean), hidden)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(hidden, classes)
        self.state = self.body.carried

    def over(self, values: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, T, K], and the state after the stretch."""
        z, known = self.scaling(values)
        y, after = self.body.stretch(features(z, known), state)
        return self.head(self.drop(y)), after

    def forward(self, window: Tensor) -> dict[str, Tensor]:
        logits, _ = self.over(window, torch.zeros(window.shape[0], self.state, device=window.device))
        return {"probability": torch.softmax(logits[:, -1], 1)}

    @torch.jit.export
    def step(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:  # [B, C], [B, state]
        z, known = self.scaling(values)
        y, after = self.body.step(torch.cat([z.clamp(-30.0, 30.0), known], 1), state)
        return {"probability": torch.softmax(self.head(y), 1)}, after

    def outputs(self, values: Tensor, state: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """As StatefulDetector's."""
        logits, after = self.over(values, state)
        return {"probability": torch.softmax(logits.flatten(0, 1), 1)}, after

    def loss_over(self, values: Tensor, target: Tensor, counts: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As StatefulDetector's; target: int64 [B, T], the class, -1 where none is known."""
        logits, after = self.over(values, state)
        some = (counts.flatten() > 0) & (target.flatten() >= 0)
        wanted = target.flatten()[some]
        total = nn.functional.cross_entropy(
            logits.flatten(0, 1)[some], wanted, label_smoothing=SMOOTHING, reduction="sum"
        )
        return total / max(1, len(wanted)), after
