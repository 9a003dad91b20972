"""ROCKET: many random convolution kernels that are never trained; a linear layer on what they find is the model.

Each kernel has 9 weights, a random dilation, a random choice of features and its own bias; of its answer over time
the largest value, the mean above the bias and the share above it are kept (Dempster, Petitjean & Webb, ROCKET, 2020).
For few examples. [B, T, F] in, [B, D] out, D / 3 kernels.
"""

import torch
from torch import Tensor, nn

KERNEL = 9
DILATIONS = (1, 2, 4, 8, 16, 32, 64)
EDGE = 0.1  # an answer so near its bias counts in part, or rounding would decide: another in each runtime


class Rocket(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        kernels = -(-hidden // 3)
        self.hidden, groups = hidden, min(len(DILATIONS), kernels)
        self.dilations: list[int] = list(DILATIONS[:groups])
        self.sizes: list[int] = [len(range(i, kernels, groups)) for i in range(groups)]
        values = max(1, inputs // 2)  # the other half says what is known
        weights = torch.randn(kernels, values, KERNEL)
        keep = (torch.rand(kernels, values, 1) < 0.5).float()
        keep[torch.arange(kernels), torch.randint(0, values, (kernels,))] = 1.0
        weights = (weights - weights.mean(2, keepdim=True)) * keep
        self.values, self.edge = values, EDGE
        self.register_buffer("weights", weights / weights.flatten(1).norm(dim=1)[:, None, None])
        self.register_buffer("bias", torch.zeros(kernels))
        self.register_buffer("centre", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))

    def answers(self, x: Tensor) -> list[Tensor]:
        """[B, T, F] -> for each dilation [B, its kernels, T]."""
        y = x[:, :, : self.values].transpose(1, 2)
        found: list[Tensor] = []
        begin = 0
        for dilation, size in zip(self.dilations, self.sizes):  # noqa: B905  # TorchScript knows no strict
            weight = self.weights[begin : begin + size]
            found.append(torch.conv1d(y, weight, None, [1], [4 * dilation], [dilation]))
            begin += size
        return found

    def pooled(self, x: Tensor) -> Tensor:
        y = torch.cat(self.answers(x), 1)  # [B, kernels, T]
        over = y - self.bias[None, :, None]
        share = (over / self.edge + 0.5).clamp(0.0, 1.0)
        return torch.cat([y.amax(2), torch.relu(over).mean(2), share.mean(2)], 1)[:, : self.hidden]

    def views(self, x: Tensor) -> Tensor:
        """[B, T, F] -> [B, 1, D]: what the layer on top learns from."""
        return self.forward(x)[:, None]

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        return (self.pooled(x) - self.centre) / self.spread  # [B, D]

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        """x: [N, T, F] of training: each bias becomes a random quantile of its kernel's answers; scales features."""
        biases: list[Tensor] = []
        for y in self.answers(x):
            rows = torch.randint(0, len(y), (y.shape[1],))
            levels = 0.1 + 0.8 * torch.rand(y.shape[1])
            biases += [torch.quantile(y[rows[k], k], levels[k]) for k in range(y.shape[1])]
        self.bias = torch.stack(biases)
        found = self.pooled(x)
        self.centre, self.spread = found.mean(0), found.std(0).clamp(min=1e-3)
