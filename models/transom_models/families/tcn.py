"""TCN: causal dilated convolutions with skips; the receptive field doubles each layer.

[B, T, F] in, [B, D] out. Bai, Kolter & Koltun, An Empirical Evaluation of Generic Convolutional and Recurrent Networks
for Sequence Modeling, 2018.
"""

import torch
from torch import Tensor, nn

LAYERS = 5
REACH = 1 + sum(2 * 2**i for i in range(LAYERS))  # steps that the last output depends on, with kernel 3: 63


class Layer(nn.Module):
    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.hidden, self.past = hidden, 2 * dilation  # steps that it remembers
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)  # only the past is seen
        self.conv = nn.Conv1d(hidden, hidden, 3, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:  # [B, D, T]
        return x + torch.relu(self.conv(self.pad(x)))  # [B, D, T]

    def step(self, x: Tensor, past: Tensor) -> Tensor:
        """x: [B, D]; past: [B, 2 dilation D], the steps before it, oldest first -> the output [B, D].

        As a matrix and not a convolution: that of a single step gives a row other bits at another place of the batch.
        """
        half = self.hidden * self.past // 2
        taps = torch.cat([past[:, : self.hidden], past[:, half : half + self.hidden], x], 1)
        weight = self.conv.weight.transpose(1, 2).flatten(1)  # [D, 3 D]
        return x + torch.relu(torch.nn.functional.linear(taps, weight, self.conv.bias))


class Tcn(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Conv1d(inputs, hidden, 1)
        self.layers = nn.Sequential(*[Layer(hidden, 2**i) for i in range(LAYERS)])
        self.hidden = hidden
        self.carried = hidden * (REACH - 1)  # numbers of a state

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        y = self.layers(self.enter(x.transpose(1, 2)))  # [B, D, T]
        return y[:, :, -1]  # [B, D]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, F]; state: [B, carried] -> what `forward` gives for all steps so far, [B, D], and the state after."""
        y = torch.nn.functional.linear(x, self.enter.weight[:, :, 0], self.enter.bias)
        kept: list[Tensor] = []
        begin = 0
        for layer in self.layers:
            past = state[:, begin : begin + self.hidden * layer.past]
            kept.append(past[:, self.hidden :])
            kept.append(y)
            y = layer.step(y, past)
            begin += self.hidden * layer.past
        return y, torch.cat(kept, 1)
