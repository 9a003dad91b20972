"""CNN: three convolutions with pooling between them, then the mean and the last of what is left over time.

[B, T, F] in, [B, D] out. LeCun & Bengio, Convolutional Networks for Images, Speech and Time Series, 1995.
"""

import torch
from torch import Tensor, nn


class Cnn(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(inputs, hidden, 5, padding=2)
        self.second = nn.Conv1d(hidden, hidden, 5, padding=2)
        self.third = nn.Conv1d(hidden, hidden, 3, padding=1)
        self.pool = nn.MaxPool1d(2, ceil_mode=True)
        self.join = nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        y = x.transpose(1, 2)  # [B, F, T]
        y = self.pool(torch.relu(self.first(y)))  # [B, D, T/2]
        y = self.pool(torch.relu(self.second(y)))  # [B, D, T/4]
        y = torch.relu(self.third(y))  # [B, D, T/4]
        return torch.relu(self.join(torch.cat([y.mean(2), y[:, :, -1]], 1)))  # [B, D]
