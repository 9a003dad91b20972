"""Training with differential privacy: DP-SGD (Abadi et al., Deep Learning with Differential Privacy, 2016).

The gradient of each unit is clipped to a length, noise is added to their sum, and what that costs is accounted for
(Rényi differential privacy, Mironov 2017). Clipping, noise and accounts are opacus'; the units are ours: windows
overlap, so a reading is in many of them, and an epsilon for a window would say too little. By default a unit is a block
of consecutive steps that no window crosses; then a reading has a part in the gradient of one unit only.

What the weights are trained on is protected; what is measured beside is not: see `budget.UNPROTECTED`.
"""

import secrets
import time
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from transom.core.model import Privacy
from transom.errors import ModelError
from transom_models.budget import Budget
from transom_models.training import Part, Plan, Trained, progress_bar, validation_loss

FEWEST = 20  # units; with fewer the noise drowns whatever they have in common


def units(windows: NDArray[np.float32], block: int | None, reach: int) -> list[NDArray[np.int64]]:
    """The windows of each unit, as rows of `windows` [N, T, C].

    block: steps of a block, None for a unit a window; reach: rows that a window and its target span. A window that
    crosses the border of a block is in none. Windows follow each other by one row where they share all others; where
    they do not, a new run begins.
    """
    if block is None:
        return [np.array([i]) for i in range(len(windows))]
    follows = np.zeros(len(windows), bool)
    for begin in range(1, len(windows), 4096):
        now, before = windows[begin : begin + 4096, :-1], windows[begin - 1 : begin + 4095, 1:][: len(windows) - begin]
        follows[begin : begin + 4096] = ((now == before) | (np.isnan(now) & np.isnan(before))).all((1, 2))
    run = np.cumsum(~follows) - 1
    first = np.flatnonzero(~follows)
    at = np.arange(len(windows)) - first[run]  # row of the run at which each window begins
    inside = at % block + reach <= block
    key = run * (1 + at.max(initial=0) // block) + at // block
    return [np.flatnonzero(inside & (key == k)) for k in np.unique(key[inside])]


def learn(
    module: nn.Module, train_part: Part, validation: Part, plan: Plan, budget: Budget, reach: int,
    chance: int | None = None,
) -> tuple[Trained, Privacy]:  # fmt: skip
    """Trains in place; every epoch counts, for to choose one by its loss would be another look at the data. reach: rows
    that a window and its target span; chance: a seed of sampling and noise, None for the system's randomness. Raises
    ModelError."""
    from opacus.optimizers import DPOptimizer

    _refuse(module)
    block = None if budget.unit == "window" else budget.steps or 2 * reach
    if block is not None and block < reach:
        raise ModelError("--block", f"{block} steps hold no window", f"a window and its target span {reach}")
    groups = units(train_part[0], block, reach)
    count = len(groups)
    unit = "window" if block is None else f"block of {block} steps"
    if count < FEWEST:
        raise ModelError("--private", f"there are {count} units ({unit})", f"{FEWEST} or more: shorter or more data")
    delta = min(1e-4, float(f"{0.1 / count:.2g}")) if budget.delta is None else budget.delta
    if delta * count >= 1:
        raise ModelError("--delta", f"{delta:g} for {count} units protects nobody", f"less than {1 / count:.2g}")
    batch = max(8, min(64, count // 10))
    rate = batch / count
    steps = max(1, round(plan.epochs / rate))
    noise = noise_for(budget.epsilon, delta, rate, steps)
    spent = epsilon_of(noise, rate, steps, delta)
    chance = torch.Generator().manual_seed(secrets.randbits(63) if chance is None else chance)
    torch.manual_seed(plan.seed)
    module.train()
    parameters = [p for p in module.parameters() if p.requires_grad]
    plain = torch.optim.AdamW(parameters, plan.rate, weight_decay=1e-4)
    optimiser = DPOptimizer(
        plain, noise_multiplier=noise, max_grad_norm=budget.clip, expected_batch_size=batch, generator=chance
    )  # fmt: skip
    windows, targets = (torch.from_numpy(np.asarray(a)) for a in train_part)
    begun = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("training", total=steps, unit="steps", loss=float("nan"))
        for step in range(steps):
            # Poisson sampling, as the accounts suppose: each unit by itself, so that a step may have none.
            chosen = torch.nonzero(torch.rand(count, generator=chance) < rate).flatten().tolist()
            _gradients(module, parameters, [groups[i] for i in chosen], windows, targets)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if step % max(1, steps // 20) == 0:
                progress.update(task, loss=validation_loss(module, validation))
            progress.advance(task)
    for parameter in parameters:
        for name in ("grad_sample", "summed_grad"):
            if hasattr(parameter, name):
                delattr(parameter, name)
    loss = validation_loss(module, validation)
    module.eval()
    privacy = Privacy(float(f"{spent:.4g}"), delta, unit, noise=float(f"{noise:.4g}"), clip=budget.clip)
    return Trained(plan.epochs, loss, time.monotonic() - begun), privacy


def _gradients(
    module: Any, parameters: list[nn.Parameter], chosen: list[NDArray[np.int64]], windows: Tensor, targets: Tensor
) -> None:
    """Sets each parameter's `grad_sample` [G, …]: the gradient of each unit's mean loss. Unit by unit, so that every
    layer will do, and a model is trained in the very form in which it is written."""
    each: list[tuple[Tensor, ...]] = []
    for rows in chosen:
        at = torch.from_numpy(rows)
        loss = module.loss(windows[at], targets[at])
        each.append(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
    for i, parameter in enumerate(parameters):
        found = [one[i] for one in each]
        parameter.grad_sample = (  # type: ignore[attr-defined]  # where opacus looks for it
            torch.stack(found) if found else torch.zeros((0, *parameter.shape))
        )


def epsilon_of(noise: float, rate: float, steps: int, delta: float) -> float:
    """What so many steps with this noise cost. noise: in units of the clipped length; rate: a unit's chance to be in a
    step."""
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a wider search for orders might find a smaller bound
        return float(accountant.get_epsilon(delta))


def noise_for(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The least noise that keeps so many steps within the budget."""
    from opacus.accountants.utils import get_noise_multiplier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(get_noise_multiplier(
            target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant="rdp"
        ))  # fmt: skip


def _refuse(module: nn.Module) -> None:
    """What would carry readings past the noise. Raises ModelError."""
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        raise ModelError(
            "--family", "learns the mean of its batches too, which has no noise", "choose lstm, gru or tcn"
        )
    if not any(p.requires_grad for p in module.parameters()):
        raise ModelError("--private", "nothing of this model is trained by gradients", "choose lstm, gru, cnn or tcn")
