"""TCN: causal dilated convolutions with skips; the receptive field doubles each layer.

[B, T, F] in, [B, D] out. Bai, Kolter & Koltun, An Empirical Evaluation of Generic Convolutional and Recurrent Networks
for Sequence Modeling, 2018.
"""

import torch
from torch import Tensor, nn

LAYERS = 5  # with kernel 3: 63 steps


class Layer(nn.Module):
    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)  # only the past is seen
        self.conv = nn.Conv1d(hidden, hidden, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T]
        return x + torch.relu(self.conv(self.pad(x)))  # [B, D, T]


class Tcn(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, hidden, 1)
        self.layers = nn.Sequential(*[Layer(hidden, 2**i) for i in range(LAYERS)])

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        y = self.layers(self.enter(x.transpose(1, 2)))  # [B, D, T]
        return y[:, :, -1]  # [B, D]
