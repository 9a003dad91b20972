"""Windows of any number to calls of a runtime in a few batch sizes, such that the same row gives the same bits in each.

A runtime gives one function: a batch in, its outputs by name out. Knows neither torch nor ONNX Runtime.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from transom.core.model import PROMISED, Manifest
from transom.errors import ModelError
from transom.runtimes.probes import probe_windows

Array = NDArray[np.float32]
Arrays = dict[str, Array]

# Kernels for a few rows may add in another order, so that the last digits of a row differ from those in a larger batch:
# 1 and 2 rows always did here, larger sizes with some shapes. `warm` keeps the sizes that agree to the bit. With layers
# of very few outputs (4 classes, say) even the row's place in the batch can matter; then each row runs alone.
BATCH_SIZES = (4, 16, 32, 64, 128, 256)

PROBED_STEPS = 8  # that a probed state has behind it
PROBED = 2  # batches of a size on which it is compared with the largest,
ROWS = 64  # and rows at least: where kernels add in another order, most rows differ


class BatchedModel(ABC):
    """`core.model.Model` whose runtime takes batches of a few sizes: filled up to one of them and cut at the largest.

    Calls from more than one thread at a time are safe where those of the runtime are; they wait for none.
    """

    warm_calls = 1  # calls of a size until it is as fast as it gets

    def __init__(self, manifest: Manifest, file: str, batch_sizes: tuple[int, ...]) -> None:
        """file: for messages. batch_sizes: ascending, each 2 or more. Raises ModelError for others."""
        if not batch_sizes or batch_sizes[0] < 2:
            raise ModelError(file, f"batch sizes {batch_sizes}", "give one or more, each 2 or more")
        self._manifest, self._file, self.batch_sizes = manifest, file, batch_sizes
        self._row_shapes = row_shapes(manifest)
        self.alone = False  # True when a row's place in a batch changes its bits
        self.start = np.zeros(manifest.state, np.float32)  # of an incremental model, set by `warm`
        self.step_sizes, self.step_alone = batch_sizes, False

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @abstractmethod
    def _call(self, batch: NDArray[np.float32]) -> Mapping[str, NDArray[np.generic]]:
        """float32 [B, T, C], which it may write into -> arrays by name, checked by the caller. Raises ModelError."""

    @abstractmethod
    def _call_step(self, values: Array, state: Array) -> tuple[Mapping[str, NDArray[np.generic]], NDArray[np.generic]]:
        """As `_call` for one step: float32 [B, C] and [B, n] -> arrays by name, and the state after it."""

    def warm(self) -> None:
        """Runs each batch size, so that the first real call is quick, and gives up those that change a row's bits."""
        if self.manifest.state:
            self._warm_steps()
        shape = self.manifest.length, len(self.manifest.channels)
        probe = probe_windows(PROBED * self.batch_sizes[-1], *shape)
        whole: Arrays = {}
        kept = []
        for size in reversed(self.batch_sizes):
            for _ in range(self.warm_calls):
                self._run(probe[:size].copy())
            rows = max(PROBED * size, ROWS)
            given = self._in_batches(probe[:rows], size)
            if not whole:
                whole = given
                moved = self._in_batches(np.roll(probe, 1, axis=0), size)
                self.alone = not _same({key: np.roll(array, -1, axis=0) for key, array in moved.items()}, whole)
            if _same(given, {key: array[: len(given[key])] for key, array in whole.items()}):
                kept.append(size)
        self.batch_sizes = (self.batch_sizes[0],) if self.alone else tuple(reversed(kept))

    def _warm_steps(self) -> None:
        """`warm` for `step`, and the state of a series of which nothing is known: that after a window of nothing, and
        of a stateful model nothing but zeros."""
        m, largest = self.manifest, self.batch_sizes[-1]
        state = np.zeros((self.batch_sizes[0], m.state), np.float32)
        nothing = np.full((len(state), len(m.channels)), np.nan, np.float32)
        for _ in range(0 if m.stateful else m.length):
            _, state = self._run_step(nothing, state)
        self.start = state[0].copy()
        probe = probe_windows(PROBED * largest, PROBED_STEPS + 1, len(m.channels))
        state = np.repeat(self.start[None], len(probe), 0)
        for i in range(PROBED_STEPS):
            state = self._step_in_batches(probe[:, i], state, largest)[1]
        values = probe[:, PROBED_STEPS]
        whole = self._step_in_batches(values, state, largest)
        moved = self._step_in_batches(np.roll(values, 1, 0), np.roll(state, 1, 0), largest)
        self.step_alone = not _same_step((_rolled(moved[0]), np.roll(moved[1], -1, 0)), whole)
        sizes = between(self.batch_sizes)
        kept = [s for s in sizes if _same_step(self._step_in_batches(values, state, s), whole)]
        self.step_sizes = (self.batch_sizes[0],) if self.step_alone else tuple(kept)

    def step(self, values: Array, state: Array) -> tuple[Arrays, Array]:
        """values: float32 [B, C], one step, NaN where missing; state: float32 [B, n] -> see IncrementalModel. A model
        may write into both.

        Raises ModelError for another shape, for a model that is not incremental, and as `infer`.
        """
        m = self.manifest
        if not m.state or values.shape[1:] != (len(m.channels),) or state.shape != (len(values), m.state):
            raise ModelError(
                m.label, f"steps of {list(values.shape)} with states of {list(state.shape)}",
                f"it takes [B, {len(m.channels)}] and [B, {m.state}]" if m.state else "it takes whole windows",
            )  # fmt: skip
        count, largest = len(values), 1 if self.step_alone else self.step_sizes[-1]
        parts = []
        for begin in range(0, max(count, 1), largest):
            some, before = values[begin : begin + largest], state[begin : begin + largest]
            size = next(s for s in self.step_sizes if s >= len(some))
            if size == len(some):
                parts.append(self._run_step(np.ascontiguousarray(some), np.ascontiguousarray(before)))
                continue
            given, after = self._run_step(_filled(some, size), _filled(before, size))
            parts.append(({key: array[: len(some)] for key, array in given.items()}, after[: len(some)]))
        return parts[0] if len(parts) == 1 else _joined_steps(parts)

    def _step_in_batches(self, values: Array, state: Array, size: int) -> tuple[Arrays, Array]:
        pieces = range(0, len(values), size)
        return _joined_steps([self._run_step(values[i : i + size].copy(), state[i : i + size].copy()) for i in pieces])

    def _run_step(self, values: Array, state: Array) -> tuple[Arrays, Array]:
        given, after = self._call_step(values, state)
        if after.shape != state.shape or after.dtype != np.float32:
            raise self._broken(f"gives a state of {after.dtype} {list(after.shape)} for {list(state.shape)}")
        return self._checked(given, len(values)), np.asarray(after, np.float32)

    def _in_batches(self, values: NDArray[np.float32], size: int) -> Arrays:
        parts = [self._run(values[i : i + size].copy()) for i in range(0, len(values), size)]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def infer(self, values: NDArray[np.float32]) -> Arrays:
        """values: float32 [B, T, C], NaN where missing -> the task's outputs, float32, first axis B.

        The same row gives the same bits in a batch of any size. Raises ModelError for another shape or dtype, and
        when the model fails or does not give what its task promises.
        """
        expected = (self.manifest.length, len(self.manifest.channels))
        if values.ndim != 3 or values.shape[1:] != expected or values.dtype != np.float32:
            raise ModelError(
                self.manifest.label, f"windows of {values.dtype} {list(values.shape)}",
                f"it takes float32 [B, {expected[0]}, {expected[1]}]",
            )  # fmt: skip
        count, largest = len(values), 1 if self.alone else self.batch_sizes[-1]
        parts = [self._padded(values[start : start + largest]) for start in range(0, max(count, 1), largest)]
        if len(parts) == 1:
            return parts[0]
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def _padded(self, values: NDArray[np.float32]) -> Arrays:
        count = len(values)
        size = next(s for s in self.batch_sizes if s >= count)
        batch = np.zeros((size, *values.shape[1:]), np.float32)  # a copy: a model may write into its input
        batch[:count] = values
        return {key: array[:count] for key, array in self._run(batch).items()}

    def _run(self, batch: NDArray[np.float32]) -> Arrays:
        return self._checked(self._call(batch), len(batch))

    def _checked(self, given: Mapping[str, NDArray[np.generic]], count: int) -> Arrays:
        outputs: Arrays = {}
        for key, shape in self._row_shapes.items():
            array = given.get(key)
            if array is None:
                if key == "interval":
                    continue
                raise self._broken(f"gives no {key!r}")
            if array.shape != (count, *shape) or array.dtype != np.float32:
                raise self._broken(f"gives {key!r} as {array.dtype} {list(array.shape)}", shape)
            outputs[key] = np.asarray(array, np.float32)
        return outputs

    @property
    def _place(self) -> str:
        return f"{self._file}, {self.manifest.label}"

    def _broken(self, problem: str, shape: tuple[int, ...] | None = None) -> ModelError:
        task = self.manifest.task
        if shape is None:
            return ModelError(self._place, problem, f"the task {task} promises {', '.join(PROMISED[task])}")
        wanted = ", ".join(["B", *map(str, shape)])
        return ModelError(self._place, problem, f"the task {task} promises float32 [{wanted}]")


