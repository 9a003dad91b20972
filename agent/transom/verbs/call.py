"""`transom call`: a remote call to a running agent. A verb and key=value in, the agent's answer out."""

import argparse
import json
import sys

from rich.console import Console
from rich.json import JSON

from transom.core.printable import printable
from transom.edge import asking
from transom.edge.requests import NAMES, TYPES, unknown
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.settings import load_settings

EXAMPLES = """\
transom call ping -c plant.toml
transom call mute stream=pumps series=hall/pump-1/vibration duration=1h -c plant.toml
transom call mute alert=5b1f0c6a9d2e4471 duration=8h           until that alert ends, or for 8 h
transom call unmute stream=pumps series=hall/pump-1/vibration
transom call acknowledge alert=5b1f0c6a9d2e4471 by=anna
transom call set-budget stream=pumps false_alarms=1/day        until a restart or reload
transom call reload --timeout 30
transom call explain stream=pumps series=hall/pump-1/vibration  as JSON; transom explain --live shows it"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("verb", metavar="VERB", help=", ".join(NAMES))
    parser.add_argument("fields", nargs="*", metavar="KEY=VALUE", help="what the call says")
    parser.add_argument("--timeout", type=float, default=asking.TIMEOUT, help="seconds to wait (default: 5)")


def run(args: argparse.Namespace) -> int:
    if args.verb not in TYPES:
        raise unknown(args.verb)
    fields: dict[str, str] = {}
    for word in args.fields:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise TransomError(word, "is no key=value", "write it like stream=pumps")
        fields[key] = value
    if not 0 < args.timeout <= 600:
        raise TransomError("--timeout", f"{args.timeout:g} seconds", "choose more than 0 and at most 600")
    settings = load_settings(args.config, args.overrides, need_streams=False)
    answer = printable(json.dumps(asking.ask(settings, args.verb, fields, args.timeout), ensure_ascii=False))
    if sys.stdout.isatty():
        Console(file=sys.stdout).print(JSON(answer, ensure_ascii=False))
    else:
        print(answer)
    return 0
