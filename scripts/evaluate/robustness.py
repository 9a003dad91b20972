"""What noise, loss and attacks cost the detectors of scripts/evaluate/skab.

Each experiment's detector is trained on its first 400 rows as they are; the rows after them are spoiled, and judged by
the same rule. The attacker knows the model and the truth: he pulls the score down during an anomaly and up at other
times, by the gradient (FGSM: Goodfellow et al. 2015; PGD in 10 steps: Madry et al. 2018), with each reading moved by at
most so much. A stuck sensor is a fault that the machine's labels do not know: it should, and does, raise an alert.
Some 5 minutes on one core.
"""

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from skab_protocol import BAR, DATA, FIT, Table, experiments, pooled, replay, train

from transom.runtimes import bundle

STEPS = 10  # of PGD

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, default=DATA / "skab", help="with valve1/, valve2/ and other/")
parser.add_argument("--family", default="lstm")
args = parser.parse_args()
torch.set_num_threads(1)
tables = experiments(args.folder)
if not tables:
    raise SystemExit(f"{args.folder}: no experiments here; name the folder that holds valve1/, valve2/ and other/")


def attack(module: torch.jit.ScriptModule, table: Table, size: np.ndarray, steps: int) -> np.ndarray:
    """size: [C], how far each reading may be moved. -> values [n, C], the first 400 rows as they were."""
    clean, length = torch.from_numpy(table.values), module_length[table.path]
    wanted = torch.from_numpy(np.where(table.labels, -1.0, 1.0)[length - 1 :].astype(np.float32))
    most = torch.from_numpy(np.where(np.arange(len(clean))[:, None] >= FIT, size, 0).astype(np.float32))
    moved = torch.zeros_like(clean)
    for _ in range(steps):
        values = (clean + moved).requires_grad_()
        score = module(values.unfold(0, length, 1).transpose(1, 2))["score"]
        slope = torch.autograd.grad((wanted * score).sum(), values)[0].nan_to_num()
        step = most if steps == 1 else 2.5 * most / steps
        moved = torch.maximum(torch.minimum(moved + step * slope.sign(), most), -most)
    return (clean + moved).numpy()


def spoiled(table: Table, module: torch.jit.ScriptModule, rng: np.random.Generator) -> dict[str, Table]:
    """By what was done to the rows after the first 400."""
    fit, values = table.values[:FIT], table.values
    jitter = np.diff(fit, axis=0).std(0) / np.sqrt(2)
    span = fit.max(0) - fit.min(0)
    resolution = np.array([np.diff(np.unique(c)).min() if len(np.unique(c)) > 1 else 0 for c in fit.T])
    after = np.arange(len(values))[:, None] >= FIT
    quiet = int(
        np.argmin(np.where(span > 0, np.abs(values[FIT:] - fit.mean(0)).max(0) / np.maximum(span, 1e-9), np.inf))
    )
    stuck = values.copy()
    stuck[FIT:, quiet] = values[FIT - 1, quiet]  # the channel that has least to say
    coarse = np.maximum(4 * resolution, span / 8)
    return {
        "as it is": table,
        "noise, as large as each channel's own": with_(
            table, values + after * jitter * rng.standard_normal(values.shape)
        ),
        "30 % of the readings lost": with_(table, np.where(after & (rng.random(values.shape) < 0.3), np.nan, values)),
        "30 % of the rows lost": with_(table, np.where(after & (rng.random((len(values), 1)) < 0.3), np.nan, values)),
        "one sensor stuck": with_(table, stuck),
        "an eighth of each span as resolution": with_(
            table, np.where(after, np.round(values / coarse) * coarse, values)
        ),
        "FGSM, 1 % of each span": with_(table, attack(module, table, 0.01 * span, 1)),
        "PGD, 1 % of each span": with_(table, attack(module, table, 0.01 * span, STEPS)),
        "PGD, half the sensor's resolution": with_(table, attack(module, table, 0.5 * resolution, STEPS)),
        "PGD, 10 % of each span": with_(table, attack(module, table, 0.1 * span, STEPS)),
    }


def with_(table: Table, values: np.ndarray) -> Table:
    return replace(table, values=values.astype(np.float32))


flags, module_length = defaultdict(list), {}
for table in track(tables, args.family, transient=True):
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = train(table, folder, args.family)
        opened = bundle.open_bundle(path)
        module_length[table.path] = opened.manifest.length
        with bundle.quiet():
            module = torch.jit.load(BytesIO(opened.archive()))
        cases = spoiled(table, module, np.random.default_rng(0))
        names = {f"case-{i}": name for i, name in enumerate(cases)}
        found = replay({n: cases[name] for n, name in names.items()}, path, folder, f"threshold = {BAR}")
        for n, name in names.items():
            flags[name].append(found[n][1])
print(f"{len(tables)} experiments, {args.family}, threshold {BAR}")
for name, said in flags.items():
    print(f"{name:40}{pooled(tables, said)}")
