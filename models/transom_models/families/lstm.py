"""LSTM: the last state of one recurrent layer (Hochreiter & Schmidhuber, Long Short-Term Memory, 1997).

[B, T, F] in, [B, D] out.
"""

from torch import Tensor, nn


class Lstm(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        states, _ = self.layer(x)  # [B, T, D]
        return states[:, -1]  # [B, D]
