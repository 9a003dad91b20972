"""One flat loop: batches in, the module with the smallest validation loss out. The same seed gives the same module."""

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

Part = tuple[NDArray[np.float32], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Plan:
    """epochs: at most; patience: epochs without a smaller validation loss that end the training; minutes: at most
    (then the result depends on the machine)."""

    epochs: int = 60
    batch: int = 64
    rate: float = 2e-3
    patience: int = 8
    minutes: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trained:
    """epochs: that ran; loss: the smallest validation loss; seconds: wall time."""

    epochs: int
    loss: float
    seconds: float


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    module: nn.Module,
    train_part: Part,
    validation: Part,
    plan: Plan,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Trained:
    """Trains in place. augment: changes a batch of windows [B, T, C] before it is learned from."""
    torch.manual_seed(plan.seed)
    shuffle = torch.Generator().manual_seed(plan.seed)
    place = device()
    module.to(place).train()
    windows, targets = (torch.from_numpy(np.asarray(a)) for a in train_part)
    optimiser = torch.optim.AdamW(module.parameters(), plan.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs, plan.rate / 50)
    best, best_loss, since, epoch = copy.deepcopy(module.state_dict()), float("inf"), 0, 0
    begun = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("training", total=plan.epochs, unit="epochs", loss=float("nan"))
        for epoch in range(1, plan.epochs + 1):  # noqa: B007  # told at the end
            for rows in torch.randperm(len(windows), generator=shuffle).split(plan.batch):
                batch = windows[rows]
                if augment is not None:
                    batch = augment(batch, shuffle)
                optimiser.zero_grad()
                loss = module.loss(batch.to(place), targets[rows].to(place))
                loss.backward()
                nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                optimiser.step()
            schedule.step()
            value = validation_loss(module, validation)
            progress.update(task, advance=1, loss=value)
            if value < best_loss:
                best, best_loss, since = copy.deepcopy(module.state_dict()), value, 0
            else:
                since += 1
            if since >= plan.patience or (plan.minutes and time.monotonic() - begun > 60 * plan.minutes):
                break
    module.load_state_dict(best)
    module.to("cpu").eval()
    return Trained(epoch, best_loss, time.monotonic() - begun)


@torch.no_grad()
def validation_loss(module: nn.Module, part: Part, batch: int = 512) -> float:
    """Mean loss over the part, the module in evaluation mode."""
    place = device()
    module.eval()
    total = 0.0
    for begin in range(0, len(part[0]), batch):
        windows, targets = (torch.from_numpy(np.asarray(a[begin : begin + batch])).to(place) for a in part)
        total += float(module.loss(windows, targets)) * len(windows)
    module.train()
    return total / max(1, len(part[0]))


def progress_bar() -> Progress:
    """A progress bar on a terminal, nothing in a pipe. Fields of its tasks: unit, loss."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[unit]}, validation loss {task.fields[loss]:.4g}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
