"""Recurrent families whose state goes on: whole stretches for training, one step at a time afterwards.

CARRIED: the class by the name that `transom train --family` takes. The state [B, carried] begins with the output, and
is nothing but zeros before the first step. `stretch` and `step` give the same numbers; a step is written out, because
torch's layers spend some 100 µs of their own on each call. The equations, and how weights begin, are those of torch's.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

MOST = 1000.0  # of an LSTM's cell: gates that are saturated would let it grow by one a step for ever


class Cell(nn.Module):
    """Weights of one layer, in torch's order of the gates."""

    def __init__(self, inputs: int, hidden: int, gates: int, carried: int) -> None:
        super().__init__()
        self.hidden, self.carried = hidden, carried
        shapes = {"weight_x": (inputs,), "weight_h": (hidden,), "bias_x": (), "bias_h": ()}
        for name, shape in shapes.items():
            values = torch.empty(gates * hidden, *shape).uniform_(-(hidden**-0.5), hidden**-0.5)
            self.register_parameter(name, nn.Parameter(values))


class Lstm(Cell):
    """Hochreiter & Schmidhuber, Long Short-Term Memory, 1997. The state: output, then cell."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 4, 2 * hidden)
        self.most = MOST

    def stretch(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, T, F]; state: [B, carried] -> outputs [B, T, D], and the state after them."""
        h, c = state[:, : self.hidden].contiguous(), state[:, self.hidden :].contiguous()
        weights = [self.weight_x, self.weight_h, self.bias_x, self.bias_h]
        outputs, h, c = torch.lstm(x, [h[None], c[None]], weights, True, 1, 0.0, False, False, True)
        return outputs, torch.cat([h[0], c[0].clamp(-self.most, self.most)], 1)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x: [B, F]; state: [B, carried] -> the output [B, D], and the state after it."""
        d = self.hidden
        weight = torch.cat([self.weight_x, self.weight_h], 1)
        raw = linear(torch.cat([x, state[:, :d]], 1), weight, self.bias_x + self.bias_h)
        gate = torch.sigmoid(raw)  # input, forget, (cell), output: one call for all is quicker than three
        c = gate[:, d : 2 * d] * state[:, d:] + gate[:, :d] * torch.tanh(raw[:, 2 * d : 3 * d])
        c = c.clamp(-self.most, self.most)
        h = gate[:, 3 * d :] * torch.tanh(c)
        return h, torch.cat([h, c], 1)


class Gru(Cell):
    """Cho et al., Learning Phrase Representations, 2014. The state: the output."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 3, hidden)

    def stretch(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As the LSTM's."""
        weights = [self.weight_x, self.weight_h, self.bias_x, self.bias_h]
        outputs, h = torch.gru(x, state.contiguous()[None], weights, True, 1, 0.0, False, False, True)
        return outputs, h[0]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As the LSTM's."""
        d = self.hidden
        new, old = linear(x, self.weight_x, self.bias_x), linear(state, self.weight_h, self.bias_h)
        gate = torch.sigmoid(new[:, : 2 * d] + old[:, : 2 * d])  # reset, update
        candidate = torch.tanh(new[:, 2 * d :] + gate[:, :d] * old[:, 2 * d :])
        h = candidate + gate[:, d:] * (state - candidate)
        return h, h


class Rnn(Cell):
    """Elman, Finding Structure in Time, 1990. The state: the output."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__(inputs, hidden, 1, hidden)

    def stretch(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As the LSTM's."""
        weights = [self.weight_x, self.weight_h, self.bias_x, self.bias_h]
        outputs, h = torch.rnn_tanh(x, state.contiguous()[None], weights, True, 1, 0.0, False, False, True)
        return outputs, h[0]

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """As the LSTM's."""
        weight = torch.cat([self.weight_x, self.weight_h], 1)
        h = torch.tanh(linear(torch.cat([x, state], 1), weight, self.bias_x + self.bias_h))
        return h, h


CARRIED: dict[str, type[nn.Module]] = {"lstm": Lstm, "gru": Gru, "rnn": Rnn}
