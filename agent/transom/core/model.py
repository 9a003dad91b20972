"""The seam between streams and models: what a model file says of itself, what goes in, what comes out.

Nothing here opens a file or knows a runtime.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import NDArray

Task = Literal["forecast", "anomaly", "classify"]
Aggregate = Literal["last", "mean", "min", "max", "sum", "count"]

ANY = "*"  # a one-channel model whose channel has this name takes any sensor


class Channel(msgspec.Struct, frozen=True):
    """One input of a model: `name` as in the topic or payload, `unit` for people ("°C", or "")."""

    name: str
    unit: str = ""


class CalibrationTable(msgspec.Struct, frozen=True):
    """Scores of held-out normal windows as a table: `p_values[i]` is the share of them with a score >= `scores[i]`.

    scores: ascending; p_values: descending, in (0, 1]. Both have the same length, at least 2. Beyond the last
    entry the tail falls exponentially by `tail_scale` (in units of score): p = p_last * exp(-(s - s_last) / scale).
    """

    scores: tuple[float, ...]
    p_values: tuple[float, ...]
    tail_scale: float


class Reference(msgspec.Struct, frozen=True):
    """Where the channels of normal running were: mean and standard deviation of each, in raw units."""

    mean: tuple[float, ...]
    spread: tuple[float, ...]


class Privacy(msgspec.Struct, frozen=True):
    """What a model's weights tell of any one unit of the data at most: (epsilon, delta)-differential privacy.

    unit: in words, what was protected; noise: in units of clip, the length that a unit's gradient was cut to.
    """

    epsilon: float
    delta: float
    unit: str
    noise: float = 0.0
    clip: float = 0.0


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says of itself (`manifest.json` in the archive).

    step: milliseconds of a grid step, or None when a step is one reading. length: steps in a window (T).
    stride: steps between windows. min_steps: steps seen before the first window is due (the missing ones are NaN).
    learning: windows of a series that are watched before it may raise an alert. max_gap: milliseconds a value is held.
    targets: what a forecast is about, where that is not the inputs. lead: steps from the window's last to the
    forecast's first: 1, or 0 for a target that is no input and so is unknown at the window's end too.
    content_sha256: digest of the archive's members except the manifest (see runtimes/archive.py); it does not cover
    what stands here, such as the calibration: to pin a model take the digest of the file.
    twin_of: of an ONNX file, the SHA-256 of the TorchScript file that it was made from; parameters: how many numbers
    of it were trained, 0 where that is not said. state: how many numbers an incremental model carries for a series
    from step to step; 0 for a model that sees whole windows. stateful: it was trained to carry them for ever, so that
    they hold more than the window does; else they give the window's own numbers. privacy: of a model that was trained
    with it, absent else.
    """

    name: str
    version: str
    task: Task
    family: str
    channels: tuple[Channel, ...]
    length: int
    step: int | None = None
    stride: int = 1
    min_steps: int = 1
    learning: int = 0
    horizon: int = 0
    targets: tuple[Channel, ...] = ()
    lead: int = 1
    aggregate: Aggregate = "last"
    max_gap: int | None = None
    quantiles: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    calibration: CalibrationTable | None = None
    reference: Reference | None = None
    data: str = ""
    metrics: dict[str, float] = {}
    torch: str = ""
    created: str = ""
    content_sha256: str = ""
    twin_of: str = ""
    parameters: int = 0
    state: int = 0
    stateful: bool = False
    privacy: Privacy | msgspec.UnsetType = msgspec.UNSET
    format: int = 1

    @property
    def label(self) -> str:
        """The name in predictions and in `info`: name@version."""
        return f"{self.name}@{self.version}"

    @property
    def any_sensor(self) -> bool:
        """True for a model that takes any single channel, whatever its name."""
        return len(self.channels) == 1 and self.channels[0].name == ANY


@dataclass(frozen=True, slots=True)
class Windows:
    """Due windows as one batch, ordered by series and time.

    series: int32 [B]; end: int64 [B], ms since 1970, the time of the last step; values: float32 [B, T, C],
    NaN where missing, in raw units.
    """

    series: NDArray[np.int32]
    end: NDArray[np.int64]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.series)


# The keys that a task promises (first axis B); `interval` float32 [B, C, 2] may come with `expected`.
#   forecast  forecast [B, H, C, Q] quantiles in raw units, C the targets where the manifest names any
#   anomaly   score [B] >= 0; contribution [B, C] summing to score; expected [B, C] in raw units
#   classify  probability [B, K] summing to 1
Outputs = Mapping[str, NDArray[np.float32]]

PROMISED: Mapping[Task, tuple[str, ...]] = {
    "forecast": ("forecast",),
    "anomaly": ("score", "contribution", "expected"),
    "classify": ("probability",),
}


class Model(Protocol):
    """A loaded model. The same rows give the same numbers in a batch of any size."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def sha256(self) -> str:
        """Digest of the model's file, manifest and calibration too, as hex: what `info` tells and snapshots fit."""
        ...

    def infer(self, values: NDArray[np.float32]) -> Outputs:
        """values: float32 [B, T, C] with B >= 1, NaN where missing -> the task's outputs, first axis B."""
        ...


class Target(NamedTuple):
    """One number of a model's outputs: `outputs[key][:, *at]`. name: for people."""

    key: str
    at: tuple[int, ...]
    name: str

    def of(self, outputs: Outputs) -> NDArray[np.float32]:
        """float32 [B]."""
        array = outputs[self.key]
        for i in self.at:
            array = array[:, i]
        return array


@runtime_checkable
class Differentiable(Model, Protocol):
    """A model that also says how an output moves with its input. Not every runtime can."""

    def gradients(self, values: NDArray[np.float32], target: Target) -> NDArray[np.float32]:
        """values: float32 [B, T, C], NaN where missing -> float32 [B, T, C], d target / d values of each row. Safe in
        any thread, and changes nothing of what `infer` gives."""
        ...


class IncrementalModel(Model, Protocol):
    """A model that goes from step to step (`manifest.state` > 0). It gives the numbers that it would give for the whole
    window or, where `manifest.stateful`, those of all steps since the state began; `infer` then gives what it says of a
    window that begins with `start`. The same rows give the same bits in a batch of any size."""

    @property
    def start(self) -> NDArray[np.float32]:
        """float32 [manifest.state]: the state of a series of which nothing is known."""
        ...

    def step(self, values: NDArray[np.float32], state: NDArray[np.float32]) -> tuple[Outputs, NDArray[np.float32]]:
        """values: float32 [B, C], one step, NaN where missing; state: float32 [B, n] after the step before -> the
        outputs of the window that ends here, and the state after it, float32 [B, n]."""
        ...


def decode_manifest(data: bytes) -> Manifest:
    """Reads `manifest.json`. Raises msgspec.ValidationError naming the field, or msgspec.DecodeError."""
    return msgspec.json.decode(data, type=Manifest)


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1)


def manifest_as_dict(manifest: Manifest) -> dict[str, Any]:
    """Plain builtins, for `info` and for printing."""
    result: dict[str, Any] = msgspec.to_builtins(manifest)
    return result
