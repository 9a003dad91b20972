"""Why a model said what it said of one window: what each channel and step added to an output.

A model and a window come in, shares that can be checked come out. Integrated gradients where the model has gradients
(Sundararajan, Taly & Yan, ICML 2017): the way from a reference window x' to the window x is cut into n pieces, and

    share[t, c] = (x - x')[t, c] * mean over k of d f(x' + (k + 1/2) / n (x - x')) / d x[t, c]

so that all shares together are f(x) - f(x') but for what the cutting costs, which `Explanation.gap` tells. Occlusion
where it has none: what f falls by when a stretch of one channel is what the reference says (Zeiler & Fergus 2014).
What is missing in the window is missing all the way, and has no share.
"""

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from transom.core.model import Differentiable, Manifest, Model, Outputs, Target
from transom.errors import TransomError

FEWEST, STEPS, MOST = 16, 32, 64  # pieces of the way
STRETCHES = 16  # of one channel that occlusion replaces one after the other, at most
ROWS = 64  # windows given to the model at a time

Method = Literal["integrated gradients", "occlusion"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """target: what was explained; value, reference_value: float, the output for the window and for the reference;
    window, reference: float32 [T, C], raw units, NaN where missing; share: float64 [T, C], 0 where missing; own: the
    model's own `contribution` [C] where it gives one; pieces: of the way, or windows that occlusion asked for."""

    target: Target
    method: Method
    value: float
    reference_value: float
    window: NDArray[np.float32]
    reference: NDArray[np.float32]
    share: NDArray[np.float64]
    own: NDArray[np.float32] | None
    pieces: int

    @property
    def gap(self) -> float:
        """The sum of all shares less value - reference_value: 0 for gradients over infinitely many pieces."""
        return float(self.share.sum()) - (self.value - self.reference_value)

    @property
    def by_channel(self) -> NDArray[np.float64]:
        """float64 [C]."""
        return np.asarray(self.share.sum(0))

    @property
    def by_step(self) -> NDArray[np.float64]:
        """float64 [T]."""
        return np.asarray(self.share.sum(1))


def choose_target(manifest: Manifest, wanted: str | None, outputs: Outputs) -> Target:
    """What is to be explained. wanted: None for the score, the median forecast of the first target's last step, or the
    likeliest class (outputs: of the window); else a class, or `channel`, `channel@step` (from 1). Raises TransomError.
    """
    m = manifest
    if m.task == "anomaly":
        if wanted not in (None, "score"):
            raise TransomError("target", f"{wanted!r} of {m.label}", "a detector has a score, and nothing else")
        return Target("score", (), "score")
    if m.task == "classify":
        if wanted is None:
            wanted = m.classes[int(np.argmax(outputs["probability"][0]))]
        if wanted not in m.classes:
            raise TransomError("target", f"{m.label} knows no class {wanted!r}", f"it knows {', '.join(m.classes)}")
        return Target("probability", (m.classes.index(wanted),), f"probability of {wanted}")
    names = [c.name for c in m.targets or m.channels]
    name, _, step = (wanted or names[0]).rpartition("@") if "@" in (wanted or "") else (wanted or names[0], "", "")
    if name not in names:
        raise TransomError("target", f"{m.label} forecasts no {name!r}", f"it forecasts {', '.join(names)}")
    try:
        at = int(step) if step else m.horizon
    except ValueError:
        at = 0
    if not 1 <= at <= m.horizon:
        raise TransomError("target", f"step {step!r} of {m.label}", f"choose one from 1 to {m.horizon}")
    middle = int(np.argmin(np.abs(np.asarray(m.quantiles) - 0.5)))
    return Target("forecast", (at - 1, names.index(name), middle), f"{name}, step {at} of {m.horizon}")


def reference(
    manifest: Manifest, window: NDArray[np.float32], ordinary: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], str]:
    """What a window is compared with, float32 [T, C], and what that is in words.

    A detector's window is compared with an ordinary one: a flat line at some mean is itself an anomaly to a detector
    that asks how lively a channel is (docs/explanations.md has figures). Without one the older half of the window, and
    the same mirrored, stands for it. Forecasts and classes are of a window's shape, and compared with having none.
    """
    if manifest.task == "anomaly":
        if ordinary is not None:
            return ordinary, "an ordinary window before it"
        half = window[: -(-len(window) // 2)]
        if (np.isfinite(half).any(0) | ~np.isfinite(window).any(0)).all():
            return np.concatenate([half, half[::-1]])[: len(window)], "its own older half, twice"
    known = np.isfinite(window)
    middle = [np.median(window[there, c]) if there.any() else np.nan for c, there in enumerate(known.T)]
    return np.broadcast_to(np.asarray(middle, np.float32), window.shape).copy(), "each channel at its median"


def explain(
    model: Model, window: NDArray[np.float32], against: NDArray[np.float32], wanted: str | None = None,
    pieces: int = STEPS, method: Method | None = None,
) -> Explanation:  # fmt: skip
    """window: float32 [T, C], NaN where missing; against: float32 [T, C], see `reference`; wanted: see
    `choose_target`; pieces: of the way, 16 to 64; method: None for the best that the model allows. Raises TransomError
    for a target or a method that the model does not have, and what the model raises."""
    outputs = model.infer(window[None].copy())
    target = choose_target(model.manifest, wanted, outputs)
    value = float(target.of(outputs)[0])
    if not np.isfinite(value):
        raise TransomError("window", f"{model.manifest.label} says nothing of it", "too many readings are missing")
    known = np.isfinite(window)
    # The window's gaps are gaps of the reference too; where it has gaps of its own it says what the window does.
    filled = np.where(known & np.isfinite(against), against, window)
    base = float(target.of(model.infer(filled[None].copy()))[0])
    own = outputs["contribution"][0] if "contribution" in outputs else None
    if method != "occlusion" and isinstance(model, Differentiable):
        pieces = min(max(pieces, FEWEST), MOST)
        share = _integrated(model, window, filled, known, target, pieces)
        if share is not None:
            return Explanation(target, "integrated gradients", value, base, window, filled, share, own, pieces)
    if method == "integrated gradients":
        raise TransomError("method", f"{model.manifest.label} gives no gradients here", "use occlusion")
    share, pieces = _occluded(model, window, filled, known, target)
    return Explanation(target, "occlusion", value, base, window, filled, share, own, pieces)


def _integrated(
    model: Differentiable, window: NDArray[np.float32], against: NDArray[np.float32], known: NDArray[np.bool_],
    target: Target, pieces: int,
) -> NDArray[np.float64] | None:  # fmt: skip
    """float64 [T, C]; None where a gradient is no number."""
    at = ((np.arange(pieces) + 0.5) / pieces).astype(np.float32)[:, None, None]
    way = window - against  # NaN where missing
    rows = against + at * way
    slopes = np.concatenate([model.gradients(rows[i : i + ROWS], target) for i in range(0, pieces, ROWS)])
    slope = slopes.astype(np.float64).mean(0)
    if not np.isfinite(slope[known]).all():
        return None
    return np.where(known, slope, 0.0) * np.where(known, way, 0.0)


def _occluded(
    model: Model, window: NDArray[np.float32], against: NDArray[np.float32], known: NDArray[np.bool_], target: Target
) -> tuple[NDArray[np.float64], int]:  # fmt: skip
    """float64 [T, C], each stretch's fall spread over its known steps; and how many windows were asked for."""
    length, channels = window.shape
    bounds = np.unique(np.linspace(0, length, min(STRETCHES, length) + 1).astype(int))
    places = [(c, a, b) for c in range(channels) for a, b in itertools.pairwise(bounds)]
    places = [(c, a, b) for c, a, b in places if known[a:b, c].any()]
    share = np.zeros(window.shape)
    value = float(target.of(model.infer(window[None].copy()))[0])
    for i in range(0, len(places), ROWS):
        some = places[i : i + ROWS]
        rows = np.repeat(window[None], len(some), 0)
        for row, (c, a, b) in zip(rows, some, strict=True):
            row[a:b, c] = against[a:b, c]
        for (c, a, b), without in zip(some, target.of(model.infer(rows)).tolist(), strict=True):
            share[a:b, c] = (value - without) * known[a:b, c] / known[a:b, c].sum()
    return share, len(places)


def stretch(by_step: NDArray[np.float64]) -> tuple[int, int]:
    """[first, last] of the shortest run of steps that holds at least two thirds of what the steps add up to."""
    sums = np.concatenate([[0.0], np.cumsum(by_step)])
    sign = 1.0 if sums[-1] >= 0 else -1.0
    for n in range(1, len(by_step)):
        runs = sign * (sums[n:] - sums[:-n])
        at = int(np.argmax(runs))
        if runs[at] >= 2 / 3 * abs(sums[-1]):
            return at, at + n - 1
    return 0, len(by_step) - 1
