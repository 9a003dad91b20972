"""HYDRA: groups of random convolution kernels that compete; how often each wins is what a linear layer learns from.

At each step the kernel of its group with the largest answer wins, and the one with the smallest loses; kept are the sum
of each kernel's winning answers and the share of steps in which it lost, of the values and of their steps (Dempster,
Schmidt & Webb, HYDRA: competing convolutional kernels, 2023). Each window is seen as three overlapping parts, whose
features are averaged; the layer on top learns from the parts, so that few examples become three times as many. Never
trained, for few examples. [B, T, F] in, [B, D] out, D / 16 groups.
"""

import torch
from torch import Tensor, nn

KERNEL = 9
GROUP = 8
DILATIONS = (1, 2, 4, 8, 16, 32)
PART = 6  # tenths of a window, that each part is long
PARTS = 3


class Hydra(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        groups = -(-hidden // (2 * GROUP))
        ways = 2 * len(DILATIONS)  # values and their steps take turns
        self.hidden, self.group, self.parts, self.part = hidden, GROUP, PARTS, PART
        self.dilations: list[int] = [DILATIONS[i // 2] for i in range(min(ways, groups))]
        self.sizes: list[int] = [GROUP * len(range(i, groups, ways)) for i in range(min(ways, groups))]
        values = max(1, inputs // 2)  # the other half says what is known
        kernels = GROUP * groups
        weights = torch.randn(kernels, values, KERNEL)
        keep = (torch.rand(kernels, values, 1) < 0.6).float()
        keep[torch.arange(kernels), torch.randint(0, values, (kernels,))] = 1.0
        weights = (weights - weights.mean(2, keepdim=True)) * keep
        self.values = values
        self.register_buffer("weights", weights / weights.flatten(1).norm(1, dim=1)[:, None, None])
        self.register_buffer("centre", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))

    def pooled(self, x: Tensor) -> Tensor:
        """[B, T, F] -> [B, D], not scaled."""
        values = x[:, :, : self.values].transpose(1, 2)
        steps = torch.cat([torch.zeros_like(values[:, :, :1]), values[:, :, 1:] - values[:, :, :-1]], 2)
        found: list[Tensor] = []
        begin = 0
        for i, (dilation, size) in enumerate(zip(self.dilations, self.sizes)):  # noqa: B905  # TorchScript knows no strict
            weight = self.weights[begin : begin + size]
            begin += size
            y = torch.conv1d(steps if i % 2 else values, weight, None, [1], [4 * dilation], [dilation])
            y = y.reshape(y.shape[0], size // self.group, self.group, y.shape[2])
            most, winner = y.max(2)
            least, loser = y.min(2)
            won = torch.zeros_like(y[:, :, :, 0]).scatter_add(2, winner, torch.relu(most))
            lost = torch.zeros_like(y[:, :, :, 0]).scatter_add(2, loser, torch.ones_like(least))
            found.append(torch.sqrt(won / y.shape[3]).flatten(1))
            found.append(torch.sqrt(lost / y.shape[3]).flatten(1))
        return torch.cat(found, 1)[:, : self.hidden]

    def views(self, x: Tensor) -> Tensor:
        """[B, T, F] -> [B, parts, D]."""
        length = max(1, self.part * x.shape[1] // 10)
        found: list[Tensor] = []
        for i in range(self.parts):
            begin = (x.shape[1] - length) * i // (self.parts - 1)
            found.append((self.pooled(x[:, begin : begin + length]) - self.centre) / self.spread)
        return torch.stack(found, 1)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        return self.views(x).mean(1)  # [B, D]

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """x: [N, T, F] of training, from which the features get their scale."""
        self.centre, self.spread = torch.zeros_like(self.centre), torch.ones_like(self.spread)
        found = torch.cat([self.views(part).flatten(0, 1) for part in x.split(16)])
        self.centre, self.spread = found.mean(0), found.std(0) + 1e-3
