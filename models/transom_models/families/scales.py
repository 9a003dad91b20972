"""SCALES: a CNN whose kernels over time are falling exponentials of learned lengths, from a few steps to the window's.

Each feature is seen as means over the recent and the distant past; two layers join them. For slow changes under noise
(wear, drift), where a mean over many steps says more than any pattern. The time left out of a window by a series that
has only begun stays visible, because what is missing is a feature too.

[B, T, F] in, [B, D] out. Kernels as in Bai, Kolter & Koltun's causal convolutions, parametrised by one number each.
"""

import math

import torch
from torch import Tensor, nn

SCALES = 5
SHORTEST = 2.0  # steps; the longest is 100


class Scales(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        lengths = torch.linspace(math.log(SHORTEST), math.log(100.0), SCALES)
        self.lengths = nn.Parameter(lengths)  # log steps
        self.enter = nn.Linear((SCALES + 1) * inputs, 2 * hidden)
        self.drop = nn.Dropout(0.1)
        self.join = nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        known = x[:, :, x.shape[2] // 2 :]  # [B, T, F / 2]
        z = x[:, :, : x.shape[2] // 2]
        age = torch.arange(x.shape[1] - 1, -1, -1, device=x.device).to(x.dtype)
        kernels = torch.exp(-age[None, :] / self.lengths.exp()[:, None])  # [S, T]
        total = torch.einsum("st,btf->bsf", kernels, z)  # what is missing is 0
        weight = torch.einsum("st,btf->bsf", kernels, known)
        means = total / weight.clamp(min=1e-6)  # [B, S, F / 2]
        share = known.mean(1)  # how much of the window is there
        last = weight / kernels.sum(1)[None, :, None]
        y = torch.cat([means.flatten(1), last.flatten(1), share, z[:, -1]], 1)
        y = torch.relu(self.enter(y))  # [B, 2 D]
        return torch.relu(self.join(self.drop(y)))  # [B, D]
