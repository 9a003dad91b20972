"""FCN: convolutions without pooling between them; of each layer the mean and the largest answer over time are kept.

For classes that show in what happens anywhere in the window, not in when. [B, T, F] in, [B, D] out. Wang, Yan & Oates,
Time Series Classification from Scratch with Deep Neural Networks, 2017; the largest answer and the dilation are ours.
"""

import torch
from torch import Tensor, nn


class Fcn(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, hidden, 1)
        self.second = nn.Conv1d(hidden, hidden, 5, padding=2)
        self.third = nn.Conv1d(hidden, hidden, 5, padding=8, dilation=4)
        self.norms = nn.ModuleList([nn.BatchNorm1d(hidden) for _ in range(3)])
        self.drop = nn.Dropout(0.3)
        self.join = nn.Linear(6 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        a = torch.relu(self.norms[0](self.first(x.transpose(1, 2))))  # [B, D, T]
        b = torch.relu(self.norms[1](self.second(a)))  # [B, D, T]
        c = torch.relu(self.norms[2](self.third(b)))  # [B, D, T]
        found = torch.cat([a.mean(2), a.amax(2), b.mean(2), b.amax(2), c.mean(2), c.amax(2)], 1)
        return torch.relu(self.join(self.drop(found)))  # [B, D]
