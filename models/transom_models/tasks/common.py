"""What all tasks share: scaling inside the graph, missing values understood, quantiles that do not cross.

Tensors in, tensors out; nothing here reads data.
"""

import torch
from torch import Tensor, nn

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


class Scaling(nn.Module):
    """mean, scale: [C] of the training data. A missing value becomes 0, and a second feature says so."""

    def __init__(self, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:  # [B, T, C]
        known = torch.isfinite(window)
        z = torch.where(known, (window - self.mean) / self.scale, torch.zeros_like(window))
        return z.clamp(-1e9, 1e9), known.to(torch.float32)  # [B, T, C] twice


def features(z: Tensor, known: Tensor) -> Tensor:
    """[B, T, C] twice -> [B, T, 2 C]; far outliers are cut, so that nothing overflows inside the network."""
    return torch.cat([z.clamp(-30.0, 30.0), known], 2)


def ordered(raw: Tensor) -> Tensor:
    """[..., Q] any numbers -> [..., Q] that do not fall: the middle one, and steps away from it that are positive."""
    middle = raw.shape[-1] // 2
    up = torch.nn.functional.softplus(raw[..., middle + 1 :]).cumsum(-1)
    down = torch.nn.functional.softplus(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
    centre = raw[..., middle : middle + 1]
    return torch.cat([centre - down, centre, centre + up], -1)


def rising(x: Tensor) -> Tensor:
    """[..., Q] -> the largest so far: `cummax`, which ONNX lacks, for up to 8 numbers."""
    for shift in (1, 2, 4):
        x = torch.maximum(x, torch.cat([x[..., :shift], x[..., :-shift]], -1))
    return x


def pinball(predicted: Tensor, target: Tensor, known: Tensor, levels: Tensor) -> Tensor:
    """Quantile loss (Koenker & Bassett 1978): predicted [..., Q], target and known [...] -> scalar."""
    error = target.unsqueeze(-1) - predicted
    each = torch.maximum(levels * error, (levels - 1) * error).sum(-1)
    return (each * known).sum() / known.sum().clamp(min=1.0)


def last_known(z: Tensor, known: Tensor) -> Tensor:
    """[B, T, C] -> [B, C]: each channel's last known value, 0 where there is none."""
    steps = torch.arange(1.0, z.shape[1] + 1, device=z.device)[None, :, None]
    at = (known * steps).amax(1).long()  # [B, C], 0 = none
    padded = torch.cat([torch.zeros_like(z[:, :1]), z], 1)
    return padded.gather(1, at[:, None, :])[:, 0]
