"""GRU: the last state of one recurrent layer (Cho et al., Learning Phrase Representations, 2014).

[B, T, F] in, [B, D] out.
"""

from torch import Tensor, nn


class Gru(nn.Module):
    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.GRU(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:  # [B, T, F]
        states, _ = self.layer(x)  # [B, T, D]
        return states[:, -1]  # [B, D]
