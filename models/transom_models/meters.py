"""Appliances of the ACS-F1 database as the UEA archive publishes them (ACSF1): cases come in, watts go out.

There, readings of a meter take turns in one channel (reactive power, power, voltage and current), and each case is
standardised by itself. The voltage of the mains is known, so both can be undone: current is near nothing in the
numbers' units, the voltage is `mains`, and power lies on the same scale.
"""

import numpy as np
from numpy.typing import NDArray

from transom.errors import RecordingError

TURNS = 4
POWER, VOLTAGE, CURRENT = 1, 2, 3


def watts(cases: NDArray[np.float32], mains: float, place: str) -> NDArray[np.float32]:
    """cases: float32 [N, T, 1] -> float32 [N, T / 4, 1], the power in W, a reading every 10 s. mains: V.

    Raises RecordingError where the third reading of each four is not steadily the largest, as a voltage is.
    """
    steps = cases.shape[1] // TURNS
    if cases.shape[2] != 1 or not steps:
        raise RecordingError(place, f"has the shape {cases.shape}", "data.mains is for cases of ACSF1")
    q = cases[:, : steps * TURNS, 0].astype(np.float64).reshape(len(cases), steps, TURNS)
    volts, nothing = np.median(q[:, :, VOLTAGE], 1), q[:, :, CURRENT].min(1)
    if not (volts > nothing).all():
        raise RecordingError(place, "holds no voltage at each third of four", "data.mains is for cases of ACSF1")
    power = (q[:, :, POWER] - nothing[:, None]) * (mains / (volts - nothing))[:, None]
    return np.maximum(power, 0.0).astype(np.float32)[:, :, None]
