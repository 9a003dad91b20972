"""`transom train`: recordings to a model file. Arguments in, a file and its held-out metrics out.

torch is imported when training begins: seconds on a small box, not for --help or a mistyped argument.
"""

import argparse
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from transom.core.model import Manifest, Privacy
from transom.errors import ModelError
from transom.runtimes import choice
from transom.runtimes.manifest import word
from transom_models import budget

EXAMPLES = """\
transom train --data normal.csv --task anomaly --family lstm --output pump.pt
transom train --data jan.csv feb.csv --task forecast --family tcn --horizon 24 --output load.pt
transom train --data run1.csv run2.csv … --task forecast --target rul --cap 125 --family scales --output wear.pt
transom train --data moves.csv --task classify --label activity --family cnn --output moves.pt
transom train --data week.jsonl.gz --task anomaly --family lstm --output pump.pt
transom train --data appliances.ts.gz --task classify --family rocket --hidden 2400 --output appliance.pt
transom train --data normal.csv --family gru --stateful --output pump.pt
transom train --data autumn.csv --from pump.pt --output pump.pt
transom train --data shifts.csv --task anomaly --method residual --private --epsilon 3 --output pump.pt
transom train --recipe universal --output universal.pt
transom train --recipe home-appliance --data recordings/ --output appliance.pt"""

