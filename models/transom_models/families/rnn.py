"""RNN: the last state of one recurrent layer (Elman, Finding Structure in Time, 1990).

[B, T, F] in, [B, D] out.
"""

from torch import Tensor, nn


class Rnn(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.RNN(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        states, _ = self.layer(x)  # [B, T, D]
        return states[:, -1]  # [B, D]
