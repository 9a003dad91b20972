"""The manifest's bytes to a manifest that a model can run with: what it must say beyond its types.

Opens nothing.
"""

import math
from itertools import pairwise

import msgspec

from transom.core.model import CalibrationTable, Manifest, decode_manifest
from transom.errors import ModelError
from transom.runtimes.files import AGAIN, FOREIGN

FORMATS = (1,)
MAX_LENGTH = 100_000  # steps of a window; more is a mistake, and the memory of it multiplies by channels and series
MAX_CHANNELS = 10_000
MAX_STATE = 1_000_000  # numbers carried for each series


def read(data: bytes, place: str) -> Manifest:
    """The manifest, checked. Raises ModelError."""
    try:
        manifest = decode_manifest(data)
    except msgspec.ValidationError as error:
        raise ModelError(f"{place}, manifest", str(error), FOREIGN) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{place}, manifest", f"is not JSON ({error})", AGAIN) from error
    wrong = problem(manifest)
    if wrong:
        raise ModelError(f"{place}, manifest", f"{wrong[0]}: {wrong[1]}", "train the model again with this version")
    return manifest


def problem(manifest: Manifest) -> tuple[str, str] | None:
    """(field, what is wrong with its value) for the first field that no model can run with, or None."""
    names = [c.name for c in manifest.channels]
    m = manifest
    at_least_one = {"length": m.length, "stride": m.stride, "min_steps": m.min_steps}
    not_negative = {"learning": m.learning, "horizon": m.horizon, "lead": m.lead, "state": m.state}
    if m.format not in FORMATS:
        return "format", f"{m.format} is not known here (known: {', '.join(map(str, FORMATS))})"
    for text, value in (("name", m.name), ("version", m.version), ("family", m.family)):
        if not word(value):
            return text, f"{value!r} must be a word without / + # @"
    for key, number in at_least_one.items():
        if number < 1:
            return key, f"{number} must be 1 or more"
    for key, number in not_negative.items():
        if number < 0:
            return key, f"{number} must be 0 or more"
    if m.length > MAX_LENGTH:
        return "length", f"{m.length} steps are more than {MAX_LENGTH}"
    if m.state > MAX_STATE:
        return "state", f"{m.state} numbers a series are more than {MAX_STATE}"
    if m.stateful and not m.state:
        return "stateful", "a model that carries its state says how many numbers that is"
    if m.min_steps > m.length:
        return "min_steps", f"{m.min_steps} is more than the window's length {m.length}"
    for key, period in (("step", m.step), ("max_gap", m.max_gap)):
        if period is not None and period < 1:
            return key, f"{period} ms must be 1 or more, or null"
    if not names or len(names) > MAX_CHANNELS:
        return "channels", f"{len(names)} channels; a model has 1 to {MAX_CHANNELS}"
    if "" in names:
        return "channels", "a channel has no name"
    twice = next((n for n in names if names.count(n) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        return "channels", f"{twice!r} stands there twice"
    return _task_problem(manifest) or _calibration_problem(manifest.calibration)


def _task_problem(m: Manifest) -> tuple[str, str] | None:
    if m.task == "forecast":
        if m.horizon < 1:
            return "horizon", f"{m.horizon}; a forecast has 1 step or more"
        if not m.quantiles:
            return "quantiles", "none; a forecast has 1 or more"
        targets = [c.name for c in m.targets]
        if "" in targets or len(set(targets)) < len(targets) or len(targets) > MAX_CHANNELS:
            return "targets", f"{targets[:8]}; each needs a name of its own"
    elif m.targets:
        return "targets", "only a forecast has targets"
    if any(not 0 < q < 1 for q in m.quantiles) or any(a >= b for a, b in pairwise(m.quantiles)):
        return "quantiles", f"{list(m.quantiles)} must ascend within 0 and 1"
    if m.task == "classify" and (len(m.classes) < 2 or len(set(m.classes)) < len(m.classes)):
        return "classes", f"{list(m.classes)}; a classifier has two or more different ones"
    return None


def _calibration_problem(table: CalibrationTable | None) -> tuple[str, str] | None:
    if table is None:
        return None
    scores, p = table.scores, table.p_values
    if len(scores) != len(p) or len(scores) < 2:
        return "calibration", f"{len(scores)} scores and {len(p)} p_values; both need the same length, 2 or more"
    if not all(map(math.isfinite, scores)) or any(a >= b for a, b in pairwise(scores)):
        return "calibration.scores", "they must be finite and ascend"
    if not all(0 < x <= 1 for x in p) or any(a < b for a, b in pairwise(p)):
        return "calibration.p_values", "they must lie in (0, 1] and descend"
    if not (math.isfinite(table.tail_scale) and table.tail_scale > 0):
        return "calibration.tail_scale", f"{table.tail_scale} must be finite and more than 0"
    return None


def word(text: str) -> bool:
    """Whether a name, version or family may be called so: it becomes part of a label, and of topics."""
    return bool(text.strip()) and not any(c in "/+#@\0\n" for c in text)
