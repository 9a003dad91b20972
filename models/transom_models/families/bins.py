"""BINS: a CNN that keeps the place in the window: one convolution, means over bins of time, and a layer over them.

For windows that always span the same time, such as two days, in which the place says the hour.

[B, T, F] in, [B, D] out.
"""

import torch
from torch import Tensor, nn

BINS = 48
FILTERS = 8


class Bins(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.bins = BINS
        self.near = nn.Conv1d(inputs, FILTERS, 3, padding=1)
        self.join = nn.Linear(FILTERS * BINS, hidden)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        y = torch.relu(self.near(x.transpose(1, 2)))  # [B, FILTERS, T]
        steps = torch.arange(x.shape[1], device=x.device)
        place = torch.div(steps * self.bins, x.shape[1], rounding_mode="floor")  # the bin of each step
        inside = (place[:, None] == torch.arange(self.bins, device=x.device)[None, :]).to(x.dtype)  # [T, BINS]
        y = torch.matmul(y, inside / inside.sum(0, keepdim=True).clamp(min=1.0))  # [B, FILTERS, BINS]
        return torch.relu(self.join(y.flatten(1)))  # [B, D]
