"""`transom doctor`: what would go wrong here. Each finding says what, why it matters, and the command that mends it."""

import argparse
import contextlib
import json
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from transom.edge.checkup import Finding, machine, storage
from transom.errors import TransomError
from transom.flags import settings_arguments
from transom.runtimes import choice
from transom.settings import Settings, read
from transom.verbs.check import broker_notes

EXAMPLES = """\
transom doctor                       the machine, the configuration, its models, the service and the broker
transom doctor -c plant.toml
transom doctor --no-connect          leaves the broker alone
transom doctor --json                for scripts: a list of findings, empty when all is well"""

Area = tuple[str, Callable[[], Iterable[Finding]]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)
    parser.add_argument("--no-connect", action="store_true", help="do not log in to the broker")
    parser.add_argument("--json", action="store_true", help="findings and notes as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when nothing has to be mended, 1 with findings. Notes do not count."""
    found: list[tuple[str, Finding]] = []
    for name, area in areas(args):
        with _shown(name, quiet=args.json):
            here = list(area())
        found += [(name, finding) for finding in here]
        if not args.json:
            print("\n".join(_told(name, here)))
    count = sum(not finding.note for _, finding in found)
    if args.json:
        print(
            json.dumps([{"area": name, **finding._asdict()} for name, finding in found], ensure_ascii=False, indent=1)
        )
    else:
        print(f"{count} finding{'s' * (count != 1)}" if count else "nothing to mend")
    return 1 if count else 0


def areas(args: argparse.Namespace) -> Iterator[Area]:
    reading = read(args.config, args.overrides)
    settings = reading.settings
    yield "machine", machine.findings
    runtime = settings.agent.runtime if settings is not None else "auto"
    if runtime != "onnx" and choice.torch_is_installed():
        yield (
            "torch",
            lambda: machine.torch_findings(machine.look_torch(), gpu=machine.look_gpu(), machine=platform.machine()),
        )
    yield "configuration", lambda: configuration_findings(reading.problems, settings)
    yield "models", lambda: storage.model_findings(reading.streams, reading.folder, runtime, reading.trust)
    if settings is not None:
        named = "state" in settings.agent.model_fields_set
        folder, others = storage.state_of(settings.agent.state, named=named)
        yield "state", lambda: storage.state_findings(folder, trial=not others or os.geteuid() == 0)
    yield "service", lambda: storage.service_findings(args.config)
    if settings is not None and not args.no_connect:
        from transom.edge.checkup import broker  # only here is the network wanted

        yield "broker", lambda: broker.findings(settings)


def configuration_findings(problems: Iterable[TransomError], settings: Settings | None) -> Iterator[Finding]:
    for problem in problems:
        yield Finding(f"{problem.place}: {problem.problem}", "the agent does not start with it", problem.remedy)
    if settings is None:
        return
    for note in broker_notes(settings.broker):
        grave = "insecure" in note or "password_file" in note
        what, _, mend = note.partition("; chmod")
        yield Finding(
            what,
            "others can read what is sent, or pose as one of the two",
            f"chmod{mend}" if mend else "ca_file under [broker.tls], and a TLS listener at the broker",
            note=not grave,
        )


def _told(name: str, findings: list[Finding]) -> Iterator[str]:
    if not findings:
        yield f"{name:14} ok"
    for finding in findings:
        yield f"{name:14} {'note' if finding.note else 'FINDING'}: {finding.what}"
        yield f"{'':14} why:  {finding.why}"
        yield f"{'':14} mend: {finding.mend}"


def _shown(name: str, *, quiet: bool) -> AbstractContextManager[object]:
    """On a terminal, that something is being done."""
    if quiet or not sys.stderr.isatty():
        return contextlib.nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"looking at: {name}")
