"""`transom rollout`: which model each stream runs and what is being tried, and the end of a trial by hand.

Reads agent.state/models of this machine, or asks the running agent. Changes nothing by itself.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from transom.edge import asking
from transom.edge.rollout.ledger import RECORD
from transom.edge.rollout.record import Entry, File, Record, decode
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.settings import Settings, load_settings

EXAMPLES = """\
transom rollout -c plant.toml                     what runs, what is tried, and since when
transom rollout accept --stream pumps             the newer model needs no more trial
transom rollout rollback --stream pumps           the model before runs again"""

PHASES = {
    "shadow": "runs beside the other, and is compared with it",
    "trial": "runs; the one before stands by",
    "none": "runs for good",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("verb", nargs="?", choices=("show", "accept", "rollback"), default="show", help="default: show")
    parser.add_argument("--stream", help="accept, rollback: of which stream")
    parser.add_argument("--timeout", type=float, default=asking.TIMEOUT, help="seconds to wait (default: 5)")


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides, need_streams=args.verb == "show")
    if args.verb == "show":
        for line in lines(settings, _record(settings).streams):
            print(line)
        return 0
    if not args.stream:
        raise TransomError("--stream", "is missing", f"write: transom rollout {args.verb} --stream pumps")
    print(json.dumps(asking.ask(settings, args.verb, {"stream": args.stream}, args.timeout), ensure_ascii=False))
    return 0


def _record(settings: Settings) -> Record:
    file = settings.agent.state / "models" / RECORD
    try:
        return decode(file.read_bytes())
    except FileNotFoundError:
        return Record()
    except OSError as error:
        raise TransomError(
            str(file), error.strerror or "cannot be read", "run it as the agent's user, or as root"
        ) from None
    except ValueError as error:
        raise TransomError(str(file), str(error), "the configured models run; the agent's log says more") from None


def lines(settings: Settings, entries: Mapping[str, Entry]) -> Iterator[str]:
    """Each stream of the configuration, and what has come for it."""
    for name, stream in settings.streams.items():
        entry = entries.get(name)
        if entry is None or entry.active is None:
            yield f"{name:14} {stream.model}, as configured"
        else:
            yield f"{name:14} {_told(entry.active)}"
        if entry is not None and entry.tried is not None:
            yield f"{'':14} {entry.phase}: {entry.tried.label} {PHASES[entry.phase]}; so far {_time(entry.spent)}"
            if entry.candidate is not None:
                yield f"{'':14} candidate: {_told(entry.candidate)}"
        if entry is not None and entry.previous is not None:
            yield f"{'':14} before: {_told(entry.previous)}"
        if entry is not None and entry.rejected:
            yield f"{'':14} failed here: {', '.join(digest[:12] for digest in entry.rejected)}"


def _told(file: File) -> str:
    when = datetime.fromtimestamp(file.offered / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{file.label} ({file.sha256[:12]}), {file.signer or 'nobody vouches for it'}, by {file.origin}, {when}"


def _time(ms: int) -> str:
    hours, minutes = divmod(ms // 60_000, 60)
    return f"{hours} h {minutes} min"