def row_shapes(m: Manifest) -> dict[str, tuple[int, ...]]:
    """The shape of a row of each output; `interval` alone may be left out."""
    channels = len(m.channels)
    shapes: dict[str, tuple[int, ...]] = {
        "forecast": (m.horizon, len(m.targets) or channels, len(m.quantiles)),
        "score": (),
        "contribution": (channels,),
        "expected": (channels,),
        "probability": (len(m.classes),),
    }
    return {key: shapes[key] for key in PROMISED[m.task]} | {"interval": (channels, 2)}


def between(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes with one and a half, two and three times each that is below the next: steps are many and their states
    long, so that filling up costs more than one more shape to try."""
    more = {k * a // 2 for a, b in pairwise(sizes) for k in (3, 4, 6) if k * a < 2 * b}
    return tuple(sorted({*sizes, *more}))


def _filled(rows: Array, size: int) -> Array:
    filled = np.empty((size, rows.shape[1]), np.float32)
    filled[: len(rows)], filled[len(rows) :] = rows, 0.0
    return filled


def _joined_steps(parts: Sequence[tuple[Arrays, Array]]) -> tuple[Arrays, Array]:
    keys = parts[0][0]
    return {k: np.concatenate([p[k] for p, _ in parts]) for k in keys}, np.concatenate([s for _, s in parts])


def _rolled(outputs: Arrays) -> Arrays:
    return {key: np.roll(array, -1, axis=0) for key, array in outputs.items()}


def _same_step(a: tuple[Arrays, Array], b: tuple[Arrays, Array]) -> bool:
    return _same(a[0], b[0]) and bool(np.array_equal(a[1], b[1], equal_nan=True))


def _same(a: Arrays, b: Arrays) -> bool:
    return all(np.array_equal(a[key], b[key], equal_nan=True) for key in a)


def first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def last_line(error: Exception) -> str:
    """TorchScript puts its own traceback first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
