"""`transom inspect`: what a model file says of itself, its size, and how fast it is on this machine.

A model's name or file in; a sheet for people, or one JSON object, out. Verifies the file as the agent would.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from transom.core.model import PROMISED, Channel, Manifest, Privacy, manifest_as_dict
from transom.runtimes import choice, onnx, torchscript
from transom.settings.quantities import format_duration

EXAMPLES = """\
  transom inspect universal
  transom inspect pump.pt
  transom inspect pump.pt --json | jq .manifest.metrics
"""

BATCHES = (2, 64)  # a single series (rows are filled up to two), and a busy agent
MEASURED = 0.3  # seconds for each batch size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a model file, or the name of a shipped model")
    parser.add_argument(
        "--runtime", choices=get_args(choice.Runtime), default="auto",
        help="which of a model's two files, MODEL.pt or MODEL.onnx (default: the one that is named)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the sheet")


def run(args: argparse.Namespace) -> int:
    """0. Raises ModelError for a file that the agent would refuse."""
    messages = Console(stderr=True)
    opened = choice.open_model(args.model, Path(), args.runtime)
    for finding in [] if isinstance(opened, onnx.OnnxBundle) else torchscript.cpu_findings():
        messages.print(f"WARNING  {finding}", markup=False, soft_wrap=True)
    with messages.status(f"loading and timing {opened.manifest.label}"):  # shown on a terminal only
        model = choice.from_opened(opened)
        latency = {size: microseconds(model, size) for size in BATCHES}
    if args.json:
        print(json.dumps(as_dict(model, latency), ensure_ascii=False))
        return 0
    sheet = Table.grid(padding=(0, 2))
    sheet.add_column(no_wrap=True)
    sheet.add_column(overflow="fold")
    for label, value in rows(model, latency):
        sheet.add_row(Text(label, "bold"), Text(_printable(value)))
    Console(file=sys.stdout).print(sheet)
    return 0


def microseconds(model: choice.Loaded, size: int) -> float:
    """Median time of a window in a batch of this size, µs, on one thread."""
    shape = size, model.manifest.length, len(model.manifest.channels)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    taken: list[int] = []
    end = time.perf_counter() + MEASURED
    while len(taken) < 10 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        model.infer(values)
        taken.append(time.perf_counter_ns() - start)
    return statistics.median(taken) / size / 1000


def as_dict(model: choice.Loaded, latency: dict[int, float]) -> dict[str, Any]:
    opened = model.bundle
    return {
        "file": str(opened.path), "size": opened.size, "sha256": opened.sha256, "parameters": model.parameters,
        "latency_us_per_window": {str(size): round(taken, 2) for size, taken in latency.items()},
        "manifest": manifest_as_dict(model.manifest),
    }  # fmt: skip


def rows(model: choice.Loaded, latency: dict[int, float]) -> Iterator[tuple[str, str]]:
    """(label, value) of each line of the sheet; what the manifest leaves open has no line."""
    opened, m = model.bundle, model.manifest
    yield "model", m.label
    yield "file", f"{opened.path}, {opened.size / 1000:,.1f} kB"
    yield "runtime", "ONNX Runtime" if isinstance(opened, onnx.OnnxBundle) else "TorchScript"
    yield "SHA-256", f"{opened.sha256}\nof the file, as sha256sum, model_sha256 and `transom check` have it"
    yield "content", f"{m.content_sha256}\nSHA-256 of code and weights, without the manifest: the same model again"
    yield "task", f"{m.task}: {', '.join(PROMISED[m.task])}"
    yield "family", f"{m.family}, {model.parameters:,} parameters" if model.parameters else m.family
    yield "channels", channels(m)
    if m.targets:
        yield "targets", named(m.targets)
    yield from _windows(m)
    if m.stateful:
        yield "stateful", f"{m.state:,} numbers a series are carried from step to step, for ever"
    elif m.state:
        yield "incremental", f"{m.state:,} numbers a series are carried from step to step"
    if m.classes:
        yield "classes", ", ".join(m.classes)
    if m.calibration:
        scores = m.calibration.scores
        yield "calibration", f"{len(scores)} scores of normal windows, {scores[0]:.3g} to {scores[-1]:.3g}"
    if m.data:
        yield "data", m.data
    if isinstance(m.privacy, Privacy):
        p = m.privacy
        yield "privacy", f"epsilon {p.epsilon:g} at delta {p.delta:g} for a {p.unit} of the training data"
    if m.metrics:
        yield "metrics", "\n".join(f"{name} {value:.6g}" for name, value in m.metrics.items())
    if m.twin_of:
        yield "twin of", f"{m.twin_of}\nSHA-256 of the TorchScript file that it was made from"
    made = [f"torch {m.torch}" if m.torch else "", m.created]
    if any(made):
        yield "made with", ", ".join(filter(None, made))
    yield "latency", "\n".join(f"{taken:,.1f} µs a window in batches of {size}" for size, taken in latency.items())


def channels(m: Manifest) -> str:
    if m.any_sensor:
        return "any sensor"
    return named(m.channels)


def named(channels: tuple[Channel, ...]) -> str:
    return ", ".join(f"{c.name} [{c.unit}]" if c.unit else c.name for c in channels)


def _windows(m: Manifest) -> Iterator[tuple[str, str]]:
    step = "a step is one reading" if m.step is None else f"of {format_duration(m.step)} ({m.aggregate})"
    count = f"{m.length} step{'s' * (m.length != 1)}"
    yield "window", f"{count}, {step}" if m.step is None else f"{count} {step}"
    yield "stride", f"a window every {m.stride} steps" if m.stride > 1 else "a window every step"
    learning = [
        f"first window after {m.min_steps} steps" if m.min_steps > 1 else "",
        f"alerts after {m.learning} windows" if m.learning else "",
    ]
    if any(learning):
        yield "start", ", ".join(filter(None, learning))
    if m.max_gap is not None:
        yield "gaps", f"a value is held for {format_duration(m.max_gap)}"
    if m.horizon:
        begin = (
            "from the window's last step" if m.lead == 0 else f"from {m.lead} after the window" if m.lead > 1 else ""
        )
        yield "horizon", f"{m.horizon} step{'s' * (m.horizon != 1)} {begin}".rstrip()
    if m.quantiles:
        yield "quantiles", ", ".join(f"{q:g}" for q in m.quantiles)


def _printable(text: str) -> str:
    """A file's own words cannot move the cursor or colour the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
