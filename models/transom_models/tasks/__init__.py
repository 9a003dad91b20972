"""A family becomes a forecaster, a detector or a classifier: one file a task.

Raw windows [B, T, C] in (NaN where missing), the dictionary that the task promises out, in raw units. Each module also
has `loss(window, target)`, for training. Nothing here reads data.
"""

from transom_models.tasks.anomaly import ReconstructionDetector, ResidualDetector
from transom_models.tasks.classify import Classifier
from transom_models.tasks.common import QUANTILES
from transom_models.tasks.daily import DailyForecaster
from transom_models.tasks.forecast import Forecaster, PeriodicForecaster
from transom_models.tasks.level import LevelDetector
from transom_models.tasks.path import PathForecaster
from transom_models.tasks.switch import SwitchDetector

__all__ = [
    "QUANTILES",
    "Classifier",
    "DailyForecaster",
    "Forecaster",
    "LevelDetector",
    "PathForecaster",
    "PeriodicForecaster",
    "ReconstructionDetector",
    "ResidualDetector",
    "SwitchDetector",
]
