"""C-MAPSS FD001: cycles until an engine fails. The last 20 of 100 engines are the test, each cut at random points.

The forecaster that `transom train --task forecast --target rul --cap 125` makes, of the first 80 engines: four fifths
of them train, the others stop the training and set the intervals; --cross-validate prints what was chosen by instead:
the error on fifths of these 80, the test engines unseen.

A window begins with the engine's first cycle: what is missing before it is understood, so a model knows an engine's
age up to the window's length. --min-steps equal to --length takes that knowledge away.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from transom.core.model import Channel, Manifest
from transom.runtimes import torchscript
from transom_models import data, export, recordings, runs
from transom_models.building import scaling
from transom_models.tasks import QUANTILES, Forecaster
from transom_models.training import Plan, train

DATA = Path(os.environ.get("TRANSOM_DATA", "../shared/data"))
CAP, LEAST = 125, 30  # cycles; no cut earlier than this (the published test engines are no shorter)

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("file", nargs="?", type=Path, default=DATA / "cmapss" / "train_FD001.txt.gz")
parser.add_argument("--families", nargs="+", default=["scales"])
parser.add_argument("--length", type=int, default=200)
parser.add_argument("--min-steps", type=int, default=20)
parser.add_argument("--hidden", type=int, default=32)
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--cuts", type=int, default=10, help="random cuts of each engine (default: 10)")
parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
parser.add_argument("--cross-validate", action="store_true")
args = parser.parse_args()
torch.set_num_threads(1)

engines = [recordings.aimed(r, ["rul"], CAP) for r in runs.read_runs(args.file)]
padded = [data.padded(r, args.length - args.min_steps) for r in engines]


def joined(which: list[int]) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.examples(padded[i], args.length, 1, 0) for i in which]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def cut(which: list[int], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each of --cuts rounds the last windows of every engine cut at a random cycle, and the truth."""
    random = np.random.default_rng(seed)
    rounds, pairs = [], [data.examples(padded[i], args.length, 1, 0) for i in which]
    for _ in range(args.cuts):
        ends = [int(random.integers(max(LEAST, args.min_steps), len(engines[i].times))) for i in which]
        rows = [end - args.min_steps for end in ends]  # the window of so many cycles
        rounds.append((np.stack([p[0][r] for p, r in zip(pairs, rows, strict=True)]),
                       np.array([p[1][r, 0, 0] for p, r in zip(pairs, rows, strict=True)])))  # fmt: skip
    return rounds


def made(
    family: str, training: list[int], validation: list[int], seed: int, folder: str
) -> torchscript.TorchScriptModel:
    learned, stopping = joined(training), joined(validation)
    mean, scale = scaling(np.concatenate([engines[i].values for i in training])[None])
    torch.manual_seed(seed)
    module = Forecaster(family, args.hidden, mean, scale, 1, scaling(learned[1]))
    train(module, learned, stopping, Plan(epochs=args.epochs, batch=128, seed=seed, patience=6))
    with torch.no_grad():
        module.fit_spread(*stopping)
    manifest = Manifest(
        name="engine", version="1", task="forecast", family=family, channels=tuple(map(Channel, engines[0].channels)),
        length=args.length, min_steps=args.min_steps, horizon=1, lead=0, targets=(Channel("rul", "cycles"),),
        quantiles=QUANTILES,
    )  # fmt: skip
    path = Path(folder) / "engine.pt"
    export.export(module, manifest, path, stopping[0][:256])
    return torchscript.load(path)


def judged(
    model: torchscript.TorchScriptModel, rounds: list[tuple[np.ndarray, np.ndarray]]
) -> tuple[list[float], float]:
    """RMSE of each round, and the share of truth within the 80 % interval."""
    errors, inside = [], []
    for windows, truth in rounds:
        given = np.clip(model.infer(windows)["forecast"][:, 0, 0], 0, CAP)
        errors.append(float(np.sqrt(np.mean((given[:, len(QUANTILES) // 2] - truth) ** 2))))
        inside.append(np.mean((truth >= given[:, 0]) & (truth <= given[:, -1])))
    return errors, float(np.mean(inside))


for family in args.families:
    found, shares = [], []
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as folder:
            if args.cross_validate:
                for fold in range(5):
                    held = list(range(fold, 80, 5))
                    rest = [i for i in range(80) if i not in held]
                    model = made(family, rest, held, seed, folder)
                    errors, inside = judged(model, cut(held, 100 + fold))
                    found += errors
                    shares.append(inside)
            else:
                held = list(range(4, 80, 5))
                model = made(family, [i for i in range(80) if i not in held], held, seed, folder)
                errors, inside = judged(model, cut(list(range(80, 100)), 7))
                found += errors
                shares.append(inside)
        where = "cross-validated on the first 80 engines" if args.cross_validate else "last 20 engines"
        print(f"  {family}, seed {seed}: RMSE {np.mean(errors):.2f}", flush=True)
    print(
        f"{family}: RMSE {np.mean(found):.2f} cycles (standard deviation over cuts {np.std(found):.2f}), {where}, "
        f"{100 * np.mean(shares):.0f} % within the 80 % interval, {model.parameters} parameters; "
        "published: CNN 12.6, LSTM 16.1; goal: 12.5",
        flush=True,
    )
