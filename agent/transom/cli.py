"""The command `transom`: a table of verbs, each in a module that is imported when it is used.

Arguments in, an exit status out: 0, 2 for what the user wrote (settings, arguments), 1 for anything else that failed.
Knows nothing of what a verb does.
"""

import argparse
import contextlib
import importlib
import logging
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from transom import __version__
from transom.core.printable import printable
from transom.errors import SettingsError, TransomError
from transom.flags import default_config, nearest, settings_arguments, take_flags

__all__ = ["VERBS", "main", "settings_arguments"]

# A verb's module has EXAMPLES, add_arguments(parser) and run(args) -> exit status.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("transom.verbs.run", "watch the configured topics until told to stop"),
    "demo": (
        "transom.verbs.demo",
        "a simulated place with faults, a broker inside and a live view; nothing to set up",
    ),
    "replay": ("transom.verbs.replay", "recordings through the pipeline that runs live, as fast as it can"),
    "record": ("transom.verbs.record", "write what the broker sends, for replay and train"),
    "train": ("transom_models.cli", "train a model on recordings and write it as one file"),
    "explain": ("transom.verbs.explain", "why a window scored as it did: which channels and steps, and how much"),
    "call": ("transom.verbs.call", "ask a running agent: ping, mute, acknowledge, explain, … (off unless allowed)"),
    "convert": ("transom_models.converting", "write a model's ONNX twin, which runs without torch"),
    "check": ("transom.verbs.check", "every problem of a configuration and its models, before it runs"),
    "doctor": ("transom.verbs.doctor", "what would go wrong on this machine and with this broker, and how to mend it"),
    "service": ("transom.verbs.service", "the agent as a hardened systemd service: show, install, uninstall"),
    "inspect": ("transom.verbs.inspect", "what a model file says of itself, its size and its latency here"),
    "keygen": ("transom.verbs.keygen", "make the pair of keys with which models are signed"),
    "sign": ("transom.verbs.sign", "sign a model file, so that agents that trust the key run it"),
    "verify": ("transom.verbs.verify", "whether an agent would run a model file, and who signed it"),
    "pseudonym": ("transom.verbs.pseudonym", "what an agent with a key calls a series outside (docs/privacy.md)"),
    "push": ("transom.verbs.push", "send a signed model over MQTT to a running agent, or to a group of them"),
    "rollout": ("transom.verbs.rollout", "which model each stream runs, what is tried; accept it, or roll it back"),
    "bench": (
        "transom.verbs.bench",
        "readings a second, latency, memory and start here, with a plain script beside",
    ),
}

INTERRUPTED = 128 + 2  # as a shell reports a process ended by SIGINT, and by SIGPIPE
PIPE_CLOSED = 128 + 13


class UsageError(TransomError):
    """Arguments that the command does not take."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(self.prog, message, f"see {self.prog} --help")


def command() -> NoReturn:
    """`transom`: `main`, and the end of the process. That of an agent, which has saved and said everything, is at once:
    the end of the interpreter takes up to two seconds more, and aborts where a thread is still in torch."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a pipe that is closed: main has said so
            stream.flush()
    if sys.argv[1:2] == ["run"]:
        logging.shutdown()
        os._exit(status)
    sys.exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Never raises: what fails is one line on stderr, with --debug also a traceback."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        status = _verb([w for w in words if w != "--debug"])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001 the last line of defence: no user sees a traceback
        if debug:
            traceback.print_exc()
        for line in _lines(error):
            print(f"transom: {printable(' '.join(line.splitlines()))}", file=sys.stderr)  # noqa: T201
        return 2 if isinstance(error, SettingsError | UsageError) else 1
    return status


def _verb(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if name in ("-V", "--version"):
        sys.stdout.write(f"transom {__version__}\n")
        return 0
    if name not in VERBS:
        guess = nearest(name, VERBS)
        remedy = f"did you mean 'transom {guess}'? See transom --help" if guess else "see transom --help"
        raise UsageError("", f"unknown {'option' if name.startswith('-') else 'verb'} {name!r}", remedy)
    module: Any = importlib.import_module(VERBS[name][0])
    parser = _Parser(
        prog=f"transom {name}",
        description=f"{VERBS[name][1][0].upper()}{VERBS[name][1][1:]}.",
        epilog="examples:\n" + textwrap.indent(textwrap.dedent(module.EXAMPLES).strip(), "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show where in the program an error came from")
    flags, others = take_flags(words[1:])
    try:
        args = parser.parse_intermixed_args(others)  # transom replay a.csv --model m b.csv
    except SystemExit as end:  # --help
        return int(end.code or 0)
    if "overrides" in args:
        args.overrides = flags
        args.config = args.config or default_config()
    elif flags:
        raise UsageError(parser.prog, f"takes no settings such as --{next(iter(flags))}", f"see {parser.prog} --help")
    return int(module.run(args))


def _help() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in VERBS.items())
    return f"""\
usage: transom VERB [options]

Watches MQTT sensors with small neural models and says what it saw.

verbs:
{verbs}

options:
  -h, --help     this page; transom VERB --help for a verb's own, with examples
  -V, --version  the version
  --debug        show where in the program an error came from (any verb)
"""


def _lines(error: Exception) -> list[str]:
    if isinstance(error, SettingsError):
        n = len(error.problems)
        return [*map(str, error.problems), f"{n} problem{'s' * (n != 1)} in the configuration"]
    if isinstance(error, TransomError):
        return [str(error)]
    if isinstance(error, OSError) and error.strerror:
        return [": ".join(filter(None, (str(error.filename or ""), error.strerror)))]
    return [f"unexpected {type(error).__name__}: {error}; run again with --debug and report it"]
