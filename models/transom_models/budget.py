"""What `transom train --private` may spend: the arguments, checked. Needs neither torch nor opacus."""

import argparse
import math
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from transom.errors import ModelError

UNPROTECTED = (
    "not protected: scaling, sizes of errors, the calibration table, the reference and the metrics, which are measured "
    "without noise"
)


@dataclass(frozen=True, slots=True)
class Budget:
    """epsilon, delta: (epsilon, delta)-differential privacy of the weights, delta None for a tenth of 1 / units, at
    most 0.0001; clip: length of a unit's gradient; unit: `block` of `steps` rows (0: twice what a window spans), or
    `window`."""

    epsilon: float = 8.0
    delta: float | None = None
    clip: float = 1.0
    unit: Literal["block", "window"] = "block"
    steps: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--private", action="store_true",
        help="train with differential privacy and say what it is worth (docs/privacy.md); needs opacus",
    )  # fmt: skip
    parser.add_argument("--epsilon", type=float, default=8.0, help="of --private: less protects more (default: 8)")
    parser.add_argument(
        "--delta", type=float, help="of --private: below 1 / units (default: a tenth of it, 0.0001 at most)"
    )
    parser.add_argument("--clip", type=float, default=1.0, help="of --private: length of a gradient (default: 1)")
    parser.add_argument(
        "--unit", choices=("block", "window"), default="block",
        help="of --private, what is protected: a block of consecutive steps that no window crosses; or a window, "
        "though a reading is in many (default: block)",
    )  # fmt: skip
    parser.add_argument("--block", type=int, help="of --private: steps of a block (default: twice what a window spans)")


def of(args: argparse.Namespace) -> Budget:
    return Budget(args.epsilon, args.delta, args.clip, args.unit, args.block or 0)


def check(args: argparse.Namespace) -> None:
    """Raises ModelError for a budget that is none, for arguments that do not go with it, and where opacus is not
    installed."""
    if not args.private:
        return
    for option, given in (("--recipe", args.recipe), ("--from", args.start), ("--stateful", args.stateful or None)):
        if given is not None:
            raise ModelError("--private", f"cannot go with {option}", "train from --data, from the beginning")
    for name, most in (("epsilon", 1e3), ("delta", 0.1), ("clip", 1e6)):
        value = getattr(args, name)
        if value is None:
            continue
        if not (math.isfinite(value) and 0 < value <= most):
            raise ModelError(f"--{name}", f"{value:g} is no budget", f"more than 0, at most {most:g}")
    if find_spec("opacus") is None:
        raise ModelError("--private", "opacus is not installed here", 'pip install "transom[private]"')
    if args.seed is not None:
        sys.stderr.write(
            "transom: --seed: whoever knows it knows the noise: epsilon holds only while it is secret; leave it out\n"
        )
