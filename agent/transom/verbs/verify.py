"""`transom verify`: would an agent run this model? Says who signed it, and tries it as the agent would.

A model, and keys or a configuration, in; a sheet, or a ModelError that says why not, out.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from transom.errors import SettingsError, TransomError
from transom.flags import settings_arguments
from transom.runtimes import choice, files, minisign
from transom.runtimes.minisign import PublicKey
from transom.runtimes.trial import Trials
from transom.runtimes.trust import Policy, vouch
from transom.settings import read

EXAMPLES = """\
transom verify pump.pt                             against models.trusted_keys of the configuration
transom verify pump.pt --key keys/plant.pub
transom verify *.pt --key RWQ… --no-load           signature, archive and code only: without torch, in milliseconds"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("model", nargs="+", metavar="MODEL", help="a model file, or the name of a shipped model")
    parser.add_argument(
        "--key", action="append", default=[], metavar="KEY",
        help="trust this public key (its line, or a .pub file) instead of those of the configuration",
    )  # fmt: skip
    parser.add_argument("--no-load", action="store_true", help="do not load and run it in a process without rights")


def run(args: argparse.Namespace) -> int:
    """0 when all may run. Raises ModelError for the first that may not, whatever models.allow_unsigned says."""
    policy = Policy(tuple(map(public_key, args.key))) if args.key else configured(args)
    with Trials() as trials, Console(stderr=True).status("") as status:  # shown on a terminal only
        for name in args.model:
            path = files.find_model(name, Path())
            status.update(f"verifying {path.name}")
            voucher = vouch(path, None, policy)
            manifest = choice.open_file(path, voucher.sha256).manifest
            lines = [f"{path}: {manifest.label} for {manifest.task}, {voucher}"]
            if voucher.comment:
                lines.append(f"  comment  {''.join(c if c.isprintable() else ' ' for c in voucher.comment)}")
            lines.append(f"  sha256   {voucher.sha256}")
            if not args.no_load:
                passed = trials.run(path, voucher.sha256)
                lines.append(f"  loads    and answers within {passed.seconds:.1f} s, held by {', '.join(passed.held)}")
            sys.stdout.write("\n".join(lines) + "\n")
    return 0


def configured(args: argparse.Namespace) -> Policy:
    """The keys of the configuration, however the rest of it is."""
    reading = read(args.config, args.overrides, need_streams=False)
    if reading.trust is None:
        raise SettingsError([p for p in reading.problems if "models" in p.place] or reading.problems)
    return Policy.of(reading.trust.trusted_keys)


def public_key(text: str) -> PublicKey:
    if minisign.PUBLIC.fullmatch(text):
        return minisign.read_public(text, "--key")
    try:
        return minisign.read_public(Path(text).read_text("utf-8", "replace"), text)
    except OSError as error:
        raise TransomError(
            f"--key {text}", f"is neither a key nor a file ({error.strerror})", "see transom keygen"
        ) from None
