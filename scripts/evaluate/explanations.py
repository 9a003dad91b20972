"""With what should a window be compared to explain its score? Faults put into one channel of held-out normal running.

`transom train` on the first 60 % of SKAB's recording without anomalies; pieces of the rest, each with a fault in one
channel (those of `attribution`). Explained is the window that raises the alert, and the last one over the bar, by
integrated gradients and by occlusion, each against several references. Counted is how often the channel at fault has
the largest share, and how far the shares are from adding up (median and 90th percentile of the gap, in parts of the
difference in score). Some 3 minutes on one core.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from skab_protocol import BAR, DATA, read, run, write

from faults import BEFORE, FAULTY, KINDS, jitter_of, spoil
from transom.core.explain import explain
from transom.runtimes import torchscript

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", nargs="?", type=Path, default=DATA / "skab", help="with anomaly-free/")
parser.add_argument("--family", default="lstm")
parser.add_argument("--method", default="level", help="of the detector, as for transom train (default: level)")
parser.add_argument("--cases", type=int, default=100, help="of each kind (default: 100)")
parser.add_argument("--pieces", type=int, default=32, help="of the integral (default: 32)")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.set_num_threads(1)
whole = read(args.folder / "anomaly-free" / "anomaly-free.csv")
channels, cut = len(whole.names), int(0.6 * len(whole.times))
rng = np.random.default_rng(args.seed)
jitter, mean = jitter_of(whole.values[:cut]), whole.values[:cut].mean(0)


def references(
    piece: np.ndarray, at: int, window: np.ndarray, expected: np.ndarray, raised: int
) -> dict[str, np.ndarray]:
    """piece: [n, C]; at, raised: index of the last step of this window and of the one that raised the alert."""
    length = len(window)
    kept = range(length - 1, raised, length)[-2:][0]  # as core/ordinary.py keeps them
    half = window[: length // 2]
    return {
        "mean of the training data": np.broadcast_to(mean, window.shape),
        "each channel at its median in the window": np.broadcast_to(np.median(window, 0), window.shape),
        "each channel at what was expected": np.broadcast_to(expected, window.shape),
        "the older half of the window, twice": np.concatenate([half, half[::-1]]),
        "the window before, next to it": piece[at - 2 * length + 1 : at - length + 1],
        "the last window before the fault": piece[BEFORE - length : BEFORE],
        "an ordinary window, as the agent keeps it": piece[kept - length + 1 : kept + 1],
    }


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    print(f"training {args.family}, {args.method}, on {cut:,} rows")
    run("train", "--data", write(folder / "fit.csv", whole, slice(cut)), "--task", "anomaly", "--family", args.family,
        "--method", args.method, "--seed", args.seed, "--output", folder / "model.pt")  # fmt: skip
    model = torchscript.load(folder / "model.pt")
    length = model.manifest.length
    ends = np.arange(length - 1, BEFORE + FAULTY)
    hits: dict[tuple[str, str, str], list[bool]] = defaultdict(list)
    gaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    own: dict[str, list[bool]] = defaultdict(list)
    for case in track(range(args.cases * len(KINDS)), "explaining", transient=True):
        begin, at = rng.integers(cut, len(whole.times) - BEFORE - FAULTY), case % channels
        clean = whole.values[begin : begin + BEFORE + FAULTY]
        piece, kind = clean.copy(), KINDS[case // args.cases]
        piece[BEFORE:, at] = spoil(
            clean[BEFORE:, at], kind, jitter[at], rng.choice([-1, 1]), rng.standard_normal(FAULTY)
        )
        score, normal = (
            model.infer(np.stack([p[e - length + 1 : e + 1] for e in ends]).astype(np.float32))["score"]
            for p in (piece, clean)
        )
        bar = BAR if args.method == "level" else 1.5 * normal.max()
        over = ends[(score >= bar) & (ends >= BEFORE)]
        if not len(over) or (normal >= bar).any():
            continue
        for when, end in (("at the raise", over[0]), ("last of the alert", over[-1])):
            window = piece[end - length + 1 : end + 1].astype(np.float32)
            out = model.infer(window[None])
            own[when].append(int(np.argmax(out["contribution"][0])) == at)
            for name, against in references(piece, end, window, out["expected"][0], over[0]).items():
                for method in ("integrated gradients", "occlusion"):
                    found = explain(model, window, against.astype(np.float32), None, args.pieces, method)
                    hits[name, method, when].append(int(np.argmax(found.by_channel)) == at)
                    if method == "integrated gradients":
                        gaps[name, when].append(abs(found.gap) / max(abs(found.value - found.reference_value), 1e-6))
    whens = list(own)
    print(f"{len(own[whens[0]])} alerts; the channel at fault has the largest share, %")
    print(f"{'compared with':44}{''.join(f'{w:>40}' for w in whens)}")
    print(f"{'':44}" + len(whens) * f"{'gradients':>12}{'occlusion':>12}{'gap, 90th':>16}")
    for name in dict.fromkeys(n for n, _, _ in hits):
        line = f"{name:44}"
        for when in whens:
            line += "".join(
                f"{100 * np.mean(hits[name, m, when]):12.1f}" for m in ("integrated gradients", "occlusion")
            )
            line += f"{np.median(gaps[name, when]):8.3f}{np.quantile(gaps[name, when], 0.9):8.3f}"
        print(line)
    print(f"{'(the model itself: contribution)':44}" + "".join(f"{100 * np.mean(own[w]):12.1f}{'':28}" for w in whens))
