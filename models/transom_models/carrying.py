"""Training with a state that is carried: truncated back-propagation through time (Williams & Peng, An Efficient
Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories, 1990), and what such a model says of
whole stretches.

Stretches in, a trained module and its outputs out. The same seed gives the same module.
"""

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from transom.errors import ModelError
from transom.runtimes import torchscript
from transom_models.export import TOLERANCE, apart, usual
from transom_models.stretches import Lanes, Stretch, lanes
from transom_models.training import Plan, Trained, device, progress_bar

STEPS = 64  # of the optimiser in an epoch, at least: of few rows an epoch is several passes
AT_ONCE = 4096  # rows of a stretch that are gone through in one call
PROVED = 2000  # rows of the proof that the file's steps are what was trained


def train(module: nn.Module, part: Sequence[Stretch], validation: Sequence[Stretch], warm: int, plan: Plan) -> Trained:
    """Trains in place, plan.batch rows at a time in each lane: the state goes on to the next ones, the gradient not.

    warm: rows after the state's beginning that are not learned from.
    """
    torch.manual_seed(plan.seed)
    random = torch.Generator().manual_seed(plan.seed)
    place = device()
    module.to(place).train()
    optimiser = torch.optim.AdamW(module.parameters(), plan.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, plan.epochs, plan.rate / 50)
    best, best_loss, since, epoch = copy.deepcopy(module.state_dict()), float("inf"), 0, 0
    held = lanes(validation, plan.batch, warm)
    begun = time.monotonic()
    with progress_bar() as progress:
        task = progress.add_task("training", total=plan.epochs, unit="epochs", loss=float("nan"))
        for epoch in range(1, plan.epochs + 1):  # noqa: B007  # told at the end
            steps = 0
            while steps < STEPS:
                offset = int(torch.randint(0, plan.batch, (1,), generator=random))
                steps += _pass(module, lanes(part, plan.batch, warm, offset), optimiser)[1]
            schedule.step()
            with torch.no_grad():
                module.eval()
                value, _ = _pass(module, held, None)
                module.train()
            progress.update(task, advance=1, loss=value)
            if value < best_loss:
                best, best_loss, since = copy.deepcopy(module.state_dict()), value, 0
            else:
                since += 1
            if since >= plan.patience:
                break
    module.load_state_dict(best)
    module.to("cpu").eval()
    return Trained(epoch, best_loss, time.monotonic() - begun)


def _pass(module: nn.Module, laid: Lanes, optimiser: torch.optim.Optimizer | None) -> tuple[float, int]:
    """Once through all lanes, learning from them if there is an optimiser: mean loss of the rows that count, and how
    many chunks had some."""
    place = next(module.parameters()).device
    values, target, counts, begins = (
        torch.from_numpy(a).to(place) for a in (laid.values, laid.target, laid.counts, laid.begins)
    )
    state = torch.zeros(len(values), module.state, device=place)
    total, rows, chunks = 0.0, 0.0, 0
    for k in range(values.shape[1]):
        state = torch.where(begins[:, k, None], torch.zeros_like(state), state.detach())
        if not (some := float(counts[:, k].sum())):
            with torch.no_grad():
                _, state = module.loss_over(values[:, k], target[:, k], counts[:, k], state)
            continue
        loss, state = module.loss_over(values[:, k], target[:, k], counts[:, k], state)
        if optimiser is not None:
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
        total, rows, chunks = total + float(loss.detach()) * some, rows + some, chunks + 1
    return total / max(1.0, rows), max(1, chunks)


@torch.no_grad()
def outputs(
    module: nn.Module, part: Sequence[Stretch], warm: int
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.float32], NDArray[np.generic]]:
    """What the module says of each row behind the first `warm` of its stretch of which anything is known, the state
    carried all the way; these rows' values [N, C], and their targets."""
    given: list[dict[str, NDArray[np.float32]]] = []
    values, targets = [], []
    for stretch in part:
        state = torch.zeros(1, module.state)
        told = np.isfinite(stretch.values).any(1) & (np.arange(len(stretch)) >= warm)
        for begin in range(0, len(stretch), AT_ONCE):
            rows = slice(begin, begin + AT_ONCE)
            found, state = module.outputs(torch.from_numpy(stretch.values[None, rows]), state)
            given.append({key: array.numpy()[told[rows]] for key, array in found.items()})
        values.append(stretch.values[told])
        targets.append(stretch.target[told])
    return (
        {key: np.concatenate([g[key] for g in given]) for key in given[0]}, np.concatenate(values),
        np.concatenate(targets),
    )  # fmt: skip


def windows(part: Sequence[Stretch], length: int, most: int = 256) -> NDArray[np.float32]:
    """float32 [N, length, C] of the longest stretch, N at most `most`; what lies before it is missing."""
    longest = max(part, key=len).values[: most + length]
    padded = np.pad(longest, ((length - 1, 0), (0, 0)), constant_values=np.nan)
    view = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)[-most:]
    return np.ascontiguousarray(view.transpose(0, 2, 1))


@torch.no_grad()
def prove(module: nn.Module, path: str, loaded: torchscript.TorchScriptModel, part: Sequence[Stretch]) -> float:
    """The largest difference, as `export.apart` has it, between the file stepped through a stretch, its state carried,
    and the module that was trained. Raises ModelError where it is too large."""
    values = max(part, key=len).values[:PROVED]
    wanted, _ = module.outputs(torch.from_numpy(values[None]), torch.zeros(1, module.state))
    state, given = loaded.start[None], []
    for row in values:
        found, state = loaded.step(row[None], state)
        given.append(found)
    worst = 0.0
    for key in given[0]:
        worst = max(worst, apart(key, np.concatenate([g[key] for g in given]), wanted[key].numpy(), usual(module)))
    if not worst <= TOLERANCE:
        raise ModelError(path, f"stepped through it differs by {worst:.2g} from what was trained", "report this")
    return worst
