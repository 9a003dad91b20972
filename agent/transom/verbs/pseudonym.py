"""`transom pseudonym`: what an agent with this key calls a series outside. Names in, one line each out."""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from transom.dialects.privacy import pseudonym
from transom.errors import TransomError
from transom.settings.secrets import LARGEST_PASSWORD, LEAST_KEY, read_text

EXAMPLES = """\
transom pseudonym --key-file series.key hall/pump-1/vibration
transom pseudonym --key-file series.key < names.txt           a name a line
transom pseudonym --key-file series.key --topic plant/hall/pump-1/vibration   as dead letters and the log call it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="a series' name (default: those on standard input)")
    parser.add_argument("--key-file", type=Path, required=True, metavar="FILE", help="as privacy.series_key_file")
    parser.add_argument("--topic", action="store_true", help="they are topics of sensors, or filters")


def run(args: argparse.Namespace) -> int:
    key, kind = _key(args.key_file), "topic" if args.topic else "series"
    names: Iterable[str] = args.names or (line.rstrip("\r\n") for line in sys.stdin)
    for name in names:
        print(f"{pseudonym(key, name, kind)}  {name}", flush=True)
    return 0


def _key(file: Path) -> bytes:
    try:
        key = read_text(file, LARGEST_PASSWORD)
    except OSError as error:
        raise TransomError(str(file), error.strerror or "cannot be read", "give the file of the agent's key") from None
    except ValueError as error:
        raise TransomError(str(file), str(error), "give the file of the agent's key") from None
    if len(key) < LEAST_KEY:
        raise TransomError(str(file), f"has {len(key)} characters, too few", f"an agent's key has {LEAST_KEY} or more")
    return key.encode()
