"""`transom run`: the agent until SIGTERM or SIGINT. Settings in, an exit status out."""

import argparse
import contextlib
import faulthandler
import logging
import signal
import threading
from pathlib import Path
from types import FrameType

from transom.errors import ModelError
from transom.flags import settings_arguments
from transom.runtimes import choice, files
from transom.runtimes.trial import Trials
from transom.settings import Settings, load_settings

log = logging.getLogger(__name__)

EXAMPLES = """\
transom run                        the first of $TRANSOM_CONFIG, ./transom.toml, /etc/transom/agent.toml
transom run -c plant.toml
transom run -c plant.toml --broker.host gateway.local --streams.pumps.false_alarms 1/day"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    settings_arguments(parser)


def run(args: argparse.Namespace) -> int:
    settings = load_settings(args.config, args.overrides)
    with prepare(settings) as trials:
        return _run(args, settings, trials)


def prepare(settings: Settings) -> Trials:
    """The process for models that are not shipped, if any, started: it gets ready while this one imports the rest."""
    trials, shipped = Trials(), {file.parent for file in files.shipped_models().values()}
    strange: dict[str, Path] = {}  # one of each runtime
    for stream in settings.streams.values():
        with contextlib.suppress(ModelError):  # told in full when it is to be loaded
            file = choice.find(stream.model, settings.folder, settings.agent.runtime)
            if file.parent not in shipped:
                strange[file.suffix] = file
    for file in strange.values():
        trials.prepare(file)
    return trials


def _run(args: argparse.Namespace, settings: Settings, trials: Trials) -> int:
    from transom.edge import logs, memory
    from transom.edge.assembly import build_pipeline
    from transom.edge.reload import Reload
    from transom.edge.rollout.store import Store
    from transom.edge.service import Agent
    from transom.edge.systemd import Supervisor

    logs.set_up(settings.agent.log_level)
    stop = threading.Event()
    supervisor = Supervisor()
    if supervisor:
        faulthandler.enable()  # the watchdog ends a stuck agent with SIGABRT; where it was stuck is then in the journal
    supervisor.say("loading models")
    store = Store(settings.agent.state / "models")
    store.begin()
    assembly = build_pipeline(settings, updates=store, trials=trials)
    for error in assembly.broken.values():
        log.error("a stream is left out: %s", error)
    memory.unmap_files()  # before any thread is begun
    reload = Reload(lambda: load_settings(args.config, args.overrides), settings.config, store)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        stop.set()  # the loop looks at it several times a second; a handler must not wait for a lock

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: reload.ask())
    Agent(settings, assembly, reload=reload, supervisor=supervisor, store=store).run(stop)
    return 0
