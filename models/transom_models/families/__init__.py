"""One small file a family. Each module maps [B, T, F] to [B, D], scripts, and takes any batch size.

FAMILIES: the class by the name that `transom train --family` takes; `(inputs: F, hidden: D)` makes one. The first half
of F are values, 0 where missing, the second half say what is known (1) and what is missing (0).
"""

from torch import nn

from transom_models.families.bins import Bins
from transom_models.families.cnn import Cnn
from transom_models.families.fcn import Fcn
from transom_models.families.gru import Gru
from transom_models.families.hydra import Hydra
from transom_models.families.lstm import Lstm
from transom_models.families.rnn import Rnn
from transom_models.families.rocket import Rocket
from transom_models.families.scales import Scales
from transom_models.families.tcn import Tcn

FAMILIES: dict[str, type[nn.Module]] = {
    "lstm": Lstm, "gru": Gru, "rnn": Rnn, "cnn": Cnn, "tcn": Tcn, "fcn": Fcn, "scales": Scales, "rocket": Rocket,
    "bins": Bins, "hydra": Hydra,
}  # fmt: skip
