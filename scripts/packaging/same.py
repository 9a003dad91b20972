"""Whether two machines predict the same: every shipped model on made windows, and a replay of a made recording.

    same.py make FOLDER            on each machine: windows.npz and replay.jsonl of this installation
    same.py compare FOLDER FOLDER  the largest differences of each model; status 1 beyond the limits

The inputs are whole numbers over 64, so that they are the same bits everywhere. Predictions may differ by 1e-5,
relative to the largest of their row (as for ONNX twins, docs/runtimes.md), or absolute where that is below 1. A score
is what a value and its prediction differ by, over a width that may be small: it magnifies the rounding of the
prediction, and may differ by 1e-3. Words (states, times) may not differ. Needs an installed Transom only: run it with
that environment's Python.
"""

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

from transom.runtimes.choice import Runtime, load, torch_is_installed
from transom.runtimes.files import shipped_models

LIMITS = {"predictions": 1e-5, "scores": 1e-3}
SCORES = ("score", "contribution", "p_value")
ROWS, BATCHES = 1500, (1, 7, 64)


def walk(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Values that wander along the second last axis, around 20, in steps of 1/64."""
    return 20 + np.cumsum(rng.integers(-16, 17, shape), axis=-2) / 64


def windows(runtime: Runtime, wanted: list[str]) -> dict[str, np.ndarray]:
    """`MODEL/BATCH/OUTPUT` -> what it gave. A model without an ONNX twin is left out where there is no torch."""
    found = {}
    torch = runtime != "onnx" and torch_is_installed()
    for number, (name, file) in enumerate(shipped_models().items()):
        if wanted and name not in wanted:
            continue
        if not torch and not file.with_suffix(".onnx").exists():
            print(f"left out: {name}, which needs torch")
            continue
        model = load(name, Path.cwd(), runtime)
        shape = model.manifest.length, len(model.manifest.channels)
        for batch in BATCHES:
            values = walk(np.random.default_rng([number, batch]), batch, *shape).astype(np.float32)
            values[:, ::11] = np.nan  # steps that are missing
            for output, given in model.infer(values).items():
                found[f"{name}/{batch}/{output}"] = given
    return found


def replay(folder: Path, runtime: Runtime, length: int) -> None:
    """Three sensors for `length` minutes; one stands still for a while, one jumps, one has a gap."""
    values = walk(np.random.default_rng(6), ROWS, 3)[:length]
    values[200:300, 0] = values[200, 0]
    values[320:330, 1] += 40
    rows = [f"{1_700_000_000 + 60 * i},{','.join(f'{v:.6f}' for v in row)}" for i, row in enumerate(values)]
    del rows[340:360]
    recording = folder / "three.csv"
    recording.write_text("time,a,b,c\n" + "\n".join(rows) + "\n")
    command = [sys.executable, "-m", "transom", "replay", "--model", "universal", "--agent.runtime", runtime]
    subprocess.run([*command, str(recording), "--output", str(folder / "replay.jsonl")], check=True)


def flat(line: object, place: str = "") -> dict[str, object]:
    if isinstance(line, dict):
        return {k: v for key, value in line.items() for k, v in flat(value, f"{place}/{key}").items()}
    if isinstance(line, list):
        return {k: v for i, value in enumerate(line) for k, v in flat(value, f"{place}/{i}").items()}
    return {place: line}


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The largest difference of [rows, numbers], relative to the row; infinite where only one has a number."""
    if one.shape != other.shape or not np.array_equal(np.isnan(one), np.isnan(other)):
        return float("inf")
    largest = np.nanmax(np.abs(other), axis=1, initial=1, keepdims=True)
    return float(np.nanmax(np.abs(one - other) / largest, initial=0))


def compare(one: Path, other: Path) -> bool:
    worst: dict[tuple[str, str], float] = {}

    def note(name: str, output: str, difference: float) -> None:
        key = name, "scores" if output in SCORES else "predictions"
        worst[key] = max(worst.get(key, 0.0), difference)

    with np.load(one / "windows.npz") as a, np.load(other / "windows.npz") as b:
        for key in sorted(set(a.files) & set(b.files)):
            name, _, output = key.split("/")
            note(name, output, apart(*(x[key].astype(float).reshape(len(x[key]), -1) for x in (a, b))))
    lines = [[flat(json.loads(x)) for x in (f / "replay.jsonl").read_text().splitlines()] for f in (one, other)]
    words = [[{k: v for k, v in line.items() if not isinstance(v, float)} for line in side] for side in lines]
    name = f"replay of {len(lines[0])} windows"
    note(name, "predictions", 0.0 if words[0] == words[1] else float("inf"))
    for pair in zip(*lines, strict=False):
        for key, value in pair[0].items():
            if isinstance(value, float) and isinstance(pair[1].get(key), float):
                note(name, key.split("/")[1], apart(*(np.array([[line[key]]]) for line in pair)))
    same = bool(worst)
    for (name, kind), difference in worst.items():
        same = same and difference <= LIMITS[kind]
        print(f"{name:28} {kind:12} {difference:.1e}{'' if difference <= LIMITS[kind] else '  TOO MUCH'}")
    told = ", ".join(f"{kind} to {limit}" for kind, limit in LIMITS.items())
    print(f"{'the same' if same else 'NOT the same'}: {told}")
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("make", "compare"))
    parser.add_argument("--runtime", choices=("auto", "torchscript", "onnx"), default="auto")
    parser.add_argument(
        "--models", nargs="+", default=[], metavar="NAME", help="make: these and not all that are shipped"
    )
    parser.add_argument(
        "--rows", type=int, default=ROWS, help=f"make: of the recording, at least 400 (default: {ROWS})"
    )
    parser.add_argument("folders", type=Path, nargs="+")
    args = parser.parse_args()
    if args.verb == "compare":
        return 0 if compare(*args.folders) else 1
    folder = args.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    found = windows(args.runtime, args.models)
    np.savez(folder / "windows.npz", **found)
    replay(folder, args.runtime, args.rows)
    print(f"{len({k.partition('/')[0] for k in found})} models on {platform.machine()}, in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