# The families, as transom_models.families has them.
SHIPPED = ("lstm", "gru", "rnn", "cnn", "tcn", "fcn", "scales", "rocket", "bins", "hydra")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="CSV files (plain or .gz) of normal running, or with labels; recordings of ours (.jsonl, plain or .gz); "
        ".ts files of cases; .txt tables of runs to failure: unit, cycle, measurements",
    )
    parser.add_argument("--stream", help="of a recording: the stream to train on, where it tells of several")
    parser.add_argument(
        "--topic", help="of a recording: the topics to train on, as in a stream: plant/{device}/{channel}"
    )
    parser.add_argument("--task", choices=("forecast", "anomaly", "classify"), default="anomaly")
    parser.add_argument("--family", default="lstm", help=f"{', '.join(SHIPPED)} (default: lstm)")
    parser.add_argument("--output", type=Path, required=True, metavar="MODEL", help="the model file to write")
    parser.add_argument("--recipe", metavar="FILE", help="make a shipped model again, by name or from a .toml file")
    parser.add_argument(
        "--from",
        dest="start",
        type=Path,
        metavar="MODEL",
        help="go on from this model's weights; task, family, channels and sizes are its own, and the version the next",
    )
    parser.add_argument(
        "--method",
        choices=("level", "residual", "reconstruction", "switch", "path"),
        help="of anomaly: levels, liveliness and relations of the channels; the next step's error; the window's "
        "reconstruction; or, for contacts, when and how long they are open (default: level, with --stateful residual); "
        "path, of forecast: where a vehicle will be, seen from the vehicle",
    )
    parser.add_argument(
        "--channels", nargs="+", default=[], help="columns to use (default: all numeric ones but labels)"
    )
    parser.add_argument("--label", help="the column that holds each row's class, a number")
    parser.add_argument(
        "--target", nargs="+", default=[], metavar="COLUMN",
        help="of forecast: columns that are no inputs; `rul` is made where missing: steps to the file's end",
    )  # fmt: skip
    parser.add_argument("--cap", type=float, default=float("inf"), help="the largest `rul` (default: none)")
    parser.add_argument(
        "--period", type=int, help="steps of a day or shift; 1: none (default: found in the training part)"
    )
    parser.add_argument(
        "--step", type=float, metavar="SECONDS",
        help="length of a step: rows that come irregularly fall into such steps first, as on a gateway (default: a row "
        "is a step)",
    )  # fmt: skip
    parser.add_argument(
        "--aggregate", choices=("last", "mean", "min", "max", "sum", "count"), default="mean",
        help="of --step: what the rows of a step become (default: mean)",
    )  # fmt: skip
    parser.add_argument("--min-steps", type=int, help="steps before a series' first window (default: --length)")
    parser.add_argument("--length", type=int, default=64, help="steps in a window (default: 64)")
    parser.add_argument("--horizon", type=int, default=12, help="steps to forecast (default: 12)")
    parser.add_argument("--hidden", type=int, default=32, help="width of the network (default: 32)")
    parser.add_argument("--epochs", type=int, default=40, help="at most; training stops early (default: 40)")
    parser.add_argument("--seed", type=int, help="the same seed and threads give the same model (default: 0)")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch; another number, other last digits (default: 1)"
    )
    parser.add_argument(
        "--incremental", action=argparse.BooleanOptionalAction,
        help="go from step to step instead of through whole windows, for the same numbers: tcn in forecast or with "
        "--method residual, windows of 64 steps or more (default: where that can be done)",
    )  # fmt: skip
    parser.add_argument(
        "--stateful", action="store_true",
        help="of lstm, gru and rnn: carry the state from step to step for ever instead of beginning with each window; "
        "trained, calibrated and run that way, a step is all the work there is (docs/runtimes.md)",
    )  # fmt: skip
    parser.add_argument(
        "--onnx", action=argparse.BooleanOptionalAction, default=True,
        help="also write the model's twin for ONNX Runtime beside it, MODEL.onnx (default: yes)",
    )  # fmt: skip
    budget.add_arguments(parser)
    parser.add_argument("--name", help="the model's name (default: the output file's)")
    parser.add_argument(
        "--model-version", metavar="VERSION",
        help="the model's version (default: 1, with --from the next): a running agent takes a higher one in its place",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    _check(args)
    choice.need_torch("train")
    if sys.stderr.isatty():
        Console(stderr=True).print("reading")
    from transom_models import making

    manifest, seconds = making.make(args)
    _report(Console(), manifest, args.output, seconds)
    return 0


def _check(args: argparse.Namespace) -> None:
    """What can be known before hours of training."""
    folder = args.output.absolute().parent
    if not folder.is_dir():
        raise ModelError("--output", f"there is no folder {str(folder)!r}", f"make it: mkdir -p {folder}")
    if args.output.is_dir():
        raise ModelError(
            "--output", f"{str(args.output)!r} is a folder", f"name a file, such as {args.output}/model.pt"
        )
    if args.output.suffix == ".onnx":
        raise ModelError(
            "--output", f"{str(args.output)!r} names the twin", f"write {args.output.stem}.pt: the twin comes beside it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError("--output", f"the folder {str(folder)!r} cannot be written to", "choose another")
    budget.check(args)
    for option, text in (("--name", args.name), ("--model-version", args.model_version)):
        if text is not None and not word(text):
            raise ModelError(option, f"{text!r} must be a word without / + # @", "such as 2")
    if args.recipe is not None:
        return  # making.py looks at it
    if not args.data:
        raise ModelError("--data", "is missing", "name CSV files, or --recipe universal")
    for name, least in (
        ("length", 4),
        ("horizon", 1),
        ("hidden", 1),
        ("epochs", 1),
        ("period", 1),
        ("min_steps", 1),
        ("step", 0.001),
        ("block", 1),
    ):
        if (given := getattr(args, name)) is not None and given < least:
            raise ModelError(f"--{name.replace('_', '-')}", f"{given} is too small", f"at least {least}")


def _report(console: Console, manifest: Manifest, path: Path, seconds: float) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_row("model", f"{manifest.label}, {manifest.family}, {manifest.task}")
    table.add_row("file", f"{path} ({path.stat().st_size / 1000:.0f} kB)")
    twin = path.with_suffix(".onnx")
    if twin.exists():
        table.add_row("twin", f"{twin} ({twin.stat().st_size / 1000:.0f} kB) for ONNX Runtime")
    table.add_row("trained", f"{seconds:.0f} s on {manifest.data}")
    step = f"{manifest.step} ms" if manifest.step else "one reading"
    if manifest.stateful:
        table.add_row("stateful", f"{manifest.state} numbers a series are carried for ever")
    table.add_row("window", f"{manifest.length} steps of {step}, {len(manifest.channels)} channels")
    if isinstance(manifest.privacy, Privacy):
        p = manifest.privacy
        table.add_row("privacy", f"epsilon {p.epsilon:.3g} at delta {p.delta:g} for a {p.unit}, noise {p.noise:.3g}")
        table.add_row("", budget.UNPROTECTED)
    for name, value in manifest.metrics.items():
        table.add_row(name, f"{value:.4g}")
    table.add_row("next", f"transom sign {path}: agents run what is signed by a key they trust (docs/security.md)")
    console.print(table)
