"""Held-out metrics of a trained module: outputs and truth in, a dictionary of figures out."""

import numpy as np
from numpy.typing import NDArray

from transom_models.tasks.path import constant_velocity, distance

Array = NDArray[np.float32]


def forecast(predicted: Array, truth: Array, last: Array | None, scale: Array) -> dict[str, float]:
    """predicted: [N, H, C, Q] (0.1 … 0.9); truth: [N, H, C]; last: [N, C]; scale: [C]. Errors in units of scale.

    naive: the error of repeating the last value, or without one of the truth's own mean; coverage: share of truth
    between the outer quantiles, 0.8 wanted.
    """
    error = (predicted[..., predicted.shape[-1] // 2] - truth) / scale
    naive = ((np.nanmean(truth, axis=0) if last is None else last[:, None]) - truth) / scale
    known = np.isfinite(truth)
    inside = (truth >= predicted[..., 0]) & (truth <= predicted[..., -1])
    return {
        "mse": float(np.nanmean(error**2)),
        "mae": float(np.nanmean(np.abs(error))),
        "mse_naive": float(np.nanmean(naive**2)),
        "coverage": float(inside[known].mean()),
    }


def path(predicted: Array, truth: Array, windows: Array, degrees: bool) -> dict[str, float]:
    """predicted: [N, H, 2, Q]; truth: [N, H, 2]; windows: [N, T, C], positions first. Metres at the horizon's end.

    constant_velocity: the error of going on as in the last steps; coverage: of each of the two by itself.
    """
    horizon, point = truth.shape[1], predicted[..., predicted.shape[-1] // 2]
    error = distance(point, truth, degrees)
    naive = distance(constant_velocity(windows, horizon), truth, degrees)
    known = np.isfinite(truth) & np.isfinite(naive)[..., None]
    inside = (truth >= predicted[..., 0]) & (truth <= predicted[..., -1])
    both = np.isfinite(error[:, -1]) & np.isfinite(naive[:, -1])
    return {
        "metres": float(error[both, -1].mean()),
        "metres_constant_velocity": float(naive[both, -1].mean()),
        "coverage": float(inside[known].mean()),
    }


def anomaly(score: Array, p_threshold_score: float, expected: Array, truth: Array, scale: Array) -> dict[str, float]:
    """score: [N] of held-out normal windows; p_threshold_score: the score that 1 % of the calibration exceeds.

    over_1_percent: share of these windows beyond it, 0.01 wanted; mae: of the expected values, in units of scale.
    """
    return {
        "over_1_percent": float(np.mean(score > p_threshold_score)),
        "score_median": float(np.median(score)),
        "mae": float(np.nanmean(np.abs(expected - truth) / scale)),
    }


def classify(probability: Array, truth: NDArray[np.integer]) -> dict[str, float]:
    """probability: [N, K]; truth: [N]. macro_recall: mean over classes of the share found."""
    guess = probability.argmax(1)
    recalls = [float(np.mean(guess[truth == k] == k)) for k in np.unique(truth)]
    return {"accuracy": float(np.mean(guess == truth)), "macro_recall": float(np.mean(recalls))}
